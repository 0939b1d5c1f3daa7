"""The first Ctrl-C or SIGTERM asks for a stop, which comes when it is safe; the second ends the process at once."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Self

from scaletrain.log import get_logger

log = get_logger(__name__)


class StopRequest:
    """While it is entered, the first signal sets `asked` and says `answer`, and the second raises KeyboardInterrupt.

    A KeyboardInterrupt alone would not do where Ray's own code runs: raised in one of its callbacks, it is lost.
    In a thread that is not the main one, which gets no signals, it does nothing.
    """

    def __init__(self, answer: str) -> None:
        self.asked = threading.Event()
        self._answer = answer
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked.is_set():
            raise KeyboardInterrupt
        self.asked.set()
        log.warning("%s", self._answer)
