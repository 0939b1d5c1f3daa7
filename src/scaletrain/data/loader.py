"""Reading a dataset in the order of training: by Ray Data's tasks, or in this process, with the same result.

Training calls steps_ray on a cluster, where each rank has a pipeline of its own, and steps_local with --local, where a
breakpoint stops in the reading code too. Evaluation calls rows_in_order. What a rank reads is a ReadPlan; its whole
state is the number of the step, so resuming is another plan.
"""

from collections.abc import Generator, Iterator
from contextlib import closing

import numpy as np

from scaletrain.data.batches import (
    RUN_TOKENS,
    MicroBatch,
    ReadPlan,
    StepBatch,
    deal,
    micro_batch,
    read_run,
    runs,
)
from scaletrain.data.order import sample_ids
from scaletrain.data.rows import read_samples
from scaletrain.data.shards import DatasetIndex

__all__ = ["MicroBatch", "ReadPlan", "StepBatch", "rows_in_order", "sample_ids", "steps_local", "steps_ray"]


def steps_local(plan: ReadPlan) -> Iterator[StepBatch]:
    """Yield a rank's part of each step of the plan, read in this process; raises DataError, StorageError."""
    return deal(plan, ((run, read_run(plan, run)) for run in runs(plan)))


def steps_ray(plan: ReadPlan) -> Generator[StepBatch, None, None]:
    """Yield a rank's part of each step of the plan, read by Ray Data's tasks; raises DataError, StorageError.

    Needs a Ray that is connected; every rank calls it for itself. Closing the iterator stops the tasks.
    """
    from scaletrain.data.ray_reader import read_runs

    with closing(read_runs(plan, runs(plan))) as read:
        yield from deal(plan, read)


def rows_in_order(
    dataset_url: str,
    index: DatasetIndex,
    *,
    split: str,
    rank: int,
    world_size: int,
    micro_batch_size: int,
    max_rows: int,
) -> Iterator[MicroBatch]:
    """Yield every world_size-th micro batch of a split's first rows, from the rank-th on; the last one may be short."""
    num_rows = min(index.splits[split].rows, max_rows)
    starts = range(rank * micro_batch_size, num_rows, world_size * micro_batch_size)
    at_once = max(1, RUN_TOKENS // (micro_batch_size * index.seq_len))
    for first in range(0, len(starts), at_once):
        spans = [(start, min(start + micro_batch_size, num_rows)) for start in starts[first : first + at_once]]
        ids = np.concatenate([np.arange(*span) for span in spans])
        samples = read_samples(dataset_url, index, split=split, ids=ids)
        place = 0
        for start, stop in spans:
            yield micro_batch(samples, place, place + stop - start)
            place += stop - start
