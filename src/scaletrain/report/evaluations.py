"""What was evaluated of a run: perplexity over steps, and the answers of its checkpoints to the same prompts."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from scaletrain import storage
from scaletrain.evaluate import curve
from scaletrain.evaluate.curve import Point
from scaletrain.layout import RunLayout
from scaletrain.storage.parallel import in_parallel

_MEASUREMENT = re.compile(r"/(base|step-\d{8,})\.json$")
_MOST_MEASUREMENTS = 8
_READERS = 4


@dataclass(frozen=True)
class Measured:
    """One measured model: perplexity and bits per byte by corpus ("all" first), and its answers by prompt."""

    step: int
    figures: tuple[tuple[str, float, float, float, float | None], ...]
    answers: Mapping[str, str]


@dataclass(frozen=True)
class Evaluated:
    """A run's curve, and some of its measurements, the first and the newest among them."""

    points: tuple[Point, ...]
    measured: tuple[Measured, ...]

    @property
    def prompts(self) -> tuple[str, ...]:
        """Every prompt that any of the models answered."""
        return tuple(dict.fromkeys(prompt for each in self.measured for prompt in each.answers))


def read_evaluations(run: RunLayout) -> Evaluated:
    """Read a run's evaluation folder; empty where nothing was evaluated. Raises StorageError."""
    found = curve.read(run)
    urls = sorted(info.url for info in storage.list_objects(run.evaluation) if _MEASUREMENT.search(info.url))
    records = in_parallel(lambda url: orjson.loads(storage.read_bytes(url)), _spread(urls), max_workers=_READERS)
    measured = sorted((_measured(record) for record in records if "perplexities" in record), key=lambda each: each.step)
    return Evaluated(found.points if found else (), tuple(measured))


def _measured(record: Mapping[str, Any]) -> Measured:
    return Measured(
        step=record["subject"]["step"],
        figures=tuple(
            (each["corpus"], each["perplexity"], each["low"], each["high"], each["bits_per_byte"])
            for each in record["perplexities"]
        ),
        answers={sample["prompt"]: sample["reply"] for sample in record["samples"]},
    )


def _spread(urls: Sequence[str]) -> list[str]:
    """At most so many, at equal distances, with the first and the last."""
    if len(urls) <= _MOST_MEASUREMENTS:
        return list(urls)
    return [urls[round(place * (len(urls) - 1) / (_MOST_MEASUREMENTS - 1))] for place in range(_MOST_MEASUREMENTS)]
