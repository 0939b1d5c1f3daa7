"""Doing many requests at a time, with a bound on the bytes that one process holds for them."""

import functools
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import TypeVar

_MAX_PIECES_IN_MEMORY = 16

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def in_parallel(action: Callable[[_Item], _Result], items: Sequence[_Item], *, max_workers: int) -> list[_Result]:
    """Run an action on every item in threads; the first error is raised, and what has not begun is left out."""
    if max_workers == 1 or len(items) < 2:
        return [action(item) for item in items]
    with ThreadPoolExecutor(min(max_workers, len(items)), thread_name_prefix="storage") as pool:
        futures = [pool.submit(action, item) for item in items]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def piece_in_memory() -> AbstractContextManager[bool]:
    """Wait for a place among the pieces that this process holds, whatever number of files they belong to."""
    return _places(os.getpid())


@functools.cache
def _places(_pid: int) -> threading.BoundedSemaphore:
    """The places of a process; a forked one has its own, as the threads that would give places back are not in it."""
    return threading.BoundedSemaphore(_MAX_PIECES_IN_MEMORY)


def ranges(start: int, stop: int, step: int) -> list[tuple[int, int]]:
    """Cut a range into pieces of `step`; the last one may be shorter."""
    return [(begin, min(begin + step, stop)) for begin in range(start, stop, step)]
