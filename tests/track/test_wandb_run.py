"""wandb_run: one run in Weights & Biases over several commands, tested with its own offline files."""

from datetime import datetime
from functools import partial
from pathlib import Path

import pytest
from metric_rows import rows, store
from wandb_file import history, records

from scaletrain.config_track import WandbSection
from scaletrain.layout import RunLayout
from scaletrain.track.feed import Feed
from scaletrain.track.tracking import stored_rows
from scaletrain.track.wandb_run import WandbRun

pytest.importorskip("wandb")
OFFLINE = WandbSection(mode="offline", tags=("small",))


def follow(run: RunLayout, steps: range) -> None:
    """What one command does: rows come, and it ends."""
    sink = WandbRun(OFFLINE, run, config={"name": run.name, "train": {"steps": 6}})
    feed = Feed(sink, stored=partial(stored_rows, run))
    feed.add(rows(steps))
    feed.end("finished")
    feed.wait(60)


def offline_runs(run: RunLayout) -> list[Path]:
    return sorted(Path(run.track, "wandb").glob("offline-run-*/run-*.wandb"))


def test_several_commands_make_one_run_with_every_step_once(tmp_path: Path) -> None:
    """The id stays; a command that was killed left nothing, and the next one brings its steps from the bucket."""
    run = RunLayout(str(tmp_path / "bucket"), "logged")
    follow(run, range(1, 4))
    store(run, tmp_path / "killed", range(1, 6))
    follow(run, range(5, 8))
    first, second = offline_runs(run)
    assert first.name == second.name and first.name.startswith("run-logged-")
    assert [row["_step"] for row in history(first)] == [1, 2, 3]
    assert [row["_step"] for row in history(second)] == [4, 5, 6, 7]
    row = history(first)[1]
    assert (row["loss"], row["world_size"]) == (0.5, 2)


def test_a_row_that_comes_later_keeps_its_time(tmp_path: Path) -> None:
    """One that is read from the bucket is of when its step was."""
    run = RunLayout(str(tmp_path / "bucket"), "late")
    sink = WandbRun(OFFLINE, run, config={})
    assert sink.open() == 0
    moment = "2026-01-02T03:04:05.000+00:00"
    sink.send([{**rows([1])[0], "time": moment}])
    sink.close("stopped")
    (row,) = history(offline_runs(run)[0])
    assert row["_timestamp"] == datetime.fromisoformat(moment).timestamp()


def test_only_metrics_and_the_configuration_leave_the_machine(tmp_path: Path) -> None:
    """No command line, no output, no list of packages, no figures of this machine; and no log goes to the bucket."""
    run = RunLayout(str(tmp_path / "bucket"), "private")
    follow(run, range(1, 3))
    written = list(records(offline_runs(run)[0]))
    kinds = {record.WhichOneof("record_type") for record in written}
    assert kinds <= {"header", "run", "history", "summary", "telemetry", "config", "exit", "final"}
    text = offline_runs(run)[0].read_bytes()
    assert b"pytest" not in text and b"small" in text
    assert [each.run.host for each in written if each.WhichOneof("record_type") == "run"] == [""]
    assert {path.suffix for path in Path(run.track).rglob("*") if path.is_file()} == {".json", ".wandb"}
