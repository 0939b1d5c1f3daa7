"""A prepared dataset that changes under a run: it stops, and names the shard."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attempts_on_processes import Attempt, act_in_step, finish
from invariants import assert_recovered

from scaletrain import storage
from scaletrain.data.rows import read_samples
from scaletrain.data.shards import DatasetIndex, Row, load_index, write_split
from scaletrain.errors import DataError
from scaletrain.layout import RunLayout
from workers import Prepared

pytestmark = pytest.mark.long

SHARD = "shard-00000.parquet"


def _rows(url: str, index: DatasetIndex) -> list[Row]:
    """All training rows of a dataset, as they were given to be written."""
    samples = read_samples(url, index, split="train", ids=np.arange(index.splits["train"].rows))
    found = []
    for number in range(len(samples.sample_ids)):
        documents = samples.documents[number]
        lengths = tuple(np.bincount(documents)[1:].tolist())
        corpora = tuple(
            int(samples.corpora[number][np.argmax(documents == each)]) for each in range(1, len(lengths) + 1)
        )
        found.append(Row(samples.input_ids[number], samples.labels[number], lengths, corpora))
    return found


@pytest.fixture(scope="module")
def other_rows(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound shard of the same size, places and sample ids as the dataset's, in which one token is another."""
    index, folder = load_index(prepared.dataset_url), tmp_path_factory.mktemp("other-rows")
    rows, size_bytes = _rows(prepared.dataset_url, index), index.splits["train"].shards[0].size_bytes
    original = (storage.local_path(prepared.dataset_url) / SHARD).read_bytes()
    for token in range(300):
        ids = rows[0].input_ids.copy()
        ids[0] = token
        written = write_split([replace(rows[0], input_ids=ids), *rows[1:]], str(folder), split="train", seq_len=64)
        if written.shards[0].size_bytes == size_bytes and (folder / SHARD).read_bytes() != original:
            return folder / SHARD
    raise AssertionError("no token gives a file of the same size")


@pytest.fixture
def dataset(prepared: Prepared, tmp_path: Path) -> Prepared:
    """The dataset and the model at a place of their own."""
    folder, model = (
        tmp_path / Path(url).parent.name / Path(url).name for url in (prepared.dataset_url, prepared.model_url)
    )
    shutil.copytree(prepared.dataset_url, folder)
    shutil.copytree(prepared.model_url, model)
    return Prepared(str(tmp_path), str(folder), str(model))


def test_another_sound_file_in_a_shards_place_is_noticed(dataset: Prepared, other_rows: Path) -> None:
    """Size, format and sample ids all fit; the index tells that these are other tokens, also to a new process."""
    index = load_index(dataset.dataset_url)
    _replace(other_rows, Path(dataset.dataset_url) / SHARD)
    with pytest.raises(DataError, match=rf"{SHARD}: its footer is not the one that was prepared"):
        read_samples(dataset.dataset_url, index, split="train", ids=np.array([0]))


def test_another_sound_file_is_noticed_where_the_footer_was_read_before(dataset: Prepared, other_rows: Path) -> None:
    """A row group that is fetched later has to be one of the file that the footer is of."""
    index = load_index(dataset.dataset_url)
    read_samples(dataset.dataset_url, index, split="train", ids=np.array([0]))
    _replace(other_rows, Path(dataset.dataset_url) / SHARD)
    with pytest.raises(DataError, match=rf"{SHARD}: its row group 0 is not the one that was prepared"):
        read_samples(dataset.dataset_url, index, split="train", ids=np.array([1]))


def _replace(source: Path, target: Path) -> None:
    """Put a file in the place of another in one step, as a bucket does."""
    shutil.copyfile(source, target.with_suffix(".new"))
    target.with_suffix(".new").replace(target)


@pytest.mark.parametrize(
    ("harm", "message"),
    [(os.unlink, "is missing"), (None, "its row group 0 is not the one that was prepared")],
    ids=["deleted", "rewritten"],
)
def test_a_shard_that_changes_under_a_run_ends_it(
    dataset: Prepared, undisturbed: RunLayout, other_rows: Path, harm: Callable[[Path], None] | None, message: str
) -> None:
    """The run ends with the shard's name; with the file back, the same command comes to the same bits."""
    shard, kept = Path(dataset.dataset_url) / SHARD, Path(dataset.root) / "kept"
    shutil.copyfile(shard, kept)
    deed = partial(_replace, other_rows, shard) if harm is None else partial(harm, shard)
    ended = Attempt(dataset, "changed-data", arm=partial(_harm_in_step, deed), train__steps=12).wait()
    errors = [each.error for each in ended if isinstance(each.error, DataError)]
    assert errors and all(f"{shard}: {message}" in str(error) for error in errors)
    _replace(kept, shard)
    finish(dataset, "changed-data")
    assert_recovered(dataset, "changed-data", undisturbed)


def _harm_in_step(deed: Callable[[], None], worker: Any, job: Any) -> None:
    """Read a micro batch at a time, so that there is something to read after step 5, and do the deed there."""
    from scaletrain.data import batches

    batches.RUN_TOKENS = 1
    act_in_step(5, deed, worker.rank == 0)
