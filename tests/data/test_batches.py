"""batches: every step has its samples exactly once, on any number of workers, whatever came before."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaletrain.data import batches
from scaletrain.data.batches import ReadPlan, Run, StepBatch, deal, run_sample_ids, runs
from scaletrain.data.order import sample_ids
from scaletrain.data.rows import Samples
from scaletrain.data.shards import DatasetIndex, SplitInfo
from scaletrain.errors import DataError


def plan(
    *,
    rows: int = 100,
    global_batch_size: int = 8,
    micro_batch_size: int = 2,
    world_size: int = 1,
    rank: int = 0,
    first_step: int = 0,
    stop_step: int = 10,
    seed: int = 0,
) -> ReadPlan:
    index = DatasetIndex(1, "x", 4, 3, 0, ("a",), "none", {"train": SplitInfo((), rows, rows * 4, rows * 2)})
    return ReadPlan(
        "nowhere", index, seed, global_batch_size, micro_batch_size, world_size, rank, first_step, stop_step
    )


def samples_of(ids: np.ndarray) -> Samples:
    """Samples whose tokens are their ids, as if they had been read."""
    array = np.repeat(ids[:, None], 4, axis=1).astype(np.int32)
    counts = np.full(len(ids), 4, dtype=np.int32)
    return Samples(ids, array, array, array, array, array, counts, counts // 2)


def steps(plan: ReadPlan) -> Iterator[StepBatch]:
    return deal(plan, ((run, samples_of(run_sample_ids(plan, run))) for run in runs(plan)))


def ids_of(batch: StepBatch) -> list[int]:
    """The samples that count: those of fillers do not."""
    return [int(i) for micro in batch.micro_batches if micro.weight for i in micro.sample_ids]


@settings(deadline=None)
@given(
    rows=st.integers(1, 60),
    micro_batch_size=st.integers(1, 4),
    micro_batches=st.integers(1, 7),
    attempts=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=5),
    run_tokens=st.sampled_from([1, 40, 10_000]),
)
def test_each_step_has_its_samples_once_over_crashes_and_resizes(
    rows: int, micro_batch_size: int, micro_batches: int, attempts: list[tuple[int, int, int]], run_tokens: int
) -> None:
    """Each attempt is (workers, steps committed, steps lost in its crash): no committed step differs from the order."""
    size = micro_batch_size * micro_batches
    whole = plan(rows=rows, global_batch_size=size, micro_batch_size=micro_batch_size)
    committed: list[list[int]] = []
    for world_size, num_committed, num_lost in attempts:
        step = len(committed)
        attempt = replace(whole, world_size=world_size, first_step=step, stop_step=step + num_committed + num_lost)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(batches, "RUN_TOKENS", run_tokens)
            ranks = [list(steps(replace(attempt, rank=rank))) for rank in range(world_size)]
        for of_step in list(zip(*ranks, strict=True))[:num_committed]:
            committed.append([i for batch in of_step for i in ids_of(batch)])
    for step, ids in enumerate(committed):
        due = sample_ids(rows, 3, seed=0, start=step * size, stop=(step + 1) * size)
        assert sorted(ids) == sorted(due.tolist())


@settings(deadline=None)
@given(micro_batches=st.integers(1, 9), world_size=st.integers(1, 12))
def test_every_rank_runs_as_many_micro_batches_as_the_others(micro_batches: int, world_size: int) -> None:
    """Collectives need it; where the deal is uneven, ranks fill up with work that does not count."""
    size = 2 * micro_batches
    for rank in range(world_size):
        shape = plan(global_batch_size=size, world_size=world_size, rank=rank, stop_step=3)
        for batch in steps(shape):
            assert len(batch.micro_batches) == shape.rounds == -(-micro_batches // world_size)
            real = [micro for micro in batch.micro_batches if micro.weight == 1.0]
            fillers = [micro for micro in batch.micro_batches if micro.weight == 0.0]
            assert len(real) == len(range(rank, micro_batches, world_size))
            assert len(real) + len(fillers) == shape.rounds
            start = batch.step * size
            of_step = sample_ids(100, 3, seed=0, start=start, stop=start + size).tolist()
            for filler in fillers:
                assert (filler.tokens, filler.supervised_tokens) == (0, 0)
                assert filler.input_ids.shape == (2, 4) and set(filler.sample_ids.tolist()) <= set(of_step)


def test_micro_batches_go_round_the_ranks_in_order() -> None:
    """Micro batch j of a step is round j // world_size of rank j % world_size; one worker reads the plain order."""
    alone = [[micro.sample_ids.tolist() for micro in batch.micro_batches] for batch in steps(plan())]
    ranks = [list(steps(plan(world_size=3, rank=rank))) for rank in range(3)]
    for step, micro_batches in enumerate(alone):
        for number, ids in enumerate(micro_batches):
            assert ranks[number % 3][step].micro_batches[number // 3].sample_ids.tolist() == ids
    flat = [i for micro_batches in alone for ids in micro_batches for i in ids]
    assert flat == sample_ids(100, 3, seed=0, start=0, stop=80).tolist()


def test_steps_carry_their_numbers_and_counts() -> None:
    """Steps count from the plan's first; a micro batch says how many tokens it has, and how many are supervised."""
    numbered = list(steps(plan(first_step=5, stop_step=8)))
    assert [batch.step for batch in numbered] == [5, 6, 7]
    assert {(micro.tokens, micro.supervised_tokens) for micro in numbered[0].micro_batches} == {(8, 4)}


@settings(deadline=None)
@given(global_batch=st.integers(1, 9), world_size=st.integers(1, 4), stop_step=st.integers(0, 60))
def test_runs_are_all_that_a_rank_reads_in_bounded_parts(global_batch: int, world_size: int, stop_step: int) -> None:
    """Runs follow one another without a gap; none is larger than the bound, unless a micro batch is."""
    shape = plan(global_batch_size=global_batch, micro_batch_size=1, world_size=world_size, stop_step=stop_step)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "RUN_TOKENS", 10)  # two rows of four tokens
        parts = runs(shape)
    assert [number for run in parts for number in range(run.start, run.stop)] == list(range(stop_step * shape.rounds))
    assert all(1 <= run.stop - run.start <= 2 for run in parts)


def test_samples_out_of_order_stop_the_run() -> None:
    """If a reader ever hands over other samples than the order says, nothing is trained on them."""
    shape = plan()
    run = Run(0, 40)
    ids = run_sample_ids(shape, run)
    with pytest.raises(DataError, match="rank 0 was handed other samples from step 0 on than the order says"):
        next(deal(shape, [(run, samples_of(ids[::-1]))]))
