"""Hours and US dollars of a run: machines by the dated price table, checkpoints kept, and the model taken home.

Interruptions of spot machines are assumed, between what AWS states as the average over its types (under 5% of machines
a month, https://aws.amazon.com/ec2/spot/instance-advisor/) and the upper end of what Google has observed (15% a day,
https://cloud.google.com/compute/docs/instances/preemptible). The interval between saves is policy's (Young, Daly).
"""

import math
from dataclasses import dataclass

from scaletrain import policy
from scaletrain.machine_types import Cloud, cloud_of, machine_type
from scaletrain.plan.compute import Band
from scaletrain.plan.machines import Machines
from scaletrain.plan.memory import GB, Memory, Way
from scaletrain.price_table import Market, PriceTable

HOURS_OF_A_MONTH = 730
_LOST_AN_HOUR = (0.05 / HOURS_OF_A_MONTH, 0.15 / 24)  # of spot machines, each
_START_UP_S = (60.0, 900.0)  # machines launched, set up or from an image, Ray and the engine started
_START_UP_HERE_S = (10.0, 120.0)  # without machines to wait for: benchmarks/results/quickstart.md has 42
_RESTART_S = (15.0, 300.0)  # from a loss to the next step (benchmarks/results/recovery.md: 11 s), or to a new machine
_COPY_BYTES_PER_S = (5e9, 20e9)  # into the image that is saved: benchmarks/results/checkpoint.md, and pinned over PCIe
_UPLOAD_BYTES_PER_S = (0.2e9, 1.5e9)  # of a machine to its bucket: benchmarks/results/upload.md has 0.4


@dataclass(frozen=True)
class MachinePrices:
    """What machines cost: `flat` US dollars an hour for each of them where the user said so, else the table's price."""

    table: PriceTable
    flat: float | None = None

    def usd_per_hour(self, machine_type: str | None, market: Market, *, region: str | None) -> float | None:
        """The price of one machine; None where it is not known."""
        if self.flat is not None or machine_type is None:
            return self.flat
        return self.table.usd_per_hour(machine_type, market, region=region)


@dataclass(frozen=True)
class Saving:
    """Checkpoints: bytes of each, seconds that a save stalls and uploads, and the interval as it is and at its best.

    `losses` are the spot interruptions to expect over the run; None for what needs a step's time that is unknown.
    """

    size_bytes: int
    stall_s: Band
    upload_s: Band
    every_steps: int
    interval_s: Band | None
    best_every_steps: int | None
    losses: Band | None


@dataclass(frozen=True)
class Cost:
    """A run's wall time and what it costs; None where a price is not known.

    On spot, saves are as far apart as is best, or as configured where that is less. `storage_usd_per_month` is what the
    kept checkpoints go on costing, `egress_usd` to download the trained model once.
    """

    hours: Band
    spot_hours: Band
    on_demand_usd: Band | None
    spot_usd: Band | None
    on_demand_usd_per_hour: float | None
    spot_usd_per_hour: float | None
    storage_usd: Band | None
    storage_usd_per_month: float | None
    egress_usd: float | None


def forecast_saving(
    memory: Memory, way: Way, machines: Machines, *, every_steps: int, step_s: Band | None, steps: int | None
) -> Saving:
    """What checkpoints take, and how far apart they should be on spot machines."""
    size = memory.checkpoint_bytes
    a_machine = size / machines.count(way.num_workers)
    stall = Band(size / way.num_workers / _COPY_BYTES_PER_S[1], size / way.num_workers / _COPY_BYTES_PER_S[0])
    fastest = min(_UPLOAD_BYTES_PER_S[1], machines.network_bytes_per_s or math.inf)
    upload = Band(a_machine / fastest, a_machine / min(_UPLOAD_BYTES_PER_S[0], fastest))
    if step_s is None:
        return Saving(size, stall, upload, every_steps, None, None, None)
    between = _between_losses_s(way, machines)
    best_s = policy.best_interval_s(stall.middle, between.middle, upload_s=upload.middle)
    best = max(1, round(best_s / step_s.middle))
    losses = None
    if steps is not None:
        best = min(best, steps)
        wall = step_s.times(steps)
        losses = Band(wall.low / between.high, wall.high / between.low)
    return Saving(size, stall, upload, every_steps, step_s.times(every_steps), best, losses)


