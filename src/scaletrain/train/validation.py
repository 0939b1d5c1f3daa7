"""Validation loss during training: the same held-out rows every time, shared out over the workers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist

from scaletrain.config import TrainSection
from scaletrain.data.loader import MicroBatch, rows_in_order
from scaletrain.data.shards import DatasetIndex
from scaletrain.train.preference import SUMS
from scaletrain.train.worker import Worker


@dataclass(frozen=True)
class Validation:
    """Means over held-out rows: the loss per supervised token, or per pair; of pairs also what a step tells of them."""

    loss: float
    reward_margin: float
    pair_accuracy: float


@torch.no_grad()
def validate(
    forward: Callable[[MicroBatch], torch.Tensor],
    counted_in: Callable[[MicroBatch], int],
    dataset_url: str,
    index: DatasetIndex,
    train: TrainSection,
    worker: Worker,
) -> Validation:
    """Measure up to `train.evaluate_rows` validation rows; all ranks must call it.

    `forward` maps a micro batch to its sums, `counted_in` to what they are divided by. Every rank makes the same number
    of passes, as ZeRO-3 requires: where the rows do not divide, the last ones run the first micro batch again, with no
    weight.
    """
    rows = min(index.splits["validation"].rows, train.evaluate_rows)
    passes = -(-rows // (train.micro_rows * worker.readers))
    mine = list(_micro_batches(dataset_url, index, train, worker.reader, worker.readers))
    filler = mine[0] if mine else next(_micro_batches(dataset_url, index, train, 0, worker.readers))
    totals = torch.zeros(SUMS + 1, dtype=torch.float64, device=worker.device)
    for number in range(passes):
        micro = mine[number] if number < len(mine) else filler
        sums = forward(micro)
        if number < len(mine):
            totals[: len(sums)] += sums
            totals[SUMS] += counted_in(micro) if worker.counts else 0
    if worker.world_size > 1:
        dist.all_reduce(totals)
    *sums_of_all, counted = totals.tolist()
    return Validation(*(each / max(counted, 1.0) for each in sums_of_all))


def _micro_batches(
    dataset_url: str, index: DatasetIndex, train: TrainSection, rank: int, world_size: int
) -> Iterator[MicroBatch]:
    return rows_in_order(
        dataset_url,
        index,
        split="validation",
        rank=rank,
        world_size=world_size,
        micro_batch_size=train.micro_rows,
        max_rows=train.evaluate_rows,
    )
