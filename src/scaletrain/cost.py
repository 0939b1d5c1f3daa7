"""What a run costs: its machines' prices, noted for each attempt, times the hours that it held them.

An attempt holds the machines of its workers and the head's from its claim to its end. The time between two attempts
of one command counts as the later one's; time between commands counts as nobody's. In the bucket, beside the other
files of an attempt:

    attempt-0003.cost                 its machines, and what they cost an hour (null where that is not known)
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime

import orjson

from scaletrain import storage
from scaletrain.attempts import Signs, read_attempts, read_signs
from scaletrain.config_budget import BudgetSection
from scaletrain.errors import BudgetError, NotFoundError
from scaletrain.goodput import TimeAccount, TimeParts, is_one_command
from scaletrain.layout import RunLayout
from scaletrain.metrics import read_last_record
from scaletrain.price_table import PriceList, PriceTable, load_price_table, read_price_table, too_old
from scaletrain.storage.parallel import in_parallel
from scaletrain.this_machine import Machine

_READERS = 16


@dataclass(frozen=True)
class Prices:
    """What machines cost a run: `flat` US dollars an hour for each of them, else `own` prices, else the package's."""

    flat: float | None = None
    own: PriceTable | None = None

    def usd_per_hour(self, machine: Machine) -> float | None:
        """What a machine costs an hour, None where that is not known."""
        found = self.row(machine)
        return self.flat if self.flat is not None else found[0] if found else None

    def row(self, machine: Machine) -> tuple[float, PriceList] | None:
        """The price in a table, and the list that it is from; None where no table tells, or none is asked."""
        if self.flat is not None or machine.machine_type is None or machine.market is None:
            return None
        packaged = load_price_table()
        table = self.own.over(packaged) if self.own is not None else packaged
        return table.row(machine.machine_type, machine.market, region=machine.region)


def prices_of(budget: BudgetSection) -> Prices:
    """The prices that a configuration names, before the package's. Raises ConfigError."""
    own = read_price_table(budget.prices) if budget.prices is not None else None
    return Prices(budget.usd_per_machine_hour, own)


@dataclass(frozen=True)
class PricedMachine:
    """One machine of an attempt, and what it costs an hour."""

    machine: Machine
    usd_per_hour: float | None


@dataclass(frozen=True)
class Rate:
    """What an attempt's machines cost an hour together: each once, however many workers run on it."""

    machines: tuple[PricedMachine, ...]

    @property
    def usd_per_hour(self) -> float | None:
        """The sum; None where one price is not known, as a sum without it would be a lie."""
        prices = [each.usd_per_hour for each in self.machines]
        return None if None in prices else sum(price for price in prices if price is not None)

    @property
    def unknown(self) -> tuple[str, ...]:
        """The machines without a price, as messages call them."""
        return tuple(dict.fromkeys(each.machine.described for each in self.machines if each.usd_per_hour is None))


def rate_of(machines: Iterable[Machine], prices: Prices) -> Rate:
    """Put a price on machines; the same one may be named more than once."""
    each_once = {machine.identity: machine for machine in machines}
    return Rate(tuple(PricedMachine(machine, prices.usd_per_hour(machine)) for machine in each_once.values()))


def old_prices(rate: Rate, prices: Prices, today: date) -> str | None:
    """What there is to say where the price of a machine in use is older than it should be."""
    rows = [found for each in rate.machines if (found := prices.row(each.machine)) is not None]
    return too_old([of for _, of in rows], today)


@dataclass(frozen=True)
class Spent:
    """What a run has used up: US dollars (None where a price is not known), and seconds in which it held machines."""

    usd: float | None
    seconds: float


@dataclass(frozen=True)
class History:
    """What the bucket tells of a run's cost before one attempt: seconds of each attempt, and what it cost an hour.

    `seconds[attempt]` is the gap before the attempt itself, which was claimed at `claimed` (seconds since 1970 UTC).
    `told_usd` is what the newest line of metrics says.
    """

    attempt: int
    claimed: float
    seconds: Mapping[int, float]
    rates: Mapping[int, float | None]
    told_usd: float | None

    def spent(self, usd_per_hour: float | None) -> Spent:
        """What is used up where the attempt itself costs so much.

        Never less than was told before: an attempt that was killed has left no sign of its last seconds.
        """
        usd = _sum(self.seconds, {**self.rates, self.attempt: usd_per_hour})
        return Spent(None if usd is None else max(usd, self.told_usd or 0.0), sum(self.seconds.values()))


def read_history(run: RunLayout, attempt: int, prices: Prices) -> History:
    """Read what attempts before one have used up; raises StorageError.

    One that did not know what it cost is priced now, where that is known by now.
    """
    known = read_attempts(run)
    signs = {number: found for number, found in read_signs(run, known).items() if number <= attempt}
    earlier = sorted(number for number in signs if number < attempt)
    seconds = {number: _gap_s(signs, number) + _held_s(signs[number]) for number in earlier}
    own = signs.get(attempt)
    notes = _read_notes(run, earlier)
    for number, note in notes.items():
        again = rate_of([each.machine for each in note.machines], prices)
        if note.usd_per_hour is None and again.usd_per_hour is not None:
            note_rate(run, number, again)
            notes[number] = again
    told = read_last_record(run.metrics).get("cost_usd")
    return History(
        attempt=attempt,
        claimed=own.claimed if own is not None and own.claimed is not None else datetime.now(UTC).timestamp(),
        seconds={**seconds, **({attempt: _gap_s(signs, attempt)} if own is not None else {})},
        rates={number: note.usd_per_hour for number, note in notes.items()},
        told_usd=float(told) if isinstance(told, int | float) else None,
    )


