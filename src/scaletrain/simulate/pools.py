"""The machines that a simulated run may have: from a trace or none, the machine type and its prices."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date

from scaletrain.config import Config
from scaletrain.devices import peak_flops_of
from scaletrain.errors import ConfigError
from scaletrain.machine_types import MachineType, machine_type
from scaletrain.price_table import Market, PriceList, PriceTable, load_price_table, warn_of_old
from scaletrain.simulate import trace as traces
from scaletrain.simulate.series import Series
from scaletrain.simulate.setting import NOTICE_S, Pool

# AWS's Spot Instance Advisor (https://aws.amazon.com/ec2/spot/instance-advisor/) has bands of the share of machines
# that are taken in a month; ">20%" is the highest. That GPU machines are there is assumed.
TAKEN_PER_MONTH = 0.2
_HOURS_OF_MONTH = 730.0
_UNNAMED = "a machine"


@dataclass(frozen=True)
class Machinery:
    """The pools in the order in which they are asked for; `notice_s` is the cloud's, `notes` tell where it is from."""

    pools: tuple[Pool, ...]
    knows_prices: bool
    notice_s: float | None
    gpus_per_machine: int
    head_usd_per_hour: float
    notes: tuple[str, ...]


def make_pools(
    config: Config,
    *,
    machine: str | None,
    region: str | None,
    trace: str | None,
    taken_per_month: float | None,
    head: str | None = None,
) -> Machinery:
    """The machines of a type, as a trace says or, without one, at a constant price and taken at a constant rate.

    `head` is the machine type of the cluster's head, which is paid for too. Raises ConfigError with everything that is
    wrong with a trace, or where it has nothing of this machine type.
    """
    prices = _Prices(load_price_table(config.budget.prices), region, config.budget.usd_per_machine_hour)
    known = machine_type(machine) if machine else None
    notes = [] if machine is None or known else [f"{machine} is not known here: one worker on each"]
    if trace is None:
        taken = TAKEN_PER_MONTH if taken_per_month is None else taken_per_month
        assumed = " (assumed: --taken-per-month, or a --trace)" if taken_per_month is None else ""
        notes.append(f"{taken:.0%} of the spot machines are taken in a month{assumed}")
        pools = [_constant_pool(config, machine, taken, prices)]
    else:
        markets = _wanted(traces.load_trace(trace), machine, trace)
        first = markets[0].machine_type if machine is None else machine
        pools = [_market_pool(config, market, first, prices) for market in markets]
        notes.append(f"prices and interruptions: the trace {trace}, {', '.join(pool.name for pool in pools)}")
        if len({pool.machine_type for pool in pools}) > 1:
            notes.append(f"a step's time is taken for that on {first}; others by the peaks of their GPUs")
    head_usd = prices.usd_per_hour(head, "on-demand") if head else 0.0
    notes.append(f"the head, {head}, costs {head_usd:.3g} USD an hour" if head else "the head costs nothing (--head)")
    if prices.missing:
        why = "" if machine else " (name a machine type with --machine)"
        notes.append(f"nothing is said of money: not known are {', '.join(dict.fromkeys(prices.missing))}{why}")
    warn_of_old(prices.used, date.today())
    notice_s = NOTICE_S[known.cloud] if known else None
    return Machinery(tuple(pools), not prices.missing, notice_s, known.gpus if known else 0, head_usd, tuple(notes))


@dataclass
class _Prices:
    """What machines cost: all the same where `flat_usd` says so, else as in a table; notes what it was asked."""

    table: PriceTable
    region: str | None
    flat_usd: float | None
    used: list[PriceList] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def usd_per_hour(self, machine: str, market: Market) -> float:
        """The price of a machine; 0, noted as missing, where nobody knows it."""
        if self.flat_usd is not None:
            return self.flat_usd
        row = self.table.row(machine, market, region=self.region)
        if row is None:
            self.missing.append(f"{market} prices of {machine}")
            return 0.0
        self.used.append(row[1])
        return row[0]


def _constant_pool(config: Config, machine: str | None, taken_per_month: float, prices: _Prices) -> Pool:
    name = machine or _UNNAMED
    return Pool(
        machine_type=name,
        zone="",
        usd_per_hour=Series.constant(prices.usd_per_hour(name, "spot")),
        losses_per_hour=Series.constant(taken_per_month / _HOURS_OF_MONTH),
        capacity=Series.constant(float("inf")),
        on_demand_usd_per_hour=prices.usd_per_hour(name, "on-demand"),
        workers_per_machine=_workers_per_machine(config, machine_type(name)),
    )


def _market_pool(config: Config, market: traces.Market, first: str, prices: _Prices) -> Pool:
    """One pool; `first` is the machine type that is named, else the trace's first, of which a step's time is."""
    first = _UNNAMED if first == traces.ANY_TYPE else first
    name = first if market.machine_type == traces.ANY_TYPE else market.machine_type
    on_demand_usd = prices.usd_per_hour(name, "on-demand")
    own = machine_type(name)
    return Pool(
        machine_type=name,
        zone=market.zone,
        usd_per_hour=market.price.times(on_demand_usd) if market.is_share else market.price,
        losses_per_hour=market.losses_per_hour,
        capacity=market.capacity,
        on_demand_usd_per_hour=on_demand_usd,
        workers_per_machine=_workers_per_machine(config, own),
        speed=_speed(own, machine_type(first)),
    )


def _wanted(markets: Sequence[traces.Market], machine: str | None, trace: str) -> list[traces.Market]:
    """Those of the machine type, if one is named; else all."""
    found = [each for each in markets if machine is None or each.machine_type in (machine, traces.ANY_TYPE)]
    if not found:
        names = ", ".join(dict.fromkeys(each.machine_type for each in markets))
        raise ConfigError(f"{trace} has nothing of {machine}, only {names}; name one of these, or leave --machine out")
    return found


def _speed(own: MachineType | None, reference: MachineType | None) -> float:
    """How fast a worker is beside one of the machine type that is named, by the peaks of their GPUs; else 1."""
    if own is None or reference is None or own.gpu is None or reference.gpu is None:
        return 1.0
    own_peak, reference_peak = peak_flops_of(own.gpu), peak_flops_of(reference.gpu)
    return own_peak / reference_peak if own_peak and reference_peak else 1.0


def _workers_per_machine(config: Config, machine: MachineType | None) -> int:
    """A machine's GPUs; by its CPUs where it has none, and one worker where nobody knows the machine."""
    if machine is None:
        return 1
    return machine.gpus or max(1, int(machine.vcpus / config.scaling.cpus_per_worker))
