"""One run in a process of its own, so that nothing of it stays in memory: neither tensors nor patches of classes."""

import multiprocessing
import traceback
from collections.abc import Callable
from typing import TypeVar, cast

import torch

T = TypeVar("T")


def in_child(call: Callable[[], T]) -> T:
    """What a call returns or raises in a fork of this process, which leaves nothing behind in memory."""
    context = multiprocessing.get_context("fork")
    ours, its = context.Pipe(duplex=False)

    def run() -> None:
        try:
            its.send((call(), None))
        except BaseException as error:  # noqa: BLE001  # it is raised again on the other side
            traceback.print_exc()
            its.send((None, (isinstance(error, torch.OutOfMemoryError), f"{type(error).__name__}: {error}")))

    child = context.Process(target=run)
    child.start()
    its.close()
    try:
        result, problem = ours.recv()
    except EOFError:
        result, problem = None, (False, "its process ended without a word")
    child.join()
    if problem is None:
        return cast("T", result)
    out_of_memory, said = problem
    raise torch.OutOfMemoryError(said) if out_of_memory else RuntimeError(said)
