"""Saving while training: a step stalls only for a copy into memory, and another process makes the copy last.

Every rank copies its fp32 masters and moments into an image of its file and trains on; its persister stores the image
meanwhile, and rank 0's commits once all are stored. At most one save is under way: the next one waits for it. Before
it, all ranks agree that each of them has stored the last one, so that nobody waits for a rank that is gone; that a save
failed goes round with the step's all-reduce.
"""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

import torch
import torch.distributed as dist

from scaletrain import attempts, policy, storage
from scaletrain.checkpoint import (
    Committed,
    Extent,
    Failed,
    Manifest,
    Save,
    Setup,
    ShardLayout,
    SharedImage,
    Stored,
    lay_out,
)
from scaletrain.errors import ScaletrainError, StorageError, TrainingError
from scaletrain.log import get_logger
from scaletrain.train import zero
from scaletrain.train.job import Job
from scaletrain.train.worker import Worker

_WAKE_EVERY_S = 0.5

log = get_logger(__name__)


@dataclass(frozen=True)
class Position:
    """How far a run has come; `step` counts updates, `samples_seen` packed rows, tokens are real ones (no padding)."""

    step: int
    samples_seen: int
    tokens: int
    supervised_tokens: int
    ledger_hash: str
    parent_step: int | None


class Saver:
    """One rank's way to checkpoints; every rank of an attempt has one, and makes the same calls at the same steps."""

    def __init__(self, engine: Any, job: Job, worker: Worker) -> None:
        zero.create_moments(engine)
        self._engine = engine
        self._worker = worker
        self._job = job
        self._layout = lay_out([extent for extent, _ in self._slices()])
        setup = Setup(
            run=job.run,
            options=storage.options_of(job.run.root),
            attempt=job.attempt,
            rank=worker.rank,
            world_size=worker.world_size,
            size_bytes=self._layout.size_bytes,
            header_bytes=len(self._layout.header),
            keep=job.config.checkpoint.keep,
            nonce=job.nonce,
        )
        self._image = SharedImage(setup)
        self._places = _places(self._image, self._layout, worker)
        self._stored = self._committed = True  # of the last save
        self._has_saved = False
        self._failure: ScaletrainError | None = None
        self._before_commit: threading.Thread | None = None
        self._began_at_s = 0.0  # the last save, on time.monotonic()
        self._takes_s: float | None = None  # what it took, until nothing of it was left to this rank

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before_commit is not None:
            self._before_commit.join()
        if self._worker.device.type == "cuda":
            _cuda_runtime().cudaHostUnregister(self._places[0].data_ptr() - self._layout.starts[0])
        self._places = []
        self._image.close()

    def save(self, position: Position, *, before_commit: Callable[[], None]) -> None:
        """Take the state as it is now and have it committed; waits only where the save before is still under way.

        `before_commit` runs in a thread of rank 0 and must have ended before the manifest is written. A failure is
        kept for `failed` and `finish`.
        """
        if self._has_saved:  # together, so that nobody waits for the part of a rank that is gone
            self._wait(until_committed=False)
            self._raise_together()
            self._wait(until_committed=self._worker.rank == 0)
        self._has_saved = True
        if self._failure is not None:
            return
        with torch.no_grad():
            for (_, values), place in zip(self._slices(), self._places, strict=True):
                place.copy_(values, non_blocking=True)
        if self._worker.device.type == "cuda":
            torch.cuda.current_stream().synchronize()
        manifest = self._manifest(position) if self._worker.rank == 0 else None
        self._stored, self._committed, self._began_at_s = False, manifest is None, time.monotonic()
        self._image.order(Save(position.step, manifest))
        if manifest is not None:
            self._before_commit = threading.Thread(target=self._prepare_commit, args=(before_commit,), daemon=True)
            self._before_commit.start()

    @property
    def failed(self) -> bool:
        """Whether this rank's last save failed, as far as is known; asked once a step, it costs microseconds."""
        while self._failure is None and not (self._stored and self._committed) and self._take_reply(wait_s=0):
            pass
        return self._failure is not None

    def fits(self, left_s: float) -> bool:
        """Whether this rank could do its part of a new save in that time, going by its last one."""
        is_under_way = not (self._stored and self._committed)
        under_way_for_s = time.monotonic() - self._began_at_s if is_under_way else None
        return policy.save_fits(left_s, takes_s=self._takes_s, under_way_for_s=under_way_for_s)

    def finish(self) -> None:
        """Wait for the save that is under way; every rank must call it, and every rank raises where one failed."""
        self._wait(until_committed=False)
        self._raise_together()
        self._wait(until_committed=True)
        self._raise_together()

    def _raise_together(self) -> None:
        """Raise the first rank's failure on every rank, so that none waits for one that failed."""
        failures = [self._failure]
        if self._worker.world_size > 1:
            failures = [None] * self._worker.world_size
            dist.all_gather_object(failures, self._failure)
        for failure in failures:
            if failure is not None:
                raise failure

    def _wait(self, *, until_committed: bool) -> None:
        while self._failure is None and not (self._stored and (self._committed or not until_committed)):
            self._take_reply(wait_s=_WAKE_EVERY_S)  # a failure may come from the thread before the commit, too

    def _take_reply(self, *, wait_s: float) -> bool:
        """Take in what the persister has to say next; returns whether there was anything."""
        reply = self._image.reply(wait_s=wait_s)
        if isinstance(reply, Failed):
            self._failure = self._failure or reply.error
        elif isinstance(reply, Committed):
            self._committed, self._takes_s = True, reply.seconds
            log.debug(
                "committed step %d (%.1f MB) in %.1f s",
                *(reply.manifest.step, reply.manifest.size_bytes / 1e6, reply.seconds),
            )
        elif isinstance(reply, Stored):
            self._stored = True
            if self._worker.rank != 0:  # rank 0 has it committed, too
                self._takes_s = reply.seconds
        return reply is not None

    def _prepare_commit(self, before_commit: Callable[[], None]) -> None:
        try:
            before_commit()
            self._image.allow_commit()
        except ScaletrainError as error:
            self._failure = attempts.cause_of(self._job.run, self._job.attempt, error, self._job.nonce)
        except Exception as error:  # else every rank would wait for this commit for ever
            log.debug("what comes before a commit failed", exc_info=True)
            self._failure = StorageError(f"what comes before a commit failed: {type(error).__name__}: {error}")

    def _slices(self) -> Iterator[tuple[Extent, torch.Tensor]]:
        """What this rank writes: its own fragments, or an even share of each where every rank holds all."""
        rank, world_size = self._worker.rank, self._worker.world_size
        for fragment in zero.fragments(self._engine):
            start, stop = 0, fragment.length
            if fragment.replicated:
                start, stop = rank * fragment.length // world_size, (rank + 1) * fragment.length // world_size
            if start < stop:
                for kind, view in fragment.views.items():
                    extent = Extent(kind, fragment.name, fragment.offset + start, stop - start)
                    yield extent, view[start:stop].detach()

    def _manifest(self, position: Position) -> Manifest:
        """The manifest of the state as it is now, without its files."""
        return Manifest(
            step=position.step,
            samples_seen=position.samples_seen,
            attempt=self._job.attempt,
            world_size=self._worker.world_size,
            zero_stage=self._engine.zero_optimization_stage(),
            precision=self._job.precision,
            dataset_url=self._job.dataset_url,
            model_url=self._job.model_url,
            ledger_hash=position.ledger_hash,
            parent_step=position.parent_step,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            parameters=zero.parameter_shapes(self._engine),
            scalars={
                "optimizer_step": zero.optimizer_step(self._engine),
                "tokens": position.tokens,
                "supervised_tokens": position.supervised_tokens,
            },
            files=(),
        )


def _places(image: SharedImage, layout: ShardLayout, worker: Worker) -> list[torch.Tensor]:
    """Where each slice goes, as fp32 tensors over the shared memory; pinned where a GPU copies into it."""
    image.memory[: len(layout.header)] = layout.header
    whole = torch.frombuffer(image.memory, dtype=torch.uint8)
    if worker.device.type == "cuda":
        error = _cuda_runtime().cudaHostRegister(whole.data_ptr(), layout.size_bytes, 0)
        if int(error) != 0:
            raise TrainingError(f"cannot pin {layout.size_bytes / 1e9:.1f} GB of memory for checkpoints ({error})")
    return [
        whole[start : start + 4 * extent.length].view(torch.float32)
        for start, extent in zip(layout.starts, layout.extents, strict=True)
    ]


def _cuda_runtime() -> Any:
    return torch.cuda.cudart()  # type: ignore[no-untyped-call]
