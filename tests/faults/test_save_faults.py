"""A machine dies at any moment of a save, on any rank: the last commit is there, and the end is the same bits."""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scaletrain import attempts, checkpoint, storage
from scaletrain.layout import RunLayout
from scaletrain.metrics import read_records
from scaletrain.train import ledger
from workers import Prepared, make_job, run_processes, train

SETTINGS = {"train__steps": 12, "checkpoint__every_steps": 3}


def _train_and_die(worker: Any, job: Any, rank: int, when: str, number: int) -> int:
    from scaletrain.train.loop import train as run

    if worker.rank == rank:
        sys.path.insert(0, str(Path(__file__).parent / "killed_at_a_write"))
        os.environ["KILL_AT_WRITE"] = f"{when} {number}"
    return run(job, worker, should_stop=lambda: False)


def assert_equal_runs(prepared: Prepared, found: str, expected: str) -> None:
    """The same final bits, the same samples in every step, and a ledger that checks."""
    one, other = (
        checkpoint.open_checkpoint(RunLayout(prepared.root, name).checkpoint(12)) for name in (found, expected)
    )
    for kind in other.kinds:
        for name in other.names():
            np.testing.assert_array_equal(one.read(kind, name), other.read(kind, name))
    records = read_records(RunLayout(prepared.root, found).ledger)
    assert [record["step"] for record in records] == list(range(1, 13))
    assert ledger.check_chain(records) == other.manifest.ledger_hash


# Rank 0 makes four writes a save (file, manifest, hint, rank 1's record removed) and what pruning removes; rank 1 two.
@pytest.mark.long
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("rank", "number"), [(0, n) for n in range(1, 11)] + [(1, n) for n in range(1, 6)])
def test_a_machine_that_dies_at_a_write_of_a_save(
    prepared: Prepared, undisturbed: str, rank: int, number: int, when: str
) -> None:
    """What was committed before it died is gone on from, at exactly that step."""
    name = f"killed-{rank}-{number}-{when}"
    run = RunLayout(prepared.root, name)
    with pytest.raises((AssertionError, RuntimeError)):  # "workers ended with exit codes", or gloo's "closed by peer"
        run_processes(2, _train_and_die, make_job(prepared, name, workers=2, **SETTINGS), rank, when, number)
    committed = checkpoint.latest(run)
    train(prepared, name, workers=2, attempt=2, **SETTINGS)
    assert attempts.read_attempts(run).resumed_from[2] >= (committed.step if committed else 0)
    for folder in storage.list_folders(run.checkpoints):
        checkpoint.verify(storage.join(run.checkpoints, folder))
    assert_equal_runs(prepared, name, undisturbed)
