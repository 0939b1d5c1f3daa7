"""saver: whatever goes wrong before a commit ends the run with an error; nobody waits for it."""

from typing import Any

import pytest

from scaletrain import checkpoint
from scaletrain.errors import StorageError
from scaletrain.layout import RunLayout
from scaletrain.train.records import Records
from workers import Prepared, make_job, run_processes


def _train_without_records(worker: Any, job: Any) -> int:
    from scaletrain.train.loop import train

    def flush(records: Records) -> None:
        raise OSError(28, "No space left on device")

    Records.flush = flush  # type: ignore[method-assign]  # in this process alone
    return train(job, worker, should_stop=lambda: False)


def test_an_error_before_the_commit_ends_the_run(prepared: Prepared) -> None:
    """Also one that nobody translated: the manifest waits for leave that would never come."""
    job = make_job(prepared, "no-records", workers=1, train__steps=2)
    with pytest.raises(StorageError, match=r"before a commit failed: OSError: .* No space left on device"):
        run_processes(1, _train_without_records, job)
    assert checkpoint.latest(RunLayout(prepared.root, "no-records")) is None
