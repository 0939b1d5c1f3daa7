"""Measurements are kept, found again for the very same subject, and for no other."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson

from scaletrain import storage
from scaletrain.evaluate import measurement
from scaletrain.evaluate.measurement import Measurement, Subject
from scaletrain.evaluate.perplexity import DocumentLosses
from scaletrain.evaluate.samples import Sample

SUBJECT = Subject(
    step=0,
    model="tiny-1234",
    checkpoint="",
    dataset_id="abc",
    rows=3,
    precision="fp32",
    prompts=("Hello!",),
    max_new_tokens=8,
    system_prompt=None,
)
MEASUREMENT = Measurement(
    subject=SUBJECT,
    losses=DocumentLosses(
        corpora=("chat",), corpus=np.array([0, 0]), tokens=np.array([3, 5]), nll=np.array([2.5, 4.0 / 3.0])
    ),
    samples=(Sample("Hello!", "Hi."),),
    device="cpu",
    seconds=1.5,
    time="2026-01-01T00:00:00+00:00",
)


def test_a_stored_measurement_is_found_again(bucket_root: str) -> None:
    """What is read back equals what was measured, to the last bit of every loss."""
    url = storage.join(bucket_root, "base.json")
    measurement.save(url, MEASUREMENT)
    found = measurement.find(url, SUBJECT)
    assert found is not None
    assert (found.samples, found.subject, found.seconds) == (MEASUREMENT.samples, SUBJECT, 1.5)
    assert found.losses.nll.tolist() == MEASUREMENT.losses.nll.tolist()
    assert found.perplexities == MEASUREMENT.perplexities


def test_a_measurement_of_something_else_is_not_used(tmp_path: Path) -> None:
    """Another checkpoint, dataset or set of prompts has to be measured anew."""
    url = str(tmp_path / "base.json")
    measurement.save(url, MEASUREMENT)
    for other in ({"checkpoint": "f00d"}, {"dataset_id": "def"}, {"prompts": ("Hi!",)}, {"rows": 2}):
        assert measurement.find(url, replace(SUBJECT, **other)) is None  # type: ignore[arg-type]


def test_nothing_is_found_where_nothing_was_measured(tmp_path: Path) -> None:
    """A run that was never evaluated has no measurement."""
    assert measurement.find(str(tmp_path / "base.json"), SUBJECT) is None


def test_the_file_states_its_figures(tmp_path: Path) -> None:
    """Whoever reads the JSON finds the perplexity beside the tokens and documents it rests on."""
    url = str(tmp_path / "base.json")
    measurement.save(url, MEASUREMENT)
    figure = orjson.loads(storage.read_bytes(url))["perplexities"][0]
    assert figure["perplexity"] == MEASUREMENT.perplexities[0].value
    assert (figure["tokens"], figure["documents"]) == (8, 2)
