"""goodput: the wall time of a run adds up whatever crashed, and each second goes where it was spent."""

import os
import signal
import time
import uuid
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaletrain import attempts, storage
from scaletrain.goodput import TimeAccount, account, readable, time_table
from scaletrain.layout import RunLayout, part_name
from workers import Prepared, make_job, make_prepared, run_processes

DAY = 1_800_000_000_000  # some moment, in milliseconds, as all times here


@dataclass(frozen=True)
class Step:
    length: int
    data_wait: int
    checkpoint_stall: int


@dataclass(frozen=True)
class Act:
    """What an attempt does; `goes_back` is how many of the steps so far it finds lost, `tail` what follows its steps.

    `end`: "done" (asked to stop, or at the last step), "lost" (a worker), "killed" (the whole command).
    """

    gap: int
    opening: int
    begins: bool
    goes_back: int
    steps: tuple[Step, ...]
    tail: int
    end: str


@pytest.fixture
def run(tmp_path: Path) -> RunLayout:
    return RunLayout(str(tmp_path), "run")


def stamp(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")


def write_claim(run: RunLayout, attempt: int, started: int, *, command: int) -> None:
    claim = {"started": stamp(started), "host": "h", "machine": "m", "pid": command, "process_started": 1}
    storage.write_bytes(run.attempt(attempt), orjson.dumps(claim))


def write_note(run: RunLayout, attempt: int, kind: str, when: int, **facts: object) -> None:
    storage.write_bytes(run.attempt_file(attempt, kind), orjson.dumps({"time": stamp(when), **facts}))


def write_steps(run: RunLayout, attempt: int, start: int, steps: dict[int, Step]) -> int:
    """Write a part of metrics whose first step begins at `start`; returns when the last one ends."""
    lines = []
    for number, step in steps.items():
        start += step.length
        lines.append(
            orjson.dumps(
                {
                    "step": number,
                    "time": stamp(start),
                    "step_s": step.length / 1000,
                    "data_wait_s": step.data_wait / 1000,
                    "checkpoint_stall_s": step.checkpoint_stall / 1000,
                }
            )
        )
    storage.write_bytes(storage.join(run.metrics, part_name(attempt, 1)), b"\n".join(lines))
    return start


def play(run: RunLayout, acts: list[Act]) -> Counter[str]:
    """Leave what such attempts leave in a bucket; returns the milliseconds that went into each part."""
    truth: Counter[str] = Counter()
    now, step, command = DAY, 0, 1
    trained: list[tuple[int, int, Step]] = []
    resumed_from: dict[int, int] = {}
    for attempt, act in enumerate(acts, start=1):
        before, newest = acts[attempt - 2].end if attempt > 1 else "", attempt == len(acts)
        now += act.gap if before else 0
        truth["recovery" if before == "lost" else "idle"] += act.gap if before else 0
        command += before == "killed"
        write_claim(run, attempt, now, command=command)
        opening = "recovery" if before == "lost" else "start up"
        now += act.opening
        truth[opening] += act.opening
        if act.begins:
            step = resumed_from[attempt] = max(0, step - act.goes_back)
            write_note(run, attempt, f"from-{step:08d}", now)
            own = {step + place: each for place, each in enumerate(act.steps, start=1)}
            now = write_steps(run, attempt, now, own) if own else now
            trained += [(attempt, number, each) for number, each in own.items()]
            step += len(own)
        unseen = "productive" if newest and act.steps else "lost work"
        tail = {"done": "shut down", "lost": "shut down" if newest else "recovery", "killed": unseen}[act.end]
        now += act.tail
        truth[opening if not act.begins or (newest and act.end == "killed" and not act.steps) else tail] += act.tail
        if act.end == "killed":
            write_note(run, attempt, "heartbeat", now)
        else:
            write_note(run, attempt, "ended", now, failed=act.end == "lost")
    for attempt, number, each in trained:
        if all(number <= first for later, first in resumed_from.items() if later > attempt):
            truth["checkpoint stall"] += each.checkpoint_stall
            truth["data wait"] += each.data_wait
            truth["productive"] += each.length - each.data_wait - each.checkpoint_stall
        else:
            truth["lost work"] += each.length
    return truth


LENGTHS = st.integers(0, 9_000)
STEPS = st.builds(lambda a, b, c: Step(a + b + c, b, c), LENGTHS, LENGTHS, LENGTHS)
ACTS = st.builds(
    lambda act: act if act.begins else Act(**{**vars(act), "steps": ()}),
    st.builds(
        Act,
        gap=st.integers(0, 10**8),
        opening=LENGTHS,
        begins=st.booleans() | st.just(value=True),
        goes_back=st.integers(0, 6),
        steps=st.lists(STEPS, max_size=5).map(tuple),
        tail=LENGTHS,
        end=st.sampled_from(["done", "lost", "killed"]),
    ),
)


def in_memory() -> RunLayout:
    return RunLayout(f"memory://{uuid.uuid4().hex}", "run")


def assert_adds_up(time: TimeAccount) -> None:
    """Law 9, closer than it asks for; no part is negative."""
    assert time.parts.total_s == pytest.approx(time.wall_s, abs=0.01)
    assert sum(one.parts.total_s for one in time.attempts) == pytest.approx(time.wall_s, abs=0.01)
    assert min(seconds for one in time.attempts for seconds in one.parts.by_name().values()) >= 0
    assert 0 <= time.goodput <= 1


@settings(max_examples=150, deadline=None)
@given(st.lists(ACTS, min_size=1, max_size=5))
def test_every_second_goes_where_it_was_spent(acts: list[Act]) -> None:
    """Over any history of stops, lost workers and kills, the account is what the attempts did."""
    run = in_memory()
    truth = play(run, acts)
    found = account(run)
    assert_adds_up(found)
    for name, seconds in found.parts.by_name().items():
        assert seconds == pytest.approx(truth[name] / 1000, abs=0.01), name
    storage.remove(run.root)


@settings(max_examples=150, deadline=None)
@given(st.lists(ACTS, min_size=1, max_size=4), st.data())
def test_it_adds_up_whatever_the_clocks_say_and_whatever_is_missing(acts: list[Act], data: st.DataObject) -> None:
    """Clocks of machines may differ by minutes, and any file but one may not be there."""
    run = in_memory()
    play(run, acts)
    for attempt in range(1, len(acts) + 1):
        write_claim(run, attempt, DAY + data.draw(st.integers(-(10**6), 10**6)), command=data.draw(st.integers(1, 2)))
    files = [info.url for info in storage.list_objects(run.url)]
    for url in data.draw(st.lists(st.sampled_from(files), unique=True, max_size=len(files) - 1)):
        storage.remove(url)
    found = account(run)
    if found.attempts:
        assert_adds_up(found)
    storage.remove(run.root)


def test_a_newer_attempt_s_time_is_its_own_even_if_an_older_one_still_trains(run: RunLayout) -> None:
    """What the older one does in vain meanwhile is no part of the wall time."""
    second = Step(1000, 0, 0)
    write_claim(run, 1, DAY, command=1)
    write_steps(run, 1, DAY + 1000, dict.fromkeys(range(1, 60), second))
    write_claim(run, 2, DAY + 6000, command=2)
    write_note(run, 2, "from-00000003", DAY + 8000)
    write_steps(run, 2, DAY + 8000, dict.fromkeys(range(4, 20), second))
    parts = account(run).parts
    assert (parts.start_up_s, parts.productive_s, parts.lost_work_s, parts.idle_s) == (3.0, 19.0, 2.0, 0.0)


def test_a_run_that_trains_has_no_lost_work_for_lines_on_their_way(run: RunLayout) -> None:
    """Lines come every ten seconds; where none comes for longer, the time counts as lost."""
    write_claim(run, 1, DAY, command=1)
    write_steps(run, 1, DAY, {1: Step(1000, 0, 0)})
    write_note(run, 1, "heartbeat", DAY + 11_000)
    assert account(run).parts.lost_work_s == 0
    write_note(run, 1, "heartbeat", DAY + 60_000)
    assert account(run).parts.lost_work_s == 48


def test_files_of_an_older_version_are_read(run: RunLayout) -> None:
    """They had no times but the claim's; the metrics tell the rest."""
    write_claim(run, 1, DAY, command=1)
    for kind, content in (("from-00000000", b""), ("heartbeat", b"17"), ("ended", b"")):
        storage.write_bytes(run.attempt_file(1, kind), content)
    write_steps(run, 1, DAY + 2000, {1: Step(6000, 1000, 0)})
    found = account(run)
    assert (found.wall_s, found.parts.start_up_s, found.parts.data_wait_s, found.goodput) == (8.0, 2.0, 1.0, 5 / 8)


def test_a_run_that_nobody_has_begun_has_no_time(run: RunLayout) -> None:
    """Nothing is divided by nothing."""
    assert account(run).record() == TimeAccount(0.0, 0.0, account(run).parts, ()).record()
    assert account(run).parts.total_s == 0


@pytest.mark.parametrize(
    ("seconds", "expected"), [(59.9, ""), (61, "1 min 01 s"), (3599.9, "1 h 00 min"), (190_000, "2 d 04 h")]
)
def test_long_times_are_readable(seconds: float, expected: str) -> None:
    """Nobody divides by 3600 in his head."""
    assert readable(seconds) == expected


def test_the_table_has_every_part_its_share_and_the_goodput(run: RunLayout) -> None:
    """Twenty seconds of which fifteen count."""
    from rich.console import Console

    write_claim(run, 1, DAY, command=1)
    write_steps(run, 1, DAY + 4000, {1: Step(16_000, 1000, 0)})
    console = Console(width=80)
    with console.capture() as capture:
        console.print(time_table(account(run)))
    text = capture.get()
    assert "goodput 75.0%" in text
    for name, share in (("start up", "20.0%"), ("data wait", "5.0%"), ("idle", "0.0%"), ("total", "100.0%")):
        assert share in next(line for line in text.splitlines() if name in line)


# --- real runs ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return make_prepared(tmp_path_factory.mktemp("bucket"))


def _train_by_the_clock(worker: Any, job: Any, folder: Path, dies_at: int) -> int:
    """Train, noting when rank 0 comes to the end of each step; there, in some step, it kills rank 1."""
    from scaletrain.train.loop import train

    (folder / f"pid-{worker.rank}").write_text(str(os.getpid()))
    calls = 0

    def should_stop() -> bool:
        nonlocal calls
        calls += 1
        with (folder / f"attempt-{job.attempt}").open("a") as file:
            file.write(f"{time.time()}\n")
        time.sleep(0.1)
        if calls == dies_at:
            os.kill(int((folder / "pid-1").read_text()), signal.SIGKILL)
        return False

    return train(job, worker, should_stop=should_stop)


def run_attempt(prepared: Prepared, folder: Path, *, stop_after: int, dies_at: int = 0) -> tuple[list[float], ...]:
    """Run an attempt as a command does; returns this test's times before and after its claim and its end."""
    layout, marks = RunLayout(prepared.root, "timed"), [time.time()]
    attempt = attempts.claim(layout)
    marks.append(time.time())
    settings = {"checkpoint__every_steps": 5, "debug__stop_after": stop_after}
    job = make_job(prepared, "timed", attempt=attempt, **settings)
    try:
        with attempts.Heartbeat(layout, attempt):
            try:
                run_processes(2, _train_by_the_clock, job, folder, dies_at)
            finally:
                marks.append(time.time())
    except (AssertionError, RuntimeError):  # "workers ended with exit codes", or gloo's "closed by peer"
        assert dies_at
    marks.append(time.time())
    return marks, [float(line) for line in (folder / f"attempt-{attempt}").read_text().split()]


def test_the_account_of_a_real_run_agrees_with_this_test_s_clock(prepared: Prepared, tmp_path: Path) -> None:
    """A worker is killed in step 8 with step 5 committed; 6 and 7 are done again; later the run is left and gone on."""
    one, first_steps = run_attempt(prepared, tmp_path, stop_after=20, dies_at=8)
    two, second_steps = run_attempt(prepared, tmp_path, stop_after=10)
    time.sleep(1.0)
    three, third_steps = run_attempt(prepared, tmp_path, stop_after=20)
    found = account(RunLayout(prepared.root, "timed"))
    parts = found.parts
    assert_adds_up(found)
    assert [(one.steps, one.lost_steps) for one in found.attempts] == [(7, 2), (5, 0), (10, 0)]
    assert three[2] - one[1] <= found.wall_s + 0.01 <= three[3] - one[0] + 0.02
    assert three[0] - two[3] <= parts.idle_s + 0.01 <= three[1] - two[2] + 0.02
    assert first_steps[6] - first_steps[5] <= parts.lost_work_s + 0.01 <= first_steps[7] - first_steps[4] + 0.02
    assert two[0] - first_steps[7] <= parts.recovery_s + 0.01 <= second_steps[0] - first_steps[6] + 0.02
    assert parts.start_up_s + 0.01 <= first_steps[0] - one[0] + third_steps[0] - three[0] + 0.02
    worked = [times[-1] - times[0] for times in (first_steps[:5], second_steps, third_steps)]
    assert sum(worked) <= parts.productive_s + parts.data_wait_s + parts.checkpoint_stall_s + 0.01
