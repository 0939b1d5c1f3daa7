"""Put first on the path of a persister: its machine dies (or, with SIGSTOP, freezes) at the n-th write to storage."""

import os
import signal
from collections.abc import Callable
from typing import Any

WRITES = ("create", "remove", "upload_file", "write_bytes", "write_text")


def _arm(when: str, number: int, deed: signal.Signals) -> None:
    from scaletrain import storage

    made = 0

    def counted(write: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            nonlocal made
            made += 1
            this = made  # one write may make another
            if this == number and when == "before":
                _suffer(deed)
            result = write(*arguments, **options)
            if this == number and when == "after":
                _suffer(deed)
            return result

        return run

    for name in WRITES:
        setattr(storage, name, counted(getattr(storage, name)))


def _suffer(deed: signal.Signals) -> None:
    os.kill(os.getppid(), deed)
    os.kill(os.getpid(), deed)


if "KILL_AT_WRITE" in os.environ:
    _when, _number, *_deed = os.environ["KILL_AT_WRITE"].split()
    _arm(_when, int(_number), signal.Signals[_deed[0] if _deed else "SIGKILL"])
