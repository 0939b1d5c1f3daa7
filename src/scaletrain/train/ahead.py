"""An iterator that works ahead in a thread, so that waiting for data hides behind computing."""

import queue
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Generic, Self, TypeVar

Item = TypeVar("Item")
_POLL_S = 0.2


class _End:
    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class Ahead(Generic[Item]):
    """Runs `items` in a thread, `depth` items ahead; errors surface where the item would have been.

    Starts at once. `last_wait_s` is how long the last `next` blocked. Leaving the context stops the thread.
    """

    def __init__(self, items: Iterator[Item], *, depth: int = 2) -> None:
        self.last_wait_s = 0.0
        self._items = items
        self._queue: queue.Queue[Item | _End] = queue.Queue(maxsize=depth)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="read-ahead", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the thread; what it has read is dropped."""
        self._stopping.set()
        self._thread.join(timeout=5.0)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Item:
        began = time.perf_counter()
        item = self._queue.get()
        self.last_wait_s = time.perf_counter() - began
        if isinstance(item, _End):
            self._queue.put(item)
            if item.error is not None:
                raise item.error
            raise StopIteration
        return item

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            for item in self._items:
                if not self._offer(item):
                    break
        except BaseException as caught:  # noqa: BLE001 -- handed over to the thread that reads, which raises it
            error = caught
        self._offer(_End(error))
        close = getattr(self._items, "close", None)
        if close is not None:
            close()

    def _offer(self, item: Item | _End) -> bool:
        while not self._stopping.is_set():
            try:
                self._queue.put(item, timeout=_POLL_S)
                return True
            except queue.Full:
                continue
        return False
