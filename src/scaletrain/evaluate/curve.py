"""How perplexity fell while a run was trained: evaluation/curve.json, a point for each step that was measured."""

from dataclasses import asdict, dataclass

import orjson

from scaletrain import storage
from scaletrain.evaluate.measurement import Measurement
from scaletrain.layout import RunLayout

VERSION = 1


@dataclass(frozen=True)
class Point:
    """One step; step 0 is the model that training starts from."""

    step: int
    perplexity: float
    low: float
    high: float
    bits_per_byte: float
    time: str


@dataclass(frozen=True)
class Curve:
    """Points by step, all measured on the same rows of one dataset, from one model."""

    dataset_id: str
    model: str
    rows: int
    precision: str
    points: tuple[Point, ...]


def read(run: RunLayout) -> Curve | None:
    """The curve of a run, or None where nothing was measured."""
    url = _url(run)
    if not storage.exists(url):
        return None
    record = orjson.loads(storage.read_bytes(url))
    if record.pop("version") != VERSION:
        return None
    return Curve(**{**record, "points": tuple(Point(**point) for point in record["points"])})


def add(run: RunLayout, measurement: Measurement) -> Curve:
    """Add a measurement of a run's model, and return the curve; one of other rows or another dataset begins anew.

    A step that was measured before is replaced. Two processes that add at once may lose one of the two points, not the
    measurements themselves.
    """
    subject, figure = measurement.subject, measurement.perplexities[0]
    point = Point(subject.step, figure.value, figure.low, figure.high, figure.bits_per_byte, measurement.time)
    there = read(run)
    made = Curve(subject.dataset_id, subject.model, subject.rows, subject.precision, (point,))
    if there is not None and (there.dataset_id, there.model, there.rows, there.precision) == (
        subject.dataset_id,
        subject.model,
        subject.rows,
        subject.precision,
    ):
        others = [each for each in there.points if each.step != point.step]
        points = tuple(sorted((*others, point), key=lambda each: each.step))
        made = Curve(there.dataset_id, there.model, there.rows, there.precision, points)
    storage.write_bytes(_url(run), orjson.dumps({"version": VERSION, **asdict(made)}, option=orjson.OPT_INDENT_2))
    return made


def _url(run: RunLayout) -> str:
    return storage.join(run.evaluation, "curve.json")
