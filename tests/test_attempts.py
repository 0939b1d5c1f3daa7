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
from scaletrain.attempts import life
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
    monkeypatch.setattr(life, "_SILENT_S", 1e9)
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
    monkeypatch.setattr(life, "_SILENT_S", 3.0)
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
    monkeypatch.setattr(life, "_SILENT_S", 1e9)
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


def begin_anew(run: RunLayout) -> None:
    """A run that somebody trained is removed, and its name is used again: both have attempt 1, by other claims."""
    assert attempts.claim(run, nonce="old") == 1
    storage.remove(run.url)
    assert attempts.claim(run, nonce="new") == 1


def test_an_attempt_whose_run_was_removed_learns_of_it(run: RunLayout) -> None:
    """Whether or not another has taken the same number since: it does not begin, and has to end."""
    attempts.claim(run, nonce="old")
    storage.remove(run.url)
    with pytest.raises(TrainingError, match="attempt 1 of run ends: its claim is gone, since the run was removed"):
        attempts.check_newest(run, 1, "old")
    attempts.claim(run, nonce="new")
    attempts.check_newest(run, 1, "new")
    with pytest.raises(TrainingError, match=f"its claim is that of process {os.getpid()} on "):
        attempts.begin(run, 1, 40, after=1, nonce="old")
    assert attempts.read_attempts(run).resumed_from == {}


def test_the_heart_of_a_removed_run_does_not_beat_for_another(run: RunLayout) -> None:
    """An old driver neither keeps the new attempt alive nor says that it has ended."""
    begin_anew(run)
    with attempts.Heartbeat(run, 1, nonce="old") as old:
        old._thread.join(timeout=60)  # it ends by itself
        assert not old._thread.is_alive()
    assert [info.url for info in storage.list_objects(run.attempts)] == [run.attempt(1)]
    with attempts.Heartbeat(run, 1, nonce="new"):
        wait_for(lambda: storage.exists(run.attempt_file(1, "heartbeat")), "a heartbeat")
    assert attempts.read_attempts(run).ended == (1,)


def test_a_claim_right_after_another_is_refused_once_somebody_came_between(run: RunLayout) -> None:
    """A driver that looked, and then waited or stood still, does not take the run from who has begun meanwhile."""
    assert attempts.claim(run, after=attempts.refuse_a_second(run)) == 1
    assert [attempts.claim(run), attempts.claim(run)] == [2, 3]
    with pytest.raises(TrainingError, match="run is being trained at this moment: attempt 2, process"):
        attempts.claim(run, after=1)
    assert attempts.claim(run, after=3) == 4


def test_the_word_of_an_attempt_that_begins_late_does_not_count(run: RunLayout) -> None:
    """Attempt 3 went on from what attempt 1 had committed last; attempt 2 had not seen it, and says so too late."""
    attempts.begin(run, 1, 0, after=0)
    attempts.begin(run, 3, 6, after=1)
    attempts.begin(run, 2, 3, after=1)
    known = attempts.read_attempts(run)
    assert [known.last_step_of(attempt) for attempt in (1, 2, 3)] == [6, 3, None]
    attempts.begin(run, 4, 3, after=1)  # step 6 turned out to be damaged
    known = attempts.read_attempts(run)
    assert [known.last_step_of(attempt) for attempt in (1, 2, 3, 4)] == [3, 3, 3, None]


def test_a_word_that_took_long_to_arrive_is_taken_back(run: RunLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    """A newer attempt was claimed while the store kept the older one waiting."""
    create = storage.create

    def create_slowly(url: str, data: bytes) -> bool:
        monkeypatch.setattr(storage, "create", create)
        assert attempts.claim(run) == 2
        return create(url, data)

    attempts.claim(run)
    monkeypatch.setattr(storage, "create", create_slowly)
    with pytest.raises(TrainingError, match="attempt 2 has taken the run over"):
        attempts.begin(run, 1, 30, after=0)
    assert attempts.read_attempts(run).resumed_from == {}
