"""Validation loss during training: the same held-out rows every time, shared out over the workers."""

from collections.abc import Callable, Iterator

import torch
import torch.distributed as dist

from scaletrain.config import TrainSection
from scaletrain.data.loader import MicroBatch, rows_in_order
from scaletrain.data.shards import DatasetIndex
from scaletrain.train.worker import Worker


@torch.no_grad()
def validation_loss(
    forward: Callable[[MicroBatch], torch.Tensor],
    dataset_url: str,
    index: DatasetIndex,
    train: TrainSection,
    worker: Worker,
) -> float:
    """Loss per supervised token over up to `train.evaluate_rows` validation rows; all ranks must call it.

    `forward` maps a micro batch to its loss sum. Every rank makes the same number of passes, as ZeRO-3 requires: where
    the rows do not divide, the last ones run the first micro batch again, with no weight.
    """
    rows = min(index.splits["validation"].rows, train.evaluate_rows)
    passes = -(-rows // (train.micro_rows * worker.world_size))
    mine = list(_micro_batches(dataset_url, index, train, worker.rank, worker.world_size))
    filler = mine[0] if mine else next(_micro_batches(dataset_url, index, train, 0, worker.world_size))
    totals = torch.zeros(2, dtype=torch.float64, device=worker.device)
    for number in range(passes):
        micro = mine[number] if number < len(mine) else filler
        loss_sum = forward(micro)
        if number < len(mine):
            totals += torch.tensor(
                [float(loss_sum), micro.supervised_tokens], dtype=torch.float64, device=worker.device
            )
    if worker.world_size > 1:
        dist.all_reduce(totals)
    loss, tokens = totals.tolist()
    return float(loss / max(tokens, 1.0))


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
