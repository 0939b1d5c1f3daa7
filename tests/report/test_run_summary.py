"""run_summary, run_history and run_display: what a list and a terminal say of runs, told by the bucket alone."""

import time
from pathlib import Path

import pytest
from written_run import FAULTY, Act, stamp, write_run

from scaletrain import attempts, run_summary, storage
from scaletrain.layout import RunLayout, part_name
from scaletrain.run_display import attempt_line, run_display, runs_table, sparkline
from scaletrain.run_history import read_history
from scaletrain.run_summary import list_summaries
from scaletrain.runs import read_run


def text_of(display: object, width: int = 160) -> str:
    from rich.console import Console

    console = Console(width=width)
    with console.capture() as capture:
        console.print(display)
    return capture.get()


def shown_run(run: RunLayout) -> str:
    return text_of(run_display(read_run(run), read_history(run)))


def test_a_run_is_told_in_a_row(bucket_root: str) -> None:
    """How far, how good, how fast, and for how much; tokens count lost work too, as they were paid for."""
    write_run(bucket_root, "faulty")
    (found,) = list_summaries(bucket_root)
    assert (found.status, found.step, found.last_step, found.total_steps) == ("finished", 100, 100, 100)
    assert (found.workers, found.attempts) == (3, 4)
    assert found.tokens == 500 * (40 + 28 + 20 + 28)
    assert found.validation_perplexity == pytest.approx(40 / 2.718281828, rel=1e-6)
    assert 0.5 < (found.goodput or 0) < 1
    assert found.last_step_at is not None and found.cost_usd is not None
    assert "config" not in found.record()


@pytest.mark.parametrize(
    ("acts", "status"),
    [
        ((), "new"),
        ((Act(1, 100),), "finished"),
        ((Act(1, 60),), "stopped"),
        ((Act(1, 60, end="lost"),), "failed"),
        ((Act(1, 60, end="killed"),), "killed"),
    ],
)
def test_the_status_is_how_the_newest_attempt_stands(tmp_path: Path, acts: tuple[Act, ...], status: str) -> None:
    """Whatever became of those before."""
    write_run(tmp_path, "one", acts=acts)
    assert list_summaries(str(tmp_path))[0].status == status


def test_a_run_whose_process_lives_is_training(tmp_path: Path) -> None:
    """On this machine that is known at once; of another one its heartbeat tells."""
    here = write_run(tmp_path, "here", acts=(Act(1, 60, end="killed"),))
    attempts.claim(here)
    there = write_run(tmp_path, "there", acts=(Act(1, 60, end="killed"),))
    storage.write_text(there.attempt_file(1, "heartbeat"), f'{{"time": "{stamp(time.time())}"}}')
    assert [run.status for run in list_summaries(str(tmp_path))] == ["training", "training"]


def test_a_run_that_cannot_be_read_is_a_row_that_says_why(tmp_path: Path) -> None:
    """And hides no other."""
    write_run(tmp_path, "good", acts=(Act(1, 8),))
    torn = write_run(tmp_path, "torn", acts=(Act(1, 8),))
    storage.write_text(torn.config, "a: [")
    halved = write_run(tmp_path, "halved", acts=(Act(1, 8),))
    storage.write_text(storage.join(halved.metrics, part_name(1, 1)), '{"step": ')
    found = list_summaries(str(tmp_path))
    assert [run.status for run in found] == ["stopped", "unreadable", "unreadable"]
    shown = text_of(runs_table(found, hidden=0, root="r"), width=240)
    assert "is not lines of JSON" in shown and "check brackets" in shown


def test_a_long_run_is_listed_by_its_newest_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tokens and goodput are read where they are asked for."""
    run = write_run(tmp_path, "long", acts=(Act(1, 60),))
    whole = storage.read_bytes(storage.join(run.metrics, part_name(1, 1))).splitlines()
    for part, line in enumerate(whole, start=1):
        storage.write_bytes(storage.join(run.metrics, part_name(1, part)), line)
    monkeypatch.setattr(run_summary, "_FILES_READ", 50)
    (quick,), (full,) = list_summaries(str(tmp_path)), list_summaries(str(tmp_path), full=True)
    assert quick.tokens is None and quick.goodput is None
    assert full.tokens == 500 * 60 and full.goodput is not None
    assert (quick.loss, quick.validation_perplexity) == (full.loss, full.validation_perplexity)
    assert "--full" in text_of(runs_table([quick], hidden=0, root="r"))


def test_every_attempt_has_its_story(tmp_path: Path) -> None:
    """From where, on how many workers, how it ended, and what was lost, also in money."""
    history = read_history(write_run(tmp_path, "faulty", acts=FAULTY))
    assert [each.end for each in history.attempts] == ["lost", "regrouped", "killed", "finished"]
    assert [(each.from_step, each.workers, each.lost_steps) for each in history.attempts] == [
        *((0, 2, 8), (32, 1, 0)),
        *((60, 3, 8), (72, 3, 0)),
    ]
    assert len(history.faults) == 2
    lost_usd = history.time.parts.lost_work_s / 3600 * 3.6
    assert history.cost.lost_work_usd == pytest.approx(lost_usd, abs=1e-6)
    assert sum(each.lost_usd or 0.0 for each in history.attempts) == pytest.approx(lost_usd)
    assert history.lines.steps.tolist() == list(range(1, 101))
    assert attempt_line(history.attempts[0]).endswith("40 steps; a worker was lost; 8 steps lost")


def test_a_run_is_shown_with_its_loss_progress_and_faults(tmp_path: Path) -> None:
    """In one screen of a terminal."""
    run = write_run(tmp_path, "half", acts=(Act(1, 40, end="lost"), Act(33, 60, workers=1)))
    shown = text_of(shown_run(run))
    for part in (
        *("half: stopped, step 60 committed", "step 60 of 100, 60%, about 1 min 20 s left once it goes on"),
        *("1 fault:", "attempt 2: from step 32 on 1 worker", "cost: $", "stage=2"),
        *("goodput", "scaletrain report"),
    ):
        assert part in shown, part
    assert any(block in shown for block in "▁▂▃")


def test_a_run_that_has_only_begun_is_shown_too(tmp_path: Path) -> None:
    """Without a step there is no loss and no time to speak of."""
    run = write_run(tmp_path, "new", acts=())
    shown = text_of(shown_run(run))
    assert "new: new, step 0 committed" in shown and "fault" not in shown


def test_an_empty_root_says_what_to_do(tmp_path: Path) -> None:
    """So does a condition that no run meets."""
    assert "scaletrain train CONFIG" in text_of(runs_table([], hidden=0, root=str(tmp_path)))
    assert "no run matches" in text_of(runs_table([], hidden=3, root=str(tmp_path)))


def test_a_sparkline_shows_the_course() -> None:
    """Falling is falling, level is level, and one value is no course."""
    assert sparkline([3.0, 2.0, float("nan"), 1.0]) == "█▅▁"
    assert sparkline([1.0] * 200) == "▁" * 60
    assert sparkline([1.0]) == sparkline([]) == ""
