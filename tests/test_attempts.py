"""attempts: one number for each, one trainer at a time, and only what was gone on from counts."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import orjson
import pytest

from commands import wait_for
from scaletrain import attempts, storage
from scaletrain.errors import TrainingError
from scaletrain.layout import RunLayout

HOLD = """
import sys, time
from scaletrain import attempts
from scaletrain.layout import RunLayout
run = RunLayout(*sys.argv[1:])
with attempts.Heartbeat(run, attempts.claim(run)):
    print("claimed", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def run(tmp_path: Path) -> RunLayout:
    return RunLayout(str(tmp_path), "run")


@pytest.fixture
def other(run: RunLayout) -> Iterator["subprocess.Popen[str]"]:
    """Another process of this machine that trains the run."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, run.root, run.name], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "claimed\n"
    yield process
    process.kill()
    process.communicate()


def pretend_elsewhere(run: RunLayout, attempt: int) -> None:
    """Rewrite a claim as if another machine had made it."""
    claim = orjson.loads(storage.read_bytes(run.attempt(attempt)))
    storage.write_bytes(run.attempt(attempt), orjson.dumps({**claim, "machine": "another", "host": "another"}))


def test_many_claims_at_once_get_a_number_each(run: RunLayout) -> None:
    """Sixteen threads claim at once; nobody shares a number and none is left out."""
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(attempts.claim(run))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == list(range(1, 17))


def test_what_counts_ends_where_a_later_attempt_went_on(run: RunLayout) -> None:
    """Attempt 1 counts up to the earliest step that a later one went on from."""
    for attempt, step in ((2, 30), (3, 20)):
        attempts.begin(run, attempt, step)
    known = attempts.read_attempts(run)
    assert [known.last_step_of(attempt) for attempt in (1, 2, 3)] == [20, 20, None]
    assert known.counts(1, 20) and not known.counts(1, 21) and known.counts(3, 10**6)


def test_a_second_trainer_on_this_machine_is_refused_at_once(run: RunLayout, other: "subprocess.Popen[str]") -> None:
    """The message names the process, and what to do."""
    with pytest.raises(
        TrainingError, match=rf"being trained at this moment: attempt 1, process {other.pid} .* Stop it"
    ):
        attempts.refuse_a_second(run)


def test_a_dead_process_of_this_machine_is_taken_over_at_once(
    run: RunLayout, other: "subprocess.Popen[str]", monkeypatch: pytest.MonkeyPatch
) -> None:
    """After SIGKILL the same command just works: nobody is waited for."""
    other.send_signal(signal.SIGKILL)
    other.wait()
    monkeypatch.setattr(attempts, "_SILENT_S", 1e9)
    attempts.refuse_a_second(run)


def test_a_pid_that_was_given_to_another_process_is_no_trainer(run: RunLayout) -> None:
    """The process that has the pid now started at another moment."""
    attempts.claim(run)
    claim = attempts.Claim(**orjson.loads(storage.read_bytes(run.attempt(1))))
    reused = replace(claim, pid=os.getppid(), process_started=claim.process_started + 1)
    storage.write_bytes(run.attempt(1), orjson.dumps(asdict(reused)))
    attempts.refuse_a_second(run)


def test_a_trainer_elsewhere_is_known_by_its_heartbeat(
    run: RunLayout, other: "subprocess.Popen[str]", monkeypatch: pytest.MonkeyPatch
) -> None:
    """A beat that comes while it is watched refuses; one that stands still frees the run."""
    pretend_elsewhere(run, 1)
    monkeypatch.setattr(attempts, "_SILENT_S", 3.0)
    wait_for(lambda: storage.exists(run.attempt_file(1, "heartbeat")), "a heartbeat")
    attempts.refuse_a_second(run)
    beating = threading.Timer(0.5, lambda: storage.write_bytes(run.attempt_file(1, "heartbeat"), b"next"))
    beating.start()
    with pytest.raises(TrainingError, match="on another"):
        attempts.refuse_a_second(run)
    beating.join()


def test_an_attempt_that_ended_is_not_watched(run: RunLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has said that it ended is asked nothing."""
    with attempts.Heartbeat(run, attempts.claim(run)):
        pass
    pretend_elsewhere(run, 1)
    monkeypatch.setattr(attempts, "_SILENT_S", 1e9)
    attempts.refuse_a_second(run)
    assert attempts.read_attempts(run).ended == (1,)


def test_an_attempt_leaves_when_it_was_claimed_began_and_ended(run: RunLayout) -> None:
    """The times are in order, and it is known whether an error ended it."""
    with pytest.raises(ZeroDivisionError), attempts.Heartbeat(run, attempts.claim(run)):
        attempts.begin(run, 1, 0)
        raise ZeroDivisionError
    with attempts.Heartbeat(run, attempts.claim(run)):
        wait_for(lambda: storage.exists(run.attempt_file(2, "heartbeat")), "a heartbeat")
        signs = attempts.read_signs(run, attempts.read_attempts(run))
    times = [signs[1].claimed, signs[1].began, signs[1].ended, signs[2].claimed, signs[2].heartbeat]
    assert None not in times
    assert times == sorted(times, key=float)
    assert signs[1].failed and signs[1].heartbeat is None and signs[2].ended is None
    assert signs[1].claim is not None and signs[1].claim.pid == os.getpid()


def test_an_attempt_that_was_taken_over_learns_of_it(run: RunLayout) -> None:
    """The newest goes on; an older one has to end."""
    assert [attempts.claim(run), attempts.claim(run)] == [1, 2]
    attempts.check_newest(run, 2)
    with pytest.raises(TrainingError, match="attempt 2 has taken the run over"):
        attempts.check_newest(run, 1)


def test_beginning_removes_records_that_a_killed_worker_left_half_written(run: RunLayout) -> None:
    """They are in no listing, so nobody else would ever remove them; whole parts stay."""
    folder = storage.local_path(run.ledger)
    folder.mkdir(parents=True)
    for name in (".0123456789abcdef.partial", "attempt-0001.part-0001.jsonl"):
        (folder / name).write_bytes(b"{}")
    attempts.begin(run, 2, 10)
    assert [path.name for path in folder.iterdir()] == ["attempt-0001.part-0001.jsonl"]
