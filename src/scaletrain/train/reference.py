"""What preference training compares with: how likely each answer was to the model that the run begins with.

It is computed once, by the run's own workers and forward pass, before the first step, and kept in the bucket: a
resumed run reads it, and so does another run of the same rows, model and precision. The objects are parts of a split,
about a million tokens each:

    references/<id>/<split>-<first sample>.bin      documents of each row, int32; then a log-probability for each
                                                    document, float32; then 16 bytes, the xxh3-128 of what is before

An object is written in one step and never written over, and says itself whether it is sound: a run that is killed while
it computes has lost one part at most. Memory holds 4 bytes for each answer of the dataset, on every worker.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import orjson
import torch
import torch.distributed as dist
import xxhash

from scaletrain import layout, storage
from scaletrain.config_model import quantizes
from scaletrain.data.batches import MicroBatch, StepBatch, micro_batch
from scaletrain.data.rows import read_samples
from scaletrain.data.shards import DatasetIndex
from scaletrain.errors import DataError, NotFoundError, ScaletrainError
from scaletrain.log import get_logger
from scaletrain.storage.parallel import in_parallel
from scaletrain.train.job import Job
from scaletrain.train.step import answer_log_probs
from scaletrain.train.worker import Worker

_VERSION = 1  # raise it with any change that gives answers another log-probability
_PART_TOKENS = 2**20
_CHECKSUM_BYTES = 16
_READERS = 16

Floats = npt.NDArray[np.float32]
Int64s = npt.NDArray[np.int64]
Found = TypeVar("Found")

log = get_logger(__name__)


@dataclass(frozen=True)
class Part:
    """Rows of a split, from `first` up to `stop`."""

    split: str
    first: int
    stop: int

    @property
    def name(self) -> str:
        return f"{self.split}-{self.first:09d}.bin"


@dataclass(frozen=True)
class OfRows:
    """The log-probabilities of rows 0, 1, ...: those of row i's answers are `values[starts[i] : starts[i + 1]]`."""

    starts: Int64s
    values: Floats

    def of(self, sample_ids: Int64s) -> Floats:
        """Those of some rows, one behind the other."""
        return np.concatenate([self.values[self.starts[row] : self.starts[row + 1]] for row in sample_ids.tolist()])


@dataclass(frozen=True)
class Reference:
    """What is known of each split; of the validation split as many rows as are looked at."""

    splits: dict[str, OfRows]

    def beside(self, micro: MicroBatch, *, split: str) -> MicroBatch:
        """Return the micro batch with the log-probabilities of its answers."""
        return replace(micro, reference=self.splits[split].of(micro.sample_ids))

    def beside_all(self, batch: StepBatch) -> StepBatch:
        """Return a step of training with the log-probabilities of its answers."""
        return replace(batch, micro_batches=tuple(self.beside(each, split="train") for each in batch.micro_batches))


def open_reference(job: Job, worker: Worker, engine: Any, index: DatasetIndex) -> Reference:
    """Read the reference, and compute what is missing of it; every rank must call it, before a checkpoint is loaded.

    Raises DataError where the dataset has no pairs, or a part is damaged; StorageError.
    """
    if not index.pairs:
        raise DataError(
            f"{job.dataset_url}: has no pairs of answers, which train.objective: dpo learns from; give the run another "
            "name, and corpora of format: preferences"
        )
    url = reference_url(job, index)
    parts = _parts(job, index)
    missing = _agree(worker, lambda: _missing(url, parts))
    if missing and worker.rank == 0:
        log.info("computing what training compares with: %d of %d parts of %s", len(missing), len(parts), url)
    engine.eval()
    for part in missing:
        found = _compute(job, worker, engine, index, part)
        if worker.rank == 0:
            storage.create(storage.join(url, part.name), _packed(*found))
            log.info("%s: rows %d to %d of %d", part.split, part.first, part.stop, index.splits[part.split].rows)
    engine.train()
    return _agree(worker, lambda: _read(url, parts))


def reference_url(job: Job, index: DatasetIndex) -> str:
    """Where the reference of a run is: named by a hash of its rows, the model it begins with, and the precision."""
    determined_by = [_VERSION, index.dataset_id, job.model_url.rsplit("/", 1)[-1], job.precision]
    if quantizes(job.config.model.lora):
        determined_by.append("nf4")
    name = xxhash.xxh3_128_hexdigest(orjson.dumps(determined_by))[:16]
    return layout.reference_url(job.config.storage.root, name)


