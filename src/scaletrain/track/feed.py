"""A feed brings a run's metrics to one tracker, in a thread of its own, whatever the tracker does.

A tracker that fails is opened again, later and later; one that hangs keeps only its own thread waiting. Rows that
found no place in the meantime, and those that the tracker never got, are read from the bucket as soon as it answers:
it has every step once, in order. A step that was done again after a loss is the same step (the same samples, the same
mathematics), and the tracker keeps the first.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, Protocol

from scaletrain.log import get_logger

Outcome = Literal["finished", "stopped", "failed"]
Row = Mapping[str, object]  # a line of metrics

_MOST_WAITING = 10_000
_AT_ONCE = 50
_RETRY_S = 30.0
_LONGEST_RETRY_S = 600.0

log = get_logger(__name__)


class Sink(Protocol):
    """One tracker; all its methods are called in the feed's thread, and may raise anything."""

    name: str

    def open(self) -> int | None:
        """Connect, again after a failure; the last step that it has (0: none), or None where only the newest counts."""

    def send(self, rows: Sequence[Row]) -> None:
        """Take rows, in the order of their steps, at most 50."""

    def close(self, outcome: Outcome) -> None:
        """Bring everything where it belongs, and say how the command ended."""


class Feed:
    """Brings rows to a sink; `stored(first, last)` reads the rows of these steps that are in the bucket."""

    def __init__(self, sink: Sink, *, stored: Callable[[int, int], Sequence[Row]], retry_s: float = _RETRY_S) -> None:
        self._sink = sink
        self._stored = stored
        self._retry_s = retry_s
        self._waiting: deque[Row] = deque(maxlen=_MOST_WAITING)
        self._changed = threading.Condition()
        self._outcome: Outcome | None = None
        self._newest_step = 0
        self._sent_step: int | None = 0
        self._complaint: str | None = None
        self._thread = threading.Thread(target=self._run, name=f"track-{sink.name}", daemon=True)
        self._thread.start()

    def add(self, rows: Sequence[Row]) -> None:
        """Hand over new rows; returns at once."""
        if not rows:
            return
        with self._changed:
            self._waiting.extend(rows)
            self._newest_step = max(self._newest_step, max(map(step_of, rows)))
            self._changed.notify()

    def end(self, outcome: Outcome) -> None:
        """No more rows will come; returns at once."""
        with self._changed:
            self._outcome = outcome
            self._changed.notify()

    def wait(self, timeout_s: float) -> None:
        """After `end`, let the tracker come to its end, for so long; warns of what it did not get."""
        self._thread.join(timeout_s)
        complaint = "does not answer" if self._thread.is_alive() else self._complaint
        if complaint is None:
            return
        missing = max(0, self._newest_step - (self._sent_step or 0))
        told = f"; it has not got {missing} steps" if missing and self._sent_step is not None else ""
        if told and self._outcome != "finished":
            told += ", which the next `train` of this run brings"
        log.warning("%s: %s%s", self._sink.name, complaint, told)

    def _run(self) -> None:
        delay_s, has_warned = self._retry_s, False
        while True:
            try:
                self._follow()
            except Exception as error:  # noqa: BLE001 -- whatever a tracker's library raises must not reach training
                self._complaint = _headline(error)
                if not has_warned and self._outcome is None:
                    log.warning("%s: %s; training goes on, and it is tried again", self._sink.name, self._complaint)
                    has_warned = True
            else:
                return
            if self._is_closing_after(delay_s):
                return
            delay_s = min(2 * delay_s, _LONGEST_RETRY_S)

    def _is_closing_after(self, delay_s: float) -> bool:
        """Wait; True at once where the tracker was closing when it failed, False for one more try."""
        with self._changed:
            if self._outcome is not None:
                return True
            self._changed.wait_for(lambda: self._outcome is not None, timeout=delay_s)
            return False

    def _follow(self) -> None:
        """Bring rows until the feed is closed; raises what the sink raises."""
        self._sent_step = self._sink.open()
        while (rows := self._take()) is not None:
            self._send(rows)
        if self._sent_step is not None and self._sent_step < self._newest_step:
            self._send(self._stored(self._sent_step + 1, self._newest_step))
        assert self._outcome is not None
        self._sink.close(self._outcome)
        self._complaint = None

    def _take(self) -> list[Row] | None:
        """The rows that have come, as soon as there are any; None once the feed is closed and all are taken."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._outcome is not None)
            rows = list(self._waiting)
            self._waiting.clear()
        return rows or None

    def _send(self, rows: Sequence[Row]) -> None:
        if self._sent_step is None:
            self._sink.send(rows[-1:])
            self._complaint = None
            return
        for few in _batches(self._in_order(rows, self._sent_step)):
            self._sink.send(few)
            self._sent_step = step_of(few[-1])
            self._complaint = None

    def _in_order(self, rows: Sequence[Row], sent: int) -> Iterator[Row]:
        """Every step after `sent` once, with those that are missing in between from the bucket."""
        for row in rows:
            step = step_of(row)
            if step > sent + 1:
                yield from (each for each in self._stored(sent + 1, step - 1) if sent < step_of(each) < step)
            if step > sent:
                yield row
                sent = step


def step_of(row: Row) -> int:
    """The step that a row is of."""
    return int(str(row["step"]))


def numbers_of(row: Row) -> dict[str, float]:
    """The measurements of a row by name, without its step; what was not finite is left out."""
    return {name: float(value) for name, value in row.items() if isinstance(value, int | float) and name != "step"}


def _batches(rows: Iterator[Row]) -> Iterator[list[Row]]:
    few: list[Row] = []
    for row in rows:
        few.append(row)
        if len(few) == _AT_ONCE:
            yield few
            few = []
    if few:
        yield few


def _headline(error: Exception) -> str:
    """An error in one line."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
