"""One model measured on one dataset, and the JSON file that keeps it: runs/<name>/evaluation/step-00000100.json."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
import orjson

from scaletrain import storage
from scaletrain.evaluate.answers import Answers
from scaletrain.evaluate.calibration import Calibration
from scaletrain.evaluate.perplexity import Perplexity, perplexities
from scaletrain.evaluate.sample_statistics import SampleStatistics, sample_statistics
from scaletrain.evaluate.samples import Sample
from scaletrain.evaluate.texts import TextLosses

VERSION = 2  # files of version 1 had perplexities by corpus alone; they are made anew


@dataclass(frozen=True)
class Subject:
    """What a measurement depends on: where two are equal, the second need not be made.

    `run` is the name of the run that the model is of, where it is another than the one evaluated. `model` is the name
    below models/ of what training starts from; `checkpoint` the hash of a manifest, and empty for that model itself
    (`step` 0). Of the validation split the first `rows` count. `texts` are files with the checksums of what was in
    them, read in windows of `context` tokens that move on by `stride`.
    """

    run: str
    step: int
    model: str
    checkpoint: str
    dataset_id: str
    rows: int
    precision: str
    prompts: tuple[str, ...]
    max_new_tokens: int
    system_prompt: str | None
    texts: tuple[str, ...]
    context: int
    stride: int

    @property
    def label(self) -> str:
        """The name of its file, without the ending."""
        own = f"step-{self.step:08d}" if self.checkpoint else "base"
        return f"against-{self.run}-{own}" if self.run else own


@dataclass(frozen=True)
class Measurement:
    """What came out: the loss of every answer and text, calibration, samples, and how long it took on what."""

    subject: Subject
    answers: Answers
    calibration: Calibration
    texts: tuple[TextLosses, ...]
    samples: tuple[Sample, ...]
    device: str
    seconds: float
    time: str

    @cached_property
    def perplexities(self) -> tuple[Perplexity, ...]:
        return perplexities(self.answers)

    @cached_property
    def sample_statistics(self) -> SampleStatistics | None:
        return sample_statistics(self.samples)

    def record(self) -> dict[str, object]:
        """The figures and answers as they stand in reports, without the losses of single answers."""
        statistics = self.sample_statistics
        return {
            "perplexities": self._of_kind("corpus"),
            "languages": self._of_kind("language"),
            "depths": self._of_kind("depth"),
            "calibration": self.calibration.record(),
            "texts": [text.record() for text in self.texts],
            "sample_statistics": None if statistics is None else asdict(statistics),
            "samples": [asdict(sample) for sample in self.samples],
        }

    def _of_kind(self, kind: str) -> list[dict[str, object]]:
        return [each.record() for each in self.perplexities if each.kind == kind]


def save(url: str, measurement: Measurement) -> None:
    """Write a measurement; the figures are in it for readers, the losses of single answers for later comparisons."""
    record = {
        "version": VERSION,
        "subject": asdict(measurement.subject),
        "device": measurement.device,
        "seconds": measurement.seconds,
        "time": measurement.time,
        **measurement.record(),
        "answers": _columns(measurement.answers),
        "calibration_sums": _columns(measurement.calibration),
        "text_losses": [_columns(text) for text in measurement.texts],
    }
    storage.write_bytes(url, orjson.dumps(record, option=orjson.OPT_SERIALIZE_NUMPY))


def find(url: str, subject: Subject) -> Measurement | None:
    """The stored measurement of exactly this subject, or None."""
    if not storage.exists(url):
        return None
    record = orjson.loads(storage.read_bytes(url))
    if record["version"] != VERSION or record["subject"] != orjson.loads(orjson.dumps(asdict(subject))):
        return None
    return Measurement(
        subject=subject,
        answers=Answers(**_arrays(record["answers"], floats=("nll",))),
        calibration=Calibration(**_arrays(record["calibration_sums"], floats=("confidence",))),
        texts=tuple(TextLosses(**_arrays(text, floats=("nll",))) for text in record["text_losses"]),
        samples=tuple(Sample(**sample) for sample in record["samples"]),
        device=record["device"],
        seconds=record["seconds"],
        time=record["time"],
    )


def _columns(data: Answers | Calibration | TextLosses) -> dict[str, object]:
    return {field.name: getattr(data, field.name) for field in fields(data)}


def _arrays(columns: Mapping[str, Any], *, floats: Sequence[str]) -> dict[str, Any]:
    """Lists of numbers become arrays again, lists of names tuples; what is no list stays."""

    def restored(name: str, value: object) -> object:
        if not isinstance(value, list):
            return value
        if name in ("corpora", "languages"):
            return tuple(value)
        return np.array(value, dtype=np.float64 if name in floats else np.int64)

    return {name: restored(name, value) for name, value in columns.items()}
