"""Which rows are scored with what, and scoring them in this process."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from scaletrain.data.batches import RUN_TOKENS, MicroBatch, micro_batch
from scaletrain.data.rows import Samples, read_samples
from scaletrain.data.shards import IGNORED_LABEL, DatasetIndex
from scaletrain.evaluate.contender import Contender, Device, Precision
from scaletrain.evaluate.scoring import Scored, join, score_rows


@dataclass(frozen=True)
class RowsToScore:
    """The first `rows` validation rows of a dataset, and what they are scored with."""

    contender: Contender
    dataset_url: str
    index: DatasetIndex
    rows: int
    micro_batch_size: int
    device: Device
    precision: Precision


def score_here(work: RowsToScore, model: Any, *, first: int, stop: int, on_rows: Callable[[int], None]) -> Scored:
    """Score the rows from `first` up to `stop` in this process; raises DataError, StorageError."""
    micro_batches = _micro_batches(work, first, stop)
    return join(list(score_rows(model, work.contender.tokenizer(), micro_batches, on_rows=on_rows)))


def _micro_batches(work: RowsToScore, first: int, stop: int) -> Iterator[MicroBatch]:
    size = work.micro_batch_size
    at_once = size * max(1, RUN_TOKENS // (size * work.index.seq_len))
    for start in range(first, stop, at_once):
        end = min(start + at_once, stop)
        ids = np.arange(start, end, dtype=np.int64)
        samples = read_samples(work.dataset_url, work.index, split="validation", ids=ids)
        if work.index.pairs:
            samples = _preferred_only(samples)
        for place in range(0, len(ids), size):
            yield micro_batch(samples, place, min(place + size, len(ids)))


def _preferred_only(samples: Samples) -> Samples:
    """Of each pair, the answer that was preferred: the first, third, ... document of a row."""
    is_preferred = samples.documents % 2 == 1
    return replace(samples, labels=np.where(is_preferred, samples.labels, IGNORED_LABEL).astype(np.int32))