def check_budget(budget: BudgetSection, spent: Spent, rate: Rate) -> None:
    """Raise BudgetError where the budget is spent already, or in money while a machine's price is not known."""
    if budget.usd is not None and (spent.usd is None or rate.usd_per_hour is None):
        raise BudgetError(
            f"budget.usd={budget.usd:g}, but what the run costs is not known: no price for "
            f"{', '.join(rate.unknown) or 'what it has used before'}; set budget.usd_per_machine_hour, or name a table "
            "of prices with budget.prices"
        )
    if problem := _spent_problem(budget, spent):
        raise BudgetError(f"{problem}; raise it to go on")


def _spent_problem(budget: BudgetSection, spent: Spent) -> str | None:
    if budget.usd is not None and spent.usd is not None and spent.usd >= budget.usd:
        return f"budget.usd={budget.usd:g} is spent: the run has cost {spent.usd:.2f} USD so far"
    if budget.hours is not None and spent.seconds >= 3600 * budget.hours:
        return f"budget.hours={budget.hours:g} are spent: the run has taken {spent.seconds / 3600:.2f} h so far"
    return None


def note_rate(run: RunLayout, attempt: int, rate: Rate) -> None:
    """Write down what an attempt costs; raises StorageError."""
    machines = [{**asdict(each.machine), "usd_per_hour": each.usd_per_hour} for each in rate.machines]
    record = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "usd_per_hour": rate.usd_per_hour}
    storage.write_bytes(run.attempt_file(attempt, "cost"), orjson.dumps({**record, "machines": machines}))


@dataclass(frozen=True)
class CostAccount:
    """Where a run's money went, by the parts of its wall time; None where a price is not known.

    `lost_work_by_attempt` has what each attempt's lost work cost; it is empty where a price is not known.
    """

    usd: float | None
    by_part: Mapping[str, float] | None
    lost_work_by_attempt: Mapping[int, float]

    @property
    def lost_work_usd(self) -> float | None:
        return self.by_part["lost work"] if self.by_part is not None else None

    def record(self) -> dict[str, object]:
        """The account as plain data."""
        return {"usd": self.usd, "lost_work_usd": self.lost_work_usd, "by_part": self.by_part}


def cost_account(run: RunLayout, time: TimeAccount) -> CostAccount:
    """Put the run's prices on the parts of its time; time between commands costs nothing. Raises StorageError."""
    notes = _read_notes(run, [each.attempt for each in time.attempts])
    if not notes:
        return CostAccount(None, None, {})
    rates = {number: note.usd_per_hour for number, note in notes.items()}
    by_part: dict[str, float] = {}
    for name in TimeParts().by_name():
        seconds = {each.attempt: each.parts.by_name()[name] for each in time.attempts}
        usd = _sum(seconds, rates) if name != "idle" else 0.0
        if usd is None:
            return CostAccount(None, None, {})
        by_part[name] = round(usd, 6)
    lost = {each.attempt: _sum({each.attempt: each.parts.lost_work_s}, rates) or 0.0 for each in time.attempts}
    return CostAccount(round(sum(by_part.values()), 6), by_part, lost)


def _read_notes(run: RunLayout, attempts: list[int]) -> dict[int, Rate]:
    """What attempts noted of their cost; without those that never came to it."""

    def read(attempt: int) -> Rate | None:
        try:
            note = orjson.loads(storage.read_bytes(run.attempt_file(attempt, "cost")))
            priced = [(each.pop("usd_per_hour"), Machine(**each)) for each in note["machines"]]
        except (NotFoundError, orjson.JSONDecodeError, KeyError, TypeError):
            return None
        return Rate(tuple(PricedMachine(machine, usd_per_hour) for usd_per_hour, machine in priced))

    found = in_parallel(read, attempts, max_workers=_READERS)
    return {number: note for number, note in zip(attempts, found, strict=True) if note is not None}


def _sum(seconds: Mapping[int, float], rates: Mapping[int, float | None]) -> float | None:
    """US dollars for the seconds of each attempt; None where one that took any time has no known rate.

    An attempt that died before it knew its rate counts at the dearest of the others.
    """
    dearest = max((rate for rate in rates.values() if rate is not None), default=None)
    usd = 0.0
    for number, of_attempt in seconds.items():
        rate = rates.get(number, dearest)
        if of_attempt and rate is None:
            return None
        usd += of_attempt * (rate or 0.0) / 3600
    return usd


def _held_s(own: Signs) -> float:
    """How long an attempt that is over held its machines, as far as its small files tell."""
    times = _times(own)
    return max(times) - times[0] if times else 0.0


def _gap_s(signs: Mapping[int, Signs], number: int) -> float:
    """The time since the attempt before, where one command went on with this one."""
    before = signs.get(max((other for other in signs if other < number), default=0))
    own = signs[number]
    if before is None or own.claimed is None or not is_one_command(before, own):
        return 0.0
    times = _times(before)
    return max(0.0, own.claimed - max(times)) if times else 0.0


def _times(own: Signs) -> list[float]:
    return [time for time in (own.claimed, own.began, own.heartbeat, own.ended) if time is not None]
