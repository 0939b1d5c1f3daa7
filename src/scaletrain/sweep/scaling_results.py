"""What a scaling study has found: curves with their efficiency, the parts of a step, and the points that suit best."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from scaletrain.config import Config
from scaletrain.config_file import dump_config
from scaletrain.config_scaling import Mode, ScalingStudySection
from scaletrain.sweep import scaling_points
from scaletrain.sweep.scaling_law import Law, fit
from scaletrain.sweep.scaling_points import Point
from scaletrain.sweep.scaling_records import Measurement, PointRecord

_STEADY = 0.25  # quartiles of the steps' throughputs may lie so far apart, as a share of the median
_BELIEVABLE = 1.2


@dataclass(frozen=True)
class StepParts:
    """Where a step's time went, in seconds.

    `computing_s` is what its micro batches take at the pace of the curve's smallest point, shared out evenly;
    `uneven_s` what the busiest worker has beyond that, where they do not divide; `rest_s` all else: communication,
    waiting for one another, and computing that became slower as workers share a machine. At the smallest point it is 0
    by definition, so elsewhere it is what was added since.
    """

    computing_s: float
    uneven_s: float
    data_wait_s: float
    rest_s: float

    @property
    def step_s(self) -> float:
        return self.computing_s + self.uneven_s + self.data_wait_s + self.rest_s

    @property
    def not_computing(self) -> float:
        """The share of the step that is not computing."""
        return 1 - self.computing_s / self.step_s if self.step_s else 0.0


@dataclass(frozen=True)
class PlacedPoint:
    """A measured point on its curve; `speedup` and `efficiency` are against the curve's smallest measured point."""

    record: PointRecord
    measured: Measurement
    speedup: float
    efficiency: float
    parts: StepParts

    @property
    def workers(self) -> int:
        return self.record.point.workers


@dataclass(frozen=True)
class Forecast:
    """What the law says of a number of workers that was not measured."""

    workers: int
    tokens_per_s: float
    efficiency: float


@dataclass(frozen=True)
class Curve:
    """The points of one mode and stage, from the fewest workers to the most; `law` is None below four points."""

    mode: Mode
    stage: int
    points: tuple[PlacedPoint, ...]
    law: Law | None
    forecasts: tuple[Forecast, ...]

    @property
    def name(self) -> str:
        return f"{self.mode}, stage {self.stage}"


@dataclass(frozen=True)
class Offer:
    """What the whole run would take at a point: its start-up and all its steps, without saves and lost machines.

    What a million tokens take is of the steps alone. USD are None where prices are not known.
    """

    point: Point
    hours: float
    worker_hours: float
    usd: float | None
    worker_hours_per_million_tokens: float
    usd_per_million_tokens: float | None


@dataclass(frozen=True)
class StudyResults:
    """A study's findings; `best` is the cheapest offer that meets the deadline, else the fastest.

    Where prices are not known of every point, `has_prices` is False and the cheapest is who needs the fewest hours of
    workers. Where strong points were measured, only they are compared: a weak point is another experiment.
    """

    study: str
    planned: int
    records: tuple[PointRecord, ...]
    curves: tuple[Curve, ...]
    offers: tuple[Offer, ...]
    has_prices: bool
    deadline_hours: float | None
    fastest: Offer | None
    cheapest: Offer | None
    best: Offer | None

    @property
    def meets_deadline(self) -> bool:
        """Whether the best one does; True too where there is no deadline."""
        return self.best is not None and (self.deadline_hours is None or self.best.hours <= self.deadline_hours)

    def offer(self, point: Point) -> Offer:
        """What the whole run would take at a measured point."""
        return next(each for each in self.offers if each.point == point)

    def record(self) -> dict[str, Any]:
        """The results as plain data."""
        curves = [
            {
                **asdict(curve),
                "points": [_placed_record(each) for each in curve.points],
                "law": None if curve.law is None else {"name": curve.law.name, **asdict(curve.law)},
            }
            for curve in self.curves
        ]
        return {**asdict(self), "curves": curves, "meets_deadline": self.meets_deadline}


def results_of(config: Config, section: ScalingStudySection, records: Mapping[Point, PointRecord]) -> StudyResults:
    """Put the records of a study's points together; those that it does not plan any more are left out."""
    planned = scaling_points.plan(config, section)
    found = tuple(records[point] for point in sorted(planned) if point in records)
    curves = []
    for (mode, stage), points in scaling_points.series(config, section).items():
        own = [records[point] for point in points if point in records]
        curves.append(_curve(mode, stage, [each for each in own if each.measured is not None]))
    offers = tuple(_offer(each, each.measured) for each in found if each.measured is not None)
    batch = config.train.global_batch_size
    compared = [each for each in offers if each.point.global_batch_size == batch] if "strong" in section.modes else []
    compared = compared or list(offers)
    has_prices = bool(compared) and all(each.usd is not None for each in compared)

    def cost(offer: Offer) -> float:
        return offer.usd if has_prices and offer.usd is not None else offer.worker_hours

    fastest = min(compared, key=lambda each: each.hours, default=None)
    deadline = section.deadline_hours
    in_time = [each for each in compared if deadline is None or each.hours <= deadline]
    return StudyResults(
        study=config.name,
        planned=len(planned),
        records=found,
        curves=tuple(each for each in curves if each.points),
        offers=offers,
        has_prices=has_prices,
        deadline_hours=deadline,
        fastest=fastest,
        cheapest=min(compared, key=cost, default=None),
        best=min(in_time, key=cost, default=fastest),
    )


