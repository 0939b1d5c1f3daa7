"""Put first on the path of a persister: its machine dies before or after the n-th write that it makes to storage."""

import os
import signal
from collections.abc import Callable
from typing import Any

WRITES = ("create", "remove", "upload_file", "write_bytes", "write_text")


def _arm(when: str, number: int) -> None:
    from scaletrain import storage

    made = 0

    def counted(write: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            nonlocal made
            made += 1
            if made == number and when == "before":
                _die()
            result = write(*arguments, **options)
            if made == number and when == "after":
                _die()
            return result

        return run

    for name in WRITES:
        setattr(storage, name, counted(getattr(storage, name)))


def _die() -> None:
    os.kill(os.getppid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


if "KILL_AT_WRITE" in os.environ:
    _arm(*(os.environ["KILL_AT_WRITE"].split()[0], int(os.environ["KILL_AT_WRITE"].split()[1])))
