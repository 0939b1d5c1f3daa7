"""The process that makes a rank's saves last: it stores what stands in shared memory while the worker trains on.

Each worker has one, and gives it one save at a time. The memory belongs to both, so that a save which was handed over
survives the worker: the persister finishes it, commits it where it can, and ends. Rank 0's waits for the records that
the other ranks' persisters leave beside their files, and for leave from its worker (the ledger of these steps must be
in the bucket first); then it writes the manifest, unless a newer attempt has taken the run over.
"""

import sys
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from mmap import mmap
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

import orjson

from scaletrain import attempts, storage
from scaletrain.checkpoint import commits
from scaletrain.checkpoint.manifest import FileRecord, Manifest, load_manifest
from scaletrain.checkpoint.shard_image import store_shard
from scaletrain.errors import CheckpointError, NotFoundError, ScaletrainError, StorageError
from scaletrain.layout import RunLayout
from scaletrain.log import get_logger, setup_logging

_ORPHANED_S = 60.0  # how long a persister without a worker waits for the other ranks'
_PATIENCE_S = 1800.0  # the same, with a worker that lives
_FIRST_POLL_S, _LONGEST_POLL_S = 0.05, 1.0

log = get_logger(__name__)


@dataclass(frozen=True)
class Setup:
    """What a persister must know once; `keep` is how many checkpoints stay."""

    run: RunLayout
    options: Mapping[str, str | int | float | bool]
    attempt: int
    rank: int
    world_size: int
    size_bytes: int
    header_bytes: int
    keep: int
    nonce: str = ""  # of the attempt's claim

    @property
    def file_name(self) -> str:
        return self.file_name_of(self.rank)

    def file_name_of(self, rank: int) -> str:
        """The nonce keeps apart what two attempts of one number store, where a run was removed and begun anew."""
        nonce = f".{self.nonce}" if self.nonce else ""
        return f"attempt-{self.attempt:04d}.rank-{rank:05d}-of-{self.world_size:05d}{nonce}.safetensors"

    def check_newest(self) -> None:
        """Raise TrainingError where another attempt has taken the run over."""
        attempts.check_newest(self.run, self.attempt, self.nonce)


@dataclass(frozen=True)
class Save:
    """An order: store what stands in memory now. Rank 0's has the manifest, which lacks only the files."""

    step: int
    manifest: Manifest | None


@dataclass(frozen=True)
class Stored:
    """This rank's file is where it belongs."""

    step: int
    seconds: float


@dataclass(frozen=True)
class Committed:
    """The whole checkpoint is; only rank 0's persister says so. `seconds` are since the order."""

    manifest: Manifest
    seconds: float


@dataclass(frozen=True)
class Failed:
    """It could not be done, and will not be tried again by itself."""

    step: int
    error: ScaletrainError


COMMIT: Literal["commit"] = "commit"  # the leave that rank 0's worker gives
Reply = Stored | Committed | Failed


class _WorkerGone(Exception):
    """The worker has ended, or does not want this save any more."""


def main() -> None:
    """What the process runs; its arguments are two file descriptors, of the line and of the memory."""
    setup_logging()
    serve(Connection(int(sys.argv[1])), int(sys.argv[2]))


def serve(connection: Connection, image_fd: int) -> None:
    """Carry out orders until the worker closes its end."""
    setup: Setup = connection.recv()
    storage.configure(setup.run.root, setup.options)
    with mmap(image_fd, setup.size_bytes) as memory, memoryview(memory) as image:
        worker = _WorkerLine(connection)
        while (order := worker.next_order()) is not None:
            began = time.monotonic()
            try:
                record = store_shard(
                    setup.run.checkpoint(order.step),
                    setup.file_name,
                    Path(f"/proc/self/fd/{image_fd}"),
                    image=image,
                    header_bytes=setup.header_bytes,
                )
                if setup.rank != 0:
                    _leave_record(setup, order.step, record)
                worker.tell(Stored(order.step, time.monotonic() - began))
                if order.manifest is not None:
                    records = _gather_records(setup, order.step, record, worker)
                    manifest = _commit(setup, replace(order.manifest, files=records), worker)
                    worker.tell(Committed(manifest, time.monotonic() - began))
                    _prune(setup)
            except _WorkerGone:
                return
            except ScaletrainError as error:
                worker.tell(Failed(order.step, attempts.cause_of(setup.run, setup.attempt, error, setup.nonce)))
            except Exception:  # noqa: BLE001 -- the worker is told, and ends the run with it
                worker.tell(Failed(order.step, StorageError(f"a save failed:\n{traceback.format_exc()}")))