def _parts(job: Job, index: DatasetIndex) -> list[Part]:
    """The parts that the run looks at, each as a whole: another run may look at more of the validation split."""
    wanted = {"train": index.splits["train"].rows}
    if job.config.train.evaluate_every_steps:
        wanted["validation"] = min(index.splits["validation"].rows, job.config.train.evaluate_rows)
    size = max(1, _PART_TOKENS // index.seq_len)
    return [
        Part(split, first, min(first + size, index.splits[split].rows))
        for split, rows in wanted.items()
        for first in range(0, rows, size)
    ]


def _agree(worker: Worker, find: Callable[[], Found]) -> Found:
    """What rank 0 finds, on every rank; likewise what it raises."""
    box: list[Any] = [None]
    if worker.rank == 0:
        try:
            box = [find()]
        except ScaletrainError as error:
            box = [error]
    if worker.world_size > 1:
        dist.broadcast_object_list(box, src=0)
    if isinstance(box[0], ScaletrainError):
        raise box[0]
    found: Found = box[0]
    return found


# ---- computing -----------------------------------------------------------------------------------------------------


@torch.no_grad()
def _compute(
    job: Job, worker: Worker, engine: Any, index: DatasetIndex, part: Part
) -> tuple[npt.NDArray[np.int32], Floats]:
    """The number of documents of each row of a part, and the log-probabilities of their answers; all ranks call it.

    Every rank makes the same number of passes, as ZeRO-3 requires: where the rows do not divide, the last ones run a
    row again that counts for nothing.
    """
    size = job.config.train.micro_rows
    stride = size * worker.world_size
    spans = [
        (start, min(start + size, part.stop)) for start in range(part.first + worker.rank * size, part.stop, stride)
    ]
    ids = np.concatenate([np.arange(*span) for span in spans]) if spans else np.array([part.first])
    samples = read_samples(job.dataset_url, index, split=part.split, ids=ids)
    own: dict[int, Floats] = {}
    for number in range(-(-(part.stop - part.first) // stride)):
        start, stop = spans[number] if number < len(spans) else (part.first, part.first)
        place = number * size if number < len(spans) else 0
        micro = micro_batch(samples, place, place + max(stop - start, 1))
        found = answer_log_probs(job, worker, engine, micro).float().cpu().numpy()
        of_each = np.split(found, np.cumsum(micro.documents.max(axis=1))[:-1])
        own.update(zip(range(start, stop), of_each, strict=False))
    gathered: list[dict[int, Floats] | None] = [own]
    if worker.world_size > 1:
        gathered = [None] * worker.world_size
        dist.all_gather_object(gathered, own)
    of_rows: dict[int, Floats] = {}
    for each in gathered:
        of_rows |= each or {}
    rows = [of_rows[row] for row in range(part.first, part.stop)]
    return np.array([len(row) for row in rows], np.int32), np.concatenate(rows)


# ---- parts in the bucket -------------------------------------------------------------------------------------------


def _packed(counts: npt.NDArray[np.int32], values: Floats) -> bytes:
    data = counts.astype("<i4").tobytes() + values.astype("<f4").tobytes()
    return data + xxhash.xxh3_128_digest(data)


def _unpacked(url: str, data: bytes, part: Part) -> tuple[npt.NDArray[np.int32], Floats]:
    content, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
    if xxhash.xxh3_128_digest(content) != checksum:
        raise DataError(f"{url}: is damaged; remove it, and the same command computes it again")
    rows = part.stop - part.first
    counts = np.frombuffer(content[: 4 * rows], "<i4")
    return counts.astype(np.int32), np.frombuffer(content[4 * rows :], "<f4").astype(np.float32)


def _missing(url: str, parts: Sequence[Part]) -> list[Part]:
    there = {each.url.rpartition("/")[2] for each in storage.list_objects(url)}
    return [part for part in parts if part.name not in there]


def _read(url: str, parts: Sequence[Part]) -> Reference:
    def read(part: Part) -> tuple[npt.NDArray[np.int32], Floats]:
        own = storage.join(url, part.name)
        try:
            return _unpacked(own, storage.read_bytes(own), part)
        except NotFoundError as error:
            raise DataError(f"{own}: was removed while it was needed; the same command computes it again") from error

    found = in_parallel(read, parts, max_workers=_READERS)
    return Reference({split: _joined(split, parts, found) for split in dict.fromkeys(part.split for part in parts)})


def _joined(split: str, parts: Sequence[Part], found: Sequence[tuple[npt.NDArray[np.int32], Floats]]) -> OfRows:
    own = [each for part, each in zip(parts, found, strict=True) if part.split == split]
    counts = np.concatenate([each[0] for each in own]).astype(np.int64)
    return OfRows(np.concatenate([[0], np.cumsum(counts)]), np.concatenate([each[1] for each in own]))