def forecast_cost(
    saving: Saving,
    way: Way,
    machines: Machines,
    *,
    step_s: Band,
    steps: int,
    keep: int,
    model_bytes: int,
    prices: MachinePrices,
) -> Cost:
    """What the whole run takes and costs, on demand and on spot."""
    work = step_s.times(steps)
    interval = saving.interval_s or work
    start = Band(*(_START_UP_HERE_S if machines.instance_type is None else _START_UP_S))
    calm = Band(*(_wall_s(each, work, interval, saving, math.inf) for each in ("low", "high"))) + start
    between = _between_losses_s(way, machines)
    if saving.best_every_steps is not None:  # a run on spot is one that saves often enough
        often = step_s.times(saving.best_every_steps)
        interval = Band(min(interval.low, often.low), min(interval.high, often.high))
    spot = Band(
        _wall_s("low", work, interval, saving, between.high), _wall_s("high", work, interval, saving, between.low)
    )
    hours, spot_hours = calm.times(1 / 3600), (spot + start).times(1 / 3600)
    on_demand_rate, spot_rate = (_usd_per_hour(way, machines, market, prices) for market in ("on-demand", "spot"))
    cloud = _cloud(machines)
    kept = None if cloud is None else prices.table.storage.get(cloud)
    a_month = None if kept is None else keep * saving.size_bytes / GB * kept.usd_per_gb_month
    return Cost(
        hours=hours,
        spot_hours=spot_hours,
        on_demand_usd=None if on_demand_rate is None else hours.times(on_demand_rate),
        spot_usd=None if spot_rate is None else spot_hours.times(spot_rate),
        on_demand_usd_per_hour=on_demand_rate,
        spot_usd_per_hour=spot_rate,
        storage_usd=None if a_month is None else spot_hours.times(a_month * (keep + 1) / keep / HOURS_OF_A_MONTH),
        storage_usd_per_month=a_month,
        egress_usd=None if kept is None else model_bytes / GB * kept.usd_per_gb_egress,
    )


def _wall_s(bound: str, work: Band, interval: Band, saving: Saving, between_losses_s: float) -> float:
    return policy.expected_wall_s(
        getattr(work, bound),
        interval_s=min(getattr(interval, bound), getattr(work, bound)),
        stall_s=getattr(saving.stall_s, bound),
        restart_s=_RESTART_S[0] if bound == "low" else _RESTART_S[1],
        between_losses_s=between_losses_s,
    )


def _between_losses_s(way: Way, machines: Machines) -> Band:
    """Seconds between two losses of any machine of the group."""
    count = machines.count(way.num_workers)
    return Band(3600 / (_LOST_AN_HOUR[1] * count), 3600 / (_LOST_AN_HOUR[0] * count))


def _usd_per_hour(way: Way, machines: Machines, market: Market, prices: MachinePrices) -> float | None:
    """The workers' machines on a market, and the head's on demand."""
    each = prices.usd_per_hour(machines.instance_type, market, region=machines.region)
    head: float | None = 0.0
    if machines.head_type is not None:
        head = prices.usd_per_hour(machines.head_type, "on-demand", region=machines.region)
    return None if each is None or head is None else each * machines.count(way.num_workers) + head


def _cloud(machines: Machines) -> Cloud | None:
    if machines.region is not None:
        return cloud_of(machines.region)
    found = machine_type(machines.instance_type) if machines.instance_type else None
    return found.cloud if found else None
