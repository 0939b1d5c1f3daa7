"""Which workers, interval between saves and share of spot machines to take: found by simulating, and by how much.

One thing at a time is changed to what is cheapest (or fastest, where nobody knows prices), in a tenth of the runs,
until nothing changes any more; what is best then is compared with its neighbours and with what is configured.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from scaletrain import policy
from scaletrain.simulate.estimate import Estimate, Range, difference, estimate
from scaletrain.simulate.setting import Pool, Setting

_HOUR_S = 3600.0
_MOST_LATE = 0.1  # of the runs may miss the deadline
_SLOWER = 1.1  # than as configured; where no deadline is given, the cheapest would else be a single worker
_FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 32.0)  # of the formula's interval, which knows no notices
_SHARES_ON_DEMAND = (0.0, 0.25, 0.5, 1.0)
_SHARES_OF_WORKERS = (0.25, 0.5, 0.75, 1.0)
_ROUNDS = 2
_FEWEST_RUNS = 40


@dataclass(frozen=True)
class Row:
    """One alternative: its name, what it comes to, and how much more that is than what is recommended, run by run."""

    name: str
    estimate: Estimate
    more_hours: Range
    more_usd: Range


@dataclass(frozen=True)
class Study:
    """Rows: what is recommended comes first, then what is configured, then others; `interval_s` is the formula's.

    `intervals` is the recommended setting with other intervals between saves, for the picture.
    """

    rows: tuple[Row, ...]
    intervals: tuple[Estimate, ...]
    interval_s: float
    knows_prices: bool
    deadline_hours: float

    @property
    def recommended(self) -> Estimate:
        return self.rows[0].estimate


def study(
    configured: Setting,
    pools: Sequence[Pool],
    *,
    fewest: int,
    most: int,
    runs: int,
    seed: int,
    knows_prices: bool,
    deadline_hours: float | None = None,
) -> Study:
    """Find the best setting with `fewest` to `most` workers, and compare it with others.

    Nine of ten runs have to be done by the deadline. Without one, none is to be much slower than what is configured.
    """
    as_configured = estimate(configured, pools, runs=runs, seed=seed)
    deadline_hours = deadline_hours or _SLOWER * as_configured.done_by(1 - _MOST_LATE)
    search = _Search(pools, max(_FEWEST_RUNS, runs // 10), seed, knows_prices, deadline_hours)
    best, interval_s = search.best(with_workers(configured, fewest, most), fewest, most, configured.every_steps)
    intervals = sorted({*_intervals(best, interval_s), best.every_steps})
    curve = [estimate(replace(best, every_steps=each), pools, runs=runs, seed=seed) for each in intervals]
    first = min(curve, key=search.cost_of)
    best = first.setting
    rows = [Row("recommended", first, difference(first.hours, first.hours), difference(first.usd, first.usd))]
    seen = {best}
    for name, setting in {"as configured": configured, **_neighbours(best, pools)}.items():
        if setting in seen and setting is not configured:
            continue
        seen.add(setting)
        other = as_configured if setting == configured else estimate(setting, pools, runs=runs, seed=seed)
        rows.append(Row(name, other, difference(other.hours, first.hours), difference(other.usd, first.usd)))
    return Study(tuple(rows), tuple(curve), interval_s, knows_prices, deadline_hours)


def with_workers(setting: Setting, least: int, most: int) -> Setting:
    """The same run with other numbers of workers; what each of the most holds of the state changes with them."""
    part = setting.most / most
    return replace(
        setting,
        least=least,
        most=most,
        stall_s=setting.stall_s * part,
        upload_s=setting.upload_s * part,
        restore_s=setting.restore_s * part,
    )


def between_losses_s(setting: Setting, pool: Pool) -> float:
    """Mean time between two losses of a group of the most workers; infinite where nothing is ever lost."""
    machines = -(-setting.most // pool.workers_per_machine)
    spot = machines - setting.on_demand_of(machines)
    rate = spot * pool.losses_per_hour.mean + machines * setting.hardware_losses_per_hour
    return _HOUR_S / rate if rate else float("inf")


class _Search:
    """Goes over one thing after the other, with `runs` simulated runs for each alternative."""

    def __init__(self, pools: Sequence[Pool], runs: int, seed: int, knows_prices: bool, deadline_hours: float) -> None:
        self._pools, self._runs, self._seed = pools, runs, seed
        self._knows_prices, self._deadline_hours = knows_prices, deadline_hours
        self._known: dict[Setting, tuple[float, float]] = {}

    def best(self, setting: Setting, fewest: int, most: int, configured_steps: int) -> tuple[Setting, float]:
        """The best setting found, and the interval between saves that the formula gives for it."""
        is_taken = any(pool.losses_per_hour.mean or not pool.capacity.is_constant for pool in self._pools)
        for _ in range(_ROUNDS):
            before = setting
            interval_s = policy.best_interval_s(
                setting.stall_s, between_losses_s(setting, self._pools[0]), upload_s=setting.upload_s
            )
            steps = {*_intervals(setting, interval_s), configured_steps, setting.every_steps}
            setting = self._cheapest([replace(setting, every_steps=each) for each in sorted(steps)])
            if is_taken and self._knows_prices:  # without prices on demand would be the better one, for nothing
                setting = self._cheapest([replace(setting, on_demand_share=each) for each in _SHARES_ON_DEMAND])
            maxima = _worker_numbers(fewest, most, self._pools[0].workers_per_machine)
            setting = self._cheapest([with_workers(setting, min(fewest, each), each) for each in maxima])
            minima = [each for each in {fewest, *maxima} if each <= setting.most]
            setting = self._cheapest([replace(setting, least=each) for each in sorted(minima)])
            if setting == before:
                break
        return setting, interval_s

    def _cheapest(self, settings: Sequence[Setting]) -> Setting:
        return min(settings, key=self._cost)

    def _cost(self, setting: Setting) -> tuple[float, float]:
        if setting not in self._known:
            self._known[setting] = self.cost_of(estimate(setting, self._pools, runs=self._runs, seed=self._seed))
        return self._known[setting]

    def cost_of(self, found: Estimate) -> tuple[float, float]:
        """What is to be small: how far too many runs are late, then money (hours where prices are not known)."""
        cost = found.usd if self._knows_prices else found.hours
        return max(0.0, found.late(self._deadline_hours) - _MOST_LATE), sum(cost) / found.runs


def _intervals(setting: Setting, interval_s: float) -> list[int]:
    """Steps between two saves, round the interval that the formula gives."""
    step_s = setting.step_s(setting.most)
    best = min(interval_s, setting.undisturbed_s) / step_s
    return sorted({min(setting.steps, max(1, round(best * factor))) for factor in _FACTORS})


def _worker_numbers(fewest: int, most: int, per_machine: int) -> list[int]:
    """Some numbers of workers from `fewest` to `most`, whole machines where that can be."""
    numbers = {max(fewest, round(share * most / per_machine) * per_machine) for share in _SHARES_OF_WORKERS}
    return sorted(each for each in {*numbers, most} if 0 < each <= most)


def _neighbours(best: Setting, pools: Sequence[Pool]) -> dict[str, Setting]:
    """What else one may think of, each different from the best in one thing."""
    half = max(best.least, best.most // 2)
    return {
        "saves 4x as often": replace(best, every_steps=max(1, best.every_steps // 4)),
        "saves 1/4 as often": replace(best, every_steps=min(best.steps, best.every_steps * 4)),
        "spot only": replace(best, on_demand_share=0.0),
        "half on demand": replace(best, on_demand_share=0.5),
        "on demand only": replace(best, on_demand_share=1.0),
        "never with fewer": replace(best, least=best.most),
        f"at most {half} workers": with_workers(best, min(best.least, half), half),
    }
