"""runs: the bucket alone tells which runs there are and how far each one is."""

from pathlib import Path

import pytest

from saved_checkpoint import save
from scaletrain import attempts, runs, storage
from scaletrain.cost import cost_account
from scaletrain.errors import NotFoundError
from scaletrain.goodput import account
from scaletrain.layout import RunLayout


def make_run(root: Path, name: str, *, steps: tuple[int, ...]) -> RunLayout:
    layout = RunLayout(str(root), name)
    storage.write_text(layout.config, "name: x\n")
    for step in steps:
        save(layout, step)
    return layout


def test_runs_are_listed_with_their_newest_commit(tmp_path: Path) -> None:
    """A damaged checkpoint is shown as such and does not count as the newest."""
    make_run(tmp_path, "alpha", steps=(10,))
    beta = make_run(tmp_path, "beta", steps=(10, 20))
    (storage.local_path(beta.checkpoint(20)) / "rank-00000.safetensors").unlink()
    found = runs.list_runs(str(tmp_path))
    assert [(run.name, run.step) for run in found] == [("alpha", 10), ("beta", 10)]
    assert "is missing" in found[1].checkpoints[1].problem


def test_a_run_is_shown_with_where_its_time_went(tmp_path: Path) -> None:
    """The table comes with the first attempt; before it there is no time to speak of."""
    from rich.console import Console

    layout = make_run(tmp_path, "alpha", steps=(10,))
    console = Console(width=100)
    texts = []
    for _ in range(2):
        time = account(layout)
        with console.capture() as capture:
            console.print(runs.run_display(runs.read_run(layout), time, cost_account(layout, time)))
        texts.append(capture.get())
        attempts.claim(layout)
    assert "step 10 committed" in texts[0] and "goodput" not in texts[0]
    assert "1 attempts" in texts[1] and "goodput 0.0%" in texts[1]
    assert "cost: unknown" in texts[1] and "cost" not in texts[0]


def test_a_run_that_is_not_there_is_named(tmp_path: Path) -> None:
    """The message says where it was looked for."""
    with pytest.raises(NotFoundError, match=r"there is no run at .*/runs/none"):
        runs.read_run(RunLayout(str(tmp_path), "none"))


@pytest.mark.parametrize("name", ["mine", "s3://bucket/team/runs/mine", "s3://bucket/team/runs/mine/"])
def test_a_run_is_found_by_name_or_url(name: str) -> None:
    """A run's URL says its root; a name belongs to the root that was given."""
    assert runs.find_run(name, root="s3://bucket/team") == RunLayout("s3://bucket/team", "mine")
