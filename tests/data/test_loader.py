"""loader: reading from files gives the order's samples, step by step; evaluation reads rows as they lie."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_dataset import random_rows, write_dataset

from scaletrain.data import batches
from scaletrain.data.loader import ReadPlan, rows_in_order, sample_ids, steps_local
from scaletrain.data.shards import DatasetIndex

Dataset = tuple[str, DatasetIndex]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    url = str(tmp_path_factory.mktemp("dataset"))
    return url, write_dataset(url, rows=300, validation_rows=23, seq_len=64)


def test_steps_have_the_rows_of_the_order(dataset: Dataset) -> None:
    """Over the end of an epoch and at any starting step, the arrays are those of the samples that are due."""
    plan = ReadPlan(*dataset, 3, 8, 4, 1, 0, first_step=30, stop_step=45)
    rows = list(random_rows(300, seq_len=64))
    read = list(steps_local(plan))
    due = sample_ids(300, 128, seed=3, start=30 * 8, stop=45 * 8).reshape(15, 2, 4)
    assert [batch.step for batch in read] == list(range(30, 45))
    for batch, ids_of_step in zip(read, due, strict=True):
        for micro, ids in zip(batch.micro_batches, ids_of_step, strict=True):
            assert micro.sample_ids.tolist() == ids.tolist()
            assert np.array_equal(micro.input_ids, np.stack([rows[i].input_ids for i in ids]))
            assert np.array_equal(micro.labels, np.stack([rows[i].labels for i in ids]))
            assert micro.tokens == np.count_nonzero(micro.documents)
            assert micro.supervised_tokens == np.count_nonzero(micro.labels != -100)


def test_resuming_at_a_step_goes_on_with_the_same_batches(dataset: Dataset) -> None:
    """A plan that starts later reads what the longer one reads from there on: the position is all the state."""
    whole = ReadPlan(*dataset, 3, 8, 4, 2, 1, first_step=0, stop_step=12)
    late = list(steps_local(replace(whole, first_step=7)))
    for ours, theirs in zip(late, list(steps_local(whole))[7:], strict=True):
        for one, other in zip(ours.micro_batches, theirs.micro_batches, strict=True):
            assert np.array_equal(one.input_ids, other.input_ids) and one.weight == other.weight


def test_a_plan_without_steps_reads_nothing(dataset: Dataset) -> None:
    """A run that is at its last step already opens no file."""
    plan = ReadPlan("nowhere", dataset[1], 3, 8, 4, 1, 0, first_step=5, stop_step=5)
    assert list(steps_local(plan)) == []


@settings(deadline=None, max_examples=30)
@given(
    world_size=st.integers(1, 5),
    micro_batch_size=st.integers(1, 9),
    max_rows=st.integers(1, 30),
    run_tokens=st.sampled_from([1, 300, 10_000]),
)
def test_evaluation_reads_each_row_once_in_order(
    dataset: Dataset, world_size: int, micro_batch_size: int, max_rows: int, run_tokens: int
) -> None:
    """The ranks' micro batches, taken in turns, are the first rows of the split; only the last may be short."""
    url, index = dataset
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scaletrain.data.loader.RUN_TOKENS", run_tokens)
        ranks = [
            [
                micro.sample_ids.tolist()
                for micro in rows_in_order(
                    url,
                    index,
                    split="validation",
                    rank=rank,
                    world_size=world_size,
                    micro_batch_size=micro_batch_size,
                    max_rows=max_rows,
                )
            ]
            for rank in range(world_size)
        ]
    dealt = [ranks[n % world_size][n // world_size] for n in range(sum(map(len, ranks)))]
    assert [i for ids in dealt for i in ids] == list(range(min(23, max_rows)))
    assert all(len(ids) == micro_batch_size for ids in dealt[:-1])


def test_reading_in_runs_changes_nothing(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """How much is read at once is a matter of speed alone."""
    plan = ReadPlan(*dataset, 3, 12, 3, 3, 2, first_step=2, stop_step=20)
    at_once = [micro for batch in steps_local(plan) for micro in batch.micro_batches]
    monkeypatch.setattr(batches, "RUN_TOKENS", 5 * 64)
    for ours, theirs in zip((m for b in steps_local(plan) for m in b.micro_batches), at_once, strict=True):
        assert np.array_equal(ours.labels, theirs.labels) and ours.weight == theirs.weight


def test_a_long_plan_starts_at_once(tmp_path: Path) -> None:
    """What is to be read is found out as it is read: a million steps are no more work before the first."""
    index = write_dataset(tmp_path, rows=40, seq_len=64)
    plan = ReadPlan(str(tmp_path), index, 0, 8, 8, 1, 0, first_step=0, stop_step=1_000_000)
    assert next(steps_local(plan)).step == 0
