"""Measurements are kept, found again for the very same subject, and for no other."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pytest
from measured import SUBJECT, answers_of, measurement_of

from scaletrain import storage
from scaletrain.evaluate import measurement
from scaletrain.evaluate.texts import TextLosses

MEASUREMENT = replace(
    measurement_of(answers_of([3, 5], [2.5, 4.0 / 3.0])),
    texts=(TextLosses("book.txt", np.array([1 / 3]), np.array([7]), np.array([21])),),
)


def test_a_stored_measurement_is_found_again(bucket_root: str) -> None:
    """What is read back equals what was measured, to the last bit of every loss."""
    url = storage.join(bucket_root, "base.json")
    measurement.save(url, MEASUREMENT)
    found = measurement.find(url, SUBJECT)
    assert found is not None
    assert (found.samples, found.subject, found.seconds) == (MEASUREMENT.samples, SUBJECT, 1.5)
    assert found.answers.nll.tolist() == MEASUREMENT.answers.nll.tolist()
    assert found.record() == MEASUREMENT.record()


@pytest.mark.parametrize(
    "other",
    [{"checkpoint": "f00d"}, {"dataset_id": "def"}, {"prompts": ("Hi!",)}, {"rows": 2}, {"texts": ("b.txt 12",)}],
)
def test_a_measurement_of_something_else_is_not_used(tmp_path: Path, other: dict[str, object]) -> None:
    """Another checkpoint, dataset, set of prompts or text has to be measured anew."""
    url = str(tmp_path / "base.json")
    measurement.save(url, MEASUREMENT)
    assert measurement.find(url, replace(SUBJECT, **other)) is None  # type: ignore[arg-type]


def test_nothing_is_found_where_nothing_was_measured(tmp_path: Path) -> None:
    """A run that was never evaluated has no measurement."""
    assert measurement.find(str(tmp_path / "base.json"), SUBJECT) is None


def test_a_file_of_the_first_version_is_made_anew(tmp_path: Path) -> None:
    """What an older scaletrain wrote does not stand in the way."""
    url = str(tmp_path / "base.json")
    storage.write_bytes(url, orjson.dumps({"version": 1, "subject": {}, "documents": {}}))
    assert measurement.find(url, SUBJECT) is None


def test_the_file_has_figures_for_readers(tmp_path: Path) -> None:
    """Scripts find perplexity, bits per byte and samples without knowing how losses are kept."""
    url = str(tmp_path / "base.json")
    measurement.save(url, MEASUREMENT)
    record = orjson.loads(storage.read_bytes(url))
    assert record["perplexities"][0]["corpus"] == "all"
    assert record["perplexities"][0]["perplexity"] == pytest.approx(np.exp((2.5 + 4 / 3) / 8))
    assert record["samples"][0]["reply"] == "Hi."
    assert record["texts"][0]["bits_per_byte"] == pytest.approx(1 / 3 / 21 / np.log(2))
