"""Workers that wait for one another: for how long, and what is said when one of them does not answer."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from torch.distributed import DistBackendError, DistNetworkError, distributed_c10d

from scaletrain.train.worker import Worker

_SILENT = ("Timed out", "timed out", "timeout")
_GONE = ("closed by peer", "reset by peer", "Broken pipe", "Connection refused")


def bound_waiting(timeout_s: float) -> None:
    """Let no collective wait longer than that: DeepSpeed makes groups of its own, which torch gives half an hour."""
    for group in list(distributed_c10d._world.pg_map):
        distributed_c10d._set_pg_timeout(timedelta(seconds=timeout_s), group)


@contextmanager
def loss_explained(worker: Worker, *, step: int, timeout_s: float) -> Iterator[None]:
    """Raise DistBackendError that says what happened, in which step, where another worker hangs or is gone."""
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if not isinstance(error, DistBackendError | DistNetworkError) and "gloo" not in text:
            raise
        goes_on = "the same command goes on from the newest commit"
        if any(mark in text for mark in _GONE):
            raise DistBackendError(
                f"step {step}: worker {worker.rank} of {worker.world_size} lost another one, whose process or machine "
                f"is gone; {goes_on} ({text})"
            ) from error
        if any(mark in text for mark in _SILENT):
            raise DistBackendError(
                f"step {step}: worker {worker.rank} of {worker.world_size} heard nothing of another one for "
                f"{timeout_s:g} s (train.timeout_s), which hangs or cannot be reached; {goes_on}. If a step may take "
                f"that long, raise train.timeout_s ({text})"
            ) from error
        raise