class _WorkerLine:
    """The line to the worker, which may go dead at any moment without ending what is under way."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._may_commit = False
        self._gone_since: float | None = None

    def next_order(self) -> Save | None:
        self._may_commit = False
        while self._gone_since is None:
            message = self._receive()
            if isinstance(message, Save):
                return message
        return None

    def tell(self, reply: Reply) -> None:
        with suppress(OSError):  # what a worker that is gone had said before is still to be read
            self._connection.send(reply)

    def look(self, wait_s: float) -> None:
        """Look for what the worker says, for so long; raises _WorkerGone some time after it has ended."""
        if self._gone_since is not None:
            if time.monotonic() - self._gone_since > _ORPHANED_S:
                raise _WorkerGone
            time.sleep(wait_s)
        elif self._connection.poll(wait_s):
            self._may_commit = self._receive() == COMMIT or self._may_commit

    def wait_for_leave(self) -> None:
        """Wait until the commit is allowed; without a worker it never will be."""
        while not self._may_commit:
            if self._gone_since is not None:
                raise _WorkerGone
            self.look(_LONGEST_POLL_S)

    def _receive(self) -> object:
        try:
            return self._connection.recv()
        except (EOFError, OSError):
            self._gone_since = time.monotonic()
            return None


def _gather_records(setup: Setup, step: int, own: FileRecord, worker: _WorkerLine) -> tuple[FileRecord, ...]:
    """Wait for every rank's record; a rank that fails tells its own worker, which ends the attempt."""
    records, deadline = [own], time.monotonic() + _PATIENCE_S
    for rank in range(1, setup.world_size):
        wait_s = _FIRST_POLL_S
        while not storage.exists(_record_url(setup, step, rank)):
            if time.monotonic() > deadline:
                raise CheckpointError(
                    f"rank {rank} has not stored its part of step {step} in {_PATIENCE_S / 60:.0f} minutes; see "
                    "whether its machine can reach the bucket (`scaletrain doctor --cluster FILE`)"
                )
            worker.look(wait_s)
            if wait_s == _LONGEST_POLL_S:  # a newer attempt sweeps away the record that is waited for
                setup.check_newest()
            wait_s = min(2 * wait_s, _LONGEST_POLL_S)
        raw = orjson.loads(storage.read_bytes(_record_url(setup, step, rank)))
        records.append(FileRecord(**{**raw, "chunks": tuple(raw["chunks"])}))
    return tuple(records)


def _commit(setup: Setup, manifest: Manifest, worker: _WorkerLine) -> Manifest:
    """Make the checkpoint real, while this attempt is the newest.

    Looking after it as well as before makes it exact: a newer attempt that was claimed later than the second look
    lists the checkpoints after it, and finds this one.
    """
    worker.wait_for_leave()
    setup.check_newest()
    committed = commits.commit(setup.run.checkpoint(manifest.step), manifest, check=setup.check_newest)
    storage.write_text(setup.run.newest_hint, str(manifest.step))
    setup.check_newest()
    return committed


def _prune(setup: Setup) -> None:
    """Remove what nobody needs any more; whatever goes wrong is said, and done after the next commit."""
    try:
        commits.prune(setup.run, keep=setup.keep, attempt=setup.attempt, nonce=setup.nonce)
    except Exception as error:  # noqa: BLE001 -- the commit is made, and a run is worth more than tidiness
        log.warning("old checkpoints of %s stay until the next commit: %s", setup.run.url, error)


def _leave_record(setup: Setup, step: int, record: FileRecord) -> None:
    """Tell rank 0 of this rank's file.

    Where the answer to the write was lost, it is written again, maybe after rank 0 has read it, committed, and removed
    it: then nobody needs it any more.
    """
    url = _record_url(setup, step, setup.rank)
    storage.write_bytes(url, orjson.dumps(asdict(record)))
    with suppress(NotFoundError, CheckpointError):  # not committed yet, or what lies there was an older attempt's
        if load_manifest(setup.run.checkpoint(step)).attempt == setup.attempt:
            storage.remove(url)


def _record_url(setup: Setup, step: int, rank: int) -> str:
    return storage.join(setup.run.checkpoint(step), f"{setup.file_name_of(rank)}.json")
