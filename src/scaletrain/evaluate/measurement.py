"""One model measured on one dataset, and the JSON file that keeps it: runs/<name>/evaluation/step-00000100.json."""

from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np
import orjson

from scaletrain import storage
from scaletrain.evaluate.perplexity import DocumentLosses, Perplexity, perplexities
from scaletrain.evaluate.samples import Sample

VERSION = 1


@dataclass(frozen=True)
class Subject:
    """What a measurement depends on: where two are equal, the second need not be made.

    `model` is the name below models/ of what training starts from; `checkpoint` the hash of a manifest, and empty for
    that model itself (`step` 0). Of the validation split the first `rows` count.
    """

    step: int
    model: str
    checkpoint: str
    dataset_id: str
    rows: int
    precision: str
    prompts: tuple[str, ...]
    max_new_tokens: int
    system_prompt: str | None

    @property
    def label(self) -> str:
        return "base" if not self.checkpoint else f"step-{self.step:08d}"


@dataclass(frozen=True)
class Measurement:
    """What came out: the loss of every document, the answers, and how long it took on what."""

    subject: Subject
    losses: DocumentLosses
    samples: tuple[Sample, ...]
    device: str
    seconds: float
    time: str

    @cached_property
    def perplexities(self) -> tuple[Perplexity, ...]:
        return perplexities(self.losses)


def save(url: str, measurement: Measurement) -> None:
    """Write a measurement; the perplexities are in it for readers, the documents' losses for later comparisons."""
    losses = measurement.losses
    record = {
        "version": VERSION,
        "subject": asdict(measurement.subject),
        "device": measurement.device,
        "seconds": measurement.seconds,
        "time": measurement.time,
        "perplexities": [perplexity.record() for perplexity in measurement.perplexities],
        "samples": [asdict(sample) for sample in measurement.samples],
        "documents": {
            "corpora": losses.corpora,
            "corpus": losses.corpus,
            "tokens": losses.tokens,
            "nll": losses.nll,
        },
    }
    storage.write_bytes(url, orjson.dumps(record, option=orjson.OPT_SERIALIZE_NUMPY))


def find(url: str, subject: Subject) -> Measurement | None:
    """The stored measurement of exactly this subject, or None."""
    if not storage.exists(url):
        return None
    record = orjson.loads(storage.read_bytes(url))
    if record["version"] != VERSION or record["subject"] != {**asdict(subject), "prompts": list(subject.prompts)}:
        return None
    documents = record["documents"]
    return Measurement(
        subject=subject,
        losses=DocumentLosses(
            corpora=tuple(documents["corpora"]),
            corpus=np.array(documents["corpus"], dtype=np.int64),
            tokens=np.array(documents["tokens"], dtype=np.int64),
            nll=np.array(documents["nll"], dtype=np.float64),
        ),
        samples=tuple(Sample(**sample) for sample in record["samples"]),
        device=record["device"],
        seconds=record["seconds"],
        time=record["time"],
    )