def best_config(config: Config, results: StudyResults) -> str | None:
    """The whole run's configuration at the best point as YAML that `train` takes; None where no point was measured."""
    best = results.best
    if best is None:
        return None
    steps = next(each.whole_steps for each in results.records if each.point == best.point)
    text = dump_config(scaling_points.whole_config(config, best.point, steps=steps))
    return "\n".join([*(f"# {line}" for line in verdict(results)), text])


def verdict(results: StudyResults) -> Iterator[str]:
    """What was found, in a few sentences."""
    best, fastest, cheapest = results.best, results.fastest, results.cheapest
    if best is None or fastest is None or cheapest is None:
        return
    yield f"fastest: {_told(fastest)}"
    yield f"cheapest: {_told(cheapest)}"
    if results.deadline_hours is not None and results.meets_deadline:
        yield f"best: the cheapest within {results.deadline_hours:g} hours: {_told(best)}"
    elif results.deadline_hours is not None:
        yield f"no point meets the deadline of {results.deadline_hours:g} hours; best is the fastest: {_told(best)}"
    yield from _doubts(results)
    if not results.has_prices:
        yield "prices of these machines are not known, so the cheapest is who needs the fewest hours of workers"


def _doubts(results: StudyResults) -> Iterator[str]:
    """What makes the figures doubtful: machines that did something else meanwhile."""
    measured = [(each.point, each.measured) for each in results.records if each.measured is not None]
    uneven = [
        point
        for point, found in measured
        if found.tokens_per_s.high - found.tokens_per_s.low > _STEADY * found.tokens_per_s.median
    ]
    if uneven:
        yield (
            f"the steps of {len(uneven)} of {len(measured)} points differ by more than {_STEADY:.0%} between their "
            "quartiles: was anything else at work on these machines?"
        )
    if any(placed.efficiency > _BELIEVABLE for curve in results.curves for placed in curve.points):
        yield "an efficiency far above 100% is hard to believe: was the smallest point disturbed, or short of memory?"


def _told(offer: Offer) -> str:
    cost = f"{offer.usd:,.2f} USD" if offer.usd is not None else f"{offer.worker_hours:,.3g} hours of workers"
    return f"{offer.point}: the whole run in some {offer.hours:,.3g} hours, {cost}"


def _curve(mode: Mode, stage: int, records: Sequence[PointRecord]) -> Curve:
    pairs = [(each, each.measured) for each in records if each.measured is not None]
    placed = tuple(_placed(record, measured, *pairs[0]) for record, measured in pairs)
    law = fit({record.point.workers: measured.tokens_per_s.median for record, measured in pairs})
    return Curve(mode, stage, placed, law, tuple(_forecasts(mode, law, placed)) if law else ())


def _placed(
    record: PointRecord, measured: Measurement, smallest: PointRecord, smallest_measured: Measurement
) -> PlacedPoint:
    speedup = measured.tokens_per_s.median / smallest_measured.tokens_per_s.median
    return PlacedPoint(
        record=record,
        measured=measured,
        speedup=speedup,
        efficiency=speedup * smallest.point.workers / record.point.workers,
        parts=_parts(record, measured, smallest, smallest_measured),
    )


def _parts(record: PointRecord, measured: Measurement, smallest: PointRecord, at_smallest: Measurement) -> StepParts:
    step_s, wait_s = measured.step_s.median, min(measured.data_wait_s, measured.step_s.median)
    micro_batch_s = (at_smallest.step_s.median - at_smallest.data_wait_s) / _rounds(smallest)
    even = _micro_batches(record) / record.point.workers
    computing_s = min(max(0.0, micro_batch_s * even), step_s - wait_s)
    uneven_s = min(max(0.0, micro_batch_s * (_rounds(record) - even)), step_s - wait_s - computing_s)
    return StepParts(computing_s, uneven_s, wait_s, step_s - wait_s - computing_s - uneven_s)


def _micro_batches(record: PointRecord) -> int:
    return record.point.global_batch_size // record.micro_batch_size


def _rounds(record: PointRecord) -> int:
    """How many micro batches the busiest worker has in a step."""
    return math.ceil(_micro_batches(record) / record.point.workers)


def _forecasts(mode: Mode, law: Law, points: Sequence[PlacedPoint]) -> Iterator[Forecast]:
    """The next two doublings; in strong scaling not beyond one micro batch for each worker."""
    smallest, largest = points[0], points[-1]
    for workers in (2 * largest.workers, 4 * largest.workers):
        if mode == "weak" or workers <= _micro_batches(largest.record):
            tokens_per_s = law.throughput(workers)
            pace = smallest.measured.tokens_per_s.median / smallest.workers
            yield Forecast(workers, tokens_per_s, tokens_per_s / workers / pace)


def _offer(record: PointRecord, measured: Measurement) -> Offer:
    hours = (measured.start_up_s + record.whole_steps * measured.step_s.median) / 3600
    hours_per_million = 1e6 / measured.tokens_per_s.median / 3600
    price = measured.usd_per_hour
    return Offer(
        point=record.point,
        hours=hours,
        worker_hours=hours * record.point.workers,
        usd=None if price is None else hours * price,
        worker_hours_per_million_tokens=hours_per_million * record.point.workers,
        usd_per_million_tokens=None if price is None else hours_per_million * price,
    )


def _placed_record(placed: PlacedPoint) -> dict[str, Any]:
    return {
        "point": asdict(placed.record.point),
        "speedup": placed.speedup,
        "efficiency": placed.efficiency,
        "parts": {**asdict(placed.parts), "not_computing": placed.parts.not_computing},
    }
