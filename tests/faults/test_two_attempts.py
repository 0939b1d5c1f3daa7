"""Two attempts of one run at once: the older one thaws at the worst moment, and changes nothing."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from attempts_on_processes import CONTINUE, STOP, Attempt, finish, persisters, signal_in_step, wait_for_persisters
from invariants import assert_recovered

from commands import run as run_command
from commands import wait_for, write_tiny
from scaletrain import checkpoint, storage
from scaletrain.layout import RunLayout
from workers import Prepared

pytestmark = pytest.mark.long

HOLD = """
import sys, time
from scaletrain import attempts
from scaletrain.layout import RunLayout
run = RunLayout(*sys.argv[1:])
with attempts.Heartbeat(run, attempts.claim(run)):
    print("claimed", flush=True)
    time.sleep(600)
"""


def test_a_second_job_of_the_same_name_is_refused(tmp_path: Path) -> None:
    """The command ends with 1, names the process that trains the run, and has touched nothing."""
    config, run = write_tiny(tmp_path, root=str(tmp_path / "bucket")), RunLayout(str(tmp_path / "bucket"), "tiny")
    run_command("prepare", config, "--local")
    with subprocess.Popen([sys.executable, "-c", HOLD, run.root, run.name], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"claimed\n"
        storage.write_text(run.config, Path(config).read_text())
        told = run_command("train", config, "--local", "checkpoint.keep=7", exit_code=1)
        other.kill()
    assert f"being trained at this moment: attempt 1, process {other.pid}" in told
    assert "Traceback" not in told
    assert checkpoint.latest(run) is None
    assert storage.read_text(run.config) == Path(config).read_text()
    assert not storage.exists(run.plan)


def test_workers_that_thaw_after_they_were_replaced(prepared: Prepared, undisturbed: RunLayout) -> None:
    """They train on, fail at their next commit because another has taken the run over, and end by themselves."""
    name = "thawed-workers"
    zombie = Attempt(prepared, name, arm=signal_in_step(5, ranks=(0, 1), number=STOP), train__timeout_s=300)
    zombie.wait_until_frozen((0, 1))
    zombie.signal(STOP)
    finish(prepared, name, debug__stop_after=9)
    zombie.signal(CONTINUE)
    for ended in zombie.wait():
        assert "attempt 2 has taken the run over" in str(ended.error)
    finish(prepared, name)
    assert_recovered(prepared, name, undisturbed)


def test_workers_that_thaw_after_their_run_was_removed_and_begun_anew(
    prepared: Prepared, undisturbed: RunLayout
) -> None:
    """The new run's attempt has the same number; the old workers learn at their next commit that it is not theirs."""
    name = "removed-and-begun-anew"
    zombie = Attempt(prepared, name, arm=signal_in_step(5, ranks=(0, 1), number=STOP), train__timeout_s=300)
    zombie.wait_until_frozen((0, 1))
    zombie.signal(STOP)
    storage.remove(RunLayout(prepared.root, name).url)
    finish(prepared, name, debug__stop_after=9)
    zombie.signal(CONTINUE)
    for ended in zombie.wait(went_on_from=0):
        assert "attempt 1 of removed-and-begun-anew ends: its claim is that of process" in str(ended.error)
    finish(prepared, name)
    assert_recovered(prepared, name, undisturbed)


# Step 3 makes rank 0's first five writes (file, manifest, the hint as text and as bytes, a record swept).
@pytest.mark.parametrize("number", [6, 7, 8], ids=["file", "manifest", "hint"])
def test_a_save_that_thaws_after_it_was_replaced(prepared: Prepared, undisturbed: RunLayout, number: int) -> None:
    """Frozen right before a write of step 6, it goes on when attempt 2 has committed that step and more."""
    name = f"thawed-save-{number}"
    run = RunLayout(prepared.root, name)
    zombie = Attempt(prepared, name, arm=partial(_freeze_at_write, number), train__timeout_s=300)
    wait_for(lambda: _frozen(run), "a frozen persister", limit_s=120)
    zombie.signal(STOP)
    committed = checkpoint.latest(run)
    assert committed is not None and committed.step == (3 if number < 8 else 6)
    finish(prepared, name, debug__stop_after=9)
    zombie.signal(CONTINUE)
    for ended in zombie.wait():
        assert "attempt 2 has taken the run over" in str(ended.error)
    wait_for_persisters(run)
    newest = checkpoint.latest(run)
    assert newest is not None and (newest.step, newest.attempt) == (9, 2)
    finish(prepared, name)
    assert_recovered(prepared, name, undisturbed)


def _freeze_at_write(number: int, worker: Any, job: Any) -> None:
    if worker.rank == 0:
        sys.path.insert(0, str(Path(__file__).parent / "killed_at_a_write"))
        os.environ["KILL_AT_WRITE"] = f"before {number} SIGSTOP"


def _frozen(run: RunLayout) -> bool:
    return any(_status(process) == psutil.STATUS_STOPPED for process in persisters(run))


def _status(process: psutil.Process) -> str:
    try:
        return process.status()
    except psutil.NoSuchProcess:
        return psutil.STATUS_DEAD
