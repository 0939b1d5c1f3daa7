"""stopping: the attempt to be asked is the newest one of this job, and of no job before it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson

from scaletrain import storage
from scaletrain.cluster.stopping import newest_attempt
from scaletrain.layout import RunLayout

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def claim(run: RunLayout, number: int, started: datetime) -> None:
    storage.create(run.attempt(number), orjson.dumps({"started": started.isoformat(timespec="seconds"), "step": 0}))


def test_the_newest_attempt_counts(tmp_path: Path) -> None:
    """Stop requests lie in the same folder and are no attempts."""
    run = RunLayout(str(tmp_path), "talk")
    claim(run, 1, NOON)
    claim(run, 2, NOON + timedelta(minutes=1))
    storage.create(run.stop_request(1), b"")
    assert newest_attempt(run, since=NOON) == 2


def test_attempts_of_an_earlier_job_do_not_count(tmp_path: Path) -> None:
    """A job that still waits for its workers has nothing to save."""
    run = RunLayout(str(tmp_path), "talk")
    assert newest_attempt(run, since=NOON) is None
    claim(run, 1, NOON)
    assert newest_attempt(run, since=NOON + timedelta(minutes=5)) is None
