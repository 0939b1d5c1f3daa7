"""feed: a tracker gets every step once and in order, and whatever it does costs the run nothing."""

import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
from metric_rows import rows, store

from commands import wait_for
from scaletrain.layout import RunLayout
from scaletrain.track.feed import Feed, Outcome, Row, step_of
from scaletrain.track.tracking import stored_rows


class Kept:
    """A tracker in memory that has `steps` already; `failures` of its next calls fail."""

    name = "kept"

    def __init__(self, *, steps: Sequence[int] = (), failures: int = 0) -> None:
        self.steps = list(steps)
        self.failures = failures
        self.ended: Outcome | None = None

    def open(self) -> int | None:
        return self.steps[-1] if self.steps else 0

    def send(self, rows: Sequence[Row]) -> None:
        assert len(rows) <= 50
        if self.failures:
            self.failures -= 1
            raise ConnectionError("no way to the server")
        self.steps += map(step_of, rows)

    def close(self, outcome: Outcome) -> None:
        self.ended = outcome


@pytest.fixture
def run(tmp_path: Path) -> RunLayout:
    return RunLayout(str(tmp_path / "bucket"), "fed")


def feed_of(sink: Kept, run: RunLayout) -> Feed:
    return Feed(sink, stored=partial(stored_rows, run), retry_s=0.01)


def test_a_step_that_is_done_again_is_sent_once(run: RunLayout) -> None:
    """After a loss, steps come again; the tracker has the first."""
    sink = Kept()
    feed = feed_of(sink, run)
    feed.add(rows([1, 2, 3]))
    feed.add(rows([3, 2, 3, 4]))
    feed.end("finished")
    feed.wait(20)
    assert sink.steps == [1, 2, 3, 4] and sink.ended == "finished"


def test_what_a_tracker_lacks_is_read_from_the_bucket(run: RunLayout, tmp_path: Path) -> None:
    """Before the first row that comes, between two, and after the last, as the run counts its attempts."""
    store(run, tmp_path / "first", range(1, 71))
    store(run, tmp_path / "second", range(66, 81), attempt=2, goes_on_from=65)
    sink = Kept(steps=[1, 2])
    feed = feed_of(sink, run)
    feed.add(rows([68, 71]))
    feed.end("stopped")
    feed.wait(20)
    assert sink.steps == list(range(1, 72)) and sink.ended == "stopped"


def test_a_tracker_that_fails_is_opened_again_and_misses_nothing(
    run: RunLayout, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning, and the rows that it refused come from the bucket."""
    store(run, tmp_path / "first", range(1, 10))
    sink = Kept(failures=3)
    feed = feed_of(sink, run)
    for step in (1, 2, 3):
        feed.add(rows([step]))
        wait_for(lambda: sink.failures == 3 - step, "a failure")  # noqa: B023 -- called before the next step
    feed.add(rows(range(4, 9)))
    wait_for(lambda: sink.steps == list(range(1, 9)), "every row")
    feed.add(rows([9]))
    feed.end("finished")
    feed.wait(20)
    assert sink.steps == list(range(1, 10))
    assert len([record for record in caplog.records if "tried again" in record.message]) == 1


def test_a_tracker_that_hangs_delays_nobody(run: RunLayout, caplog: pytest.LogCaptureFixture) -> None:
    """Rows are handed over at once, the queue does not grow without bound, and the end waits only so long."""
    release = threading.Event()

    class Hanging(Kept):
        def open(self) -> int | None:
            release.wait()
            return None

    sink = Hanging()
    feed = feed_of(sink, run)
    for first in range(1, 30_001, 1000):
        feed.add(rows(range(first, first + 1000)))
    feed.end("finished")
    feed.wait(0.1)
    assert sink.steps == []
    assert "kept: does not answer; it has not got 30000 steps" in caplog.text
    release.set()


def test_only_the_newest_row_is_sent_where_nothing_else_counts(run: RunLayout) -> None:
    """A gauge has no history."""

    class Gauge(Kept):
        def open(self) -> int | None:
            return None

    sink = Gauge()
    feed = feed_of(sink, run)
    feed.add(rows([7, 8, 9]))
    feed.end("finished")
    feed.wait(20)
    assert sink.steps == [9]
