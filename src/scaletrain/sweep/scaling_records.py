"""What a scaling study leaves in the bucket, beside what every sweep does: a record of each point, as it was measured.

    sweeps/<name>/points/4-workers-stage-2-batch-64.json

A point is measured from the metrics lines of its run. The first steps of each attempt settle and are left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import orjson

from scaletrain import storage
from scaletrain.errors import TrainingError
from scaletrain.goodput import account
from scaletrain.layout import RunLayout
from scaletrain.metrics import read_attempt_records
from scaletrain.storage.parallel import in_parallel
from scaletrain.sweep.records import SweepLayout
from scaletrain.sweep.scaling_points import Point

_READERS = 16
_PARTLY_MEASURED = 0.5  # of the steps asked for; with fewer, a median says too little


@dataclass(frozen=True)
class Spread:
    """The median of what the steps show, and the quartiles around it."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Measurement:
    """What a point's steps were like; times are of a step, `tokens` how many a step has (a median).

    `memory_bytes` is rank 0's peak: of the GPU, or resident on a CPU. `usd_per_hour` is of all machines that the run
    held; it and `mfu` are None where they are not known. `start_up_s` is from workers that are there to the first step.
    """

    steps: int
    tokens: float
    tokens_per_s: Spread
    step_s: Spread
    data_wait_s: float
    memory_bytes: int
    mfu: float | None
    usd_per_hour: float | None
    start_up_s: float


@dataclass(frozen=True)
class PointRecord:
    """One point as the bucket has it; `whole_steps` is how many steps the whole run would have at its batch.

    `reason` and `error` (its kind) say why it failed. `seconds` and `cost_usd` are what all its tries took, waiting for
    machines included; the cost is None where prices are not known.
    """

    point: Point
    run: str
    micro_batch_size: int
    whole_steps: int
    state: Literal["running", "measured", "failed"] = "running"
    reason: str = ""
    error: str = ""
    seconds: float = 0.0
    cost_usd: float | None = None
    measured: Measurement | None = None


def point_url(layout: SweepLayout, point: Point) -> str:
    return storage.join(layout.url, "points", f"{point.label}.json")


def write_point(layout: SweepLayout, record: PointRecord) -> None:
    """Write a point's record in place of the one before."""
    storage.write_bytes(point_url(layout, record.point), orjson.dumps(asdict(record), option=orjson.OPT_INDENT_2))


def read_points(layout: SweepLayout) -> dict[Point, PointRecord]:
    """Every record of a study."""
    urls = [each.url for each in storage.list_objects(storage.join(layout.url, "points")) if each.url.endswith(".json")]
    found = [_parsed(content) for content in in_parallel(storage.read_bytes, urls, max_workers=_READERS)]
    return {record.point: record for record in found}


def measure(run: RunLayout, *, settling_steps: int, measured_steps: int) -> Measurement:
    """Measure a run that has ended by its metrics in the bucket; raises TrainingError where too few steps tell."""
    lines = read_attempt_records(run.metrics)
    steps = settled(lines, settling_steps=settling_steps)
    if len(steps) < _PARTLY_MEASURED * measured_steps:
        raise TrainingError(
            f"only {len(steps)} of {measured_steps} steps could be measured, as its workers were lost or replaced "
            f"({len(lines)} attempts)"
        )
    return measurement(steps, start_up_s=account(run).parts.start_up_s)


def settled(lines: Mapping[int, Mapping[int, Mapping[str, Any]]], *, settling_steps: int) -> list[Mapping[str, Any]]:
    """The lines to measure by: of each attempt those after its first steps, a step done twice as it was last."""
    by_step: dict[int, Mapping[str, Any]] = {}
    for _, steps in sorted(lines.items()):
        by_step.update({step: steps[step] for step in sorted(steps)[settling_steps:]})
    return [by_step[step] for step in sorted(by_step)]


def measurement(steps: Sequence[Mapping[str, Any]], *, start_up_s: float) -> Measurement:
    """The numbers of lines of metrics; there must be at least one."""

    def column(name: str) -> list[float]:
        return [float(line[name]) for line in steps if line.get(name) is not None]

    mfu, usd_per_hour = column("mfu"), column("usd_per_hour")
    return Measurement(
        steps=len(steps),
        tokens=_spread(column("tokens")).median,
        tokens_per_s=_spread(column("tokens_per_s")),
        step_s=_spread(column("step_s")),
        data_wait_s=_spread(column("data_wait_s")).median,
        memory_bytes=int(max(column("memory_bytes"))),
        mfu=_spread(mfu).median if mfu else None,
        usd_per_hour=usd_per_hour[-1] if usd_per_hour else None,
        start_up_s=start_up_s,
    )


def _spread(values: Sequence[float]) -> Spread:
    low, median, high = np.percentile(values, [25, 50, 75])
    return Spread(median=float(median), low=float(low), high=float(high))


def _parsed(content: bytes) -> PointRecord:
    raw: dict[str, Any] = orjson.loads(content)
    measured = raw["measured"]
    if measured is not None:
        spreads = {name: Spread(**measured[name]) for name in ("tokens_per_s", "step_s")}
        measured = Measurement(**{**measured, **spreads})
    return PointRecord(**{**raw, "point": Point(**raw["point"]), "measured": measured})
