"""runs: the bucket alone tells which runs there are and how far each one is."""

from pathlib import Path

import pytest

from saved_checkpoint import save
from scaletrain import runs, storage
from scaletrain.errors import NotFoundError
from scaletrain.layout import RunLayout


def make_run(root: Path, name: str, *, steps: tuple[int, ...]) -> RunLayout:
    layout = RunLayout(str(root), name)
    storage.write_text(layout.config, "name: x\n")
    for step in steps:
        save(layout, step)
    return layout


def test_a_damaged_checkpoint_is_shown_as_such(tmp_path: Path) -> None:
    """It does not count as the newest."""
    beta = make_run(tmp_path, "beta", steps=(10, 20))
    (storage.local_path(beta.checkpoint(20)) / "rank-00000.safetensors").unlink()
    found = runs.read_run(beta)
    assert found.step == 10
    assert "is missing" in found.checkpoints[1].problem


def test_a_run_that_is_not_there_is_named(tmp_path: Path) -> None:
    """The message says where it was looked for."""
    with pytest.raises(NotFoundError, match=r"there is no run at .*/runs/none"):
        runs.read_run(RunLayout(str(tmp_path), "none"))


@pytest.mark.parametrize(
    ("there", "told"),
    [
        (("chitchat-small", "other"), "did you mean chitchat-small?"),
        (("something", "other"), "`scaletrain runs {root}` lists those that there are"),
        ((), "`scaletrain train CONFIG` begins one; another storage root is named by --root"),
    ],
)
def test_what_to_do_about_a_run_that_is_not_there(tmp_path: Path, there: tuple[str, ...], told: str) -> None:
    """A name that comes near, or where to look, or how one is begun."""
    for name in there:
        make_run(tmp_path, name, steps=())
    with pytest.raises(NotFoundError) as raised:
        runs.check_exists(RunLayout(str(tmp_path), "chitchat-smal"))
    assert told.format(root=tmp_path) in str(raised.value)


def test_a_run_that_was_only_evaluated_is_not_proposed_in_its_own_place(tmp_path: Path) -> None:
    """Its folder is there, with what the model before training answered; what is missing is the training."""
    run = RunLayout(str(tmp_path), "mine")
    storage.write_bytes(storage.join(run.evaluation, "base.json"), b"{}")
    with pytest.raises(NotFoundError, match="has not begun to train; `scaletrain train CONFIG`"):
        runs.check_exists(run)


@pytest.mark.parametrize("name", ["mine", "s3://bucket/team/runs/mine", "s3://bucket/team/runs/mine/"])
def test_a_run_is_found_by_name_or_url(name: str) -> None:
    """A run's URL says its root; a name belongs to the root that was given."""
    assert runs.find_run(name, root="s3://bucket/team") == RunLayout("s3://bucket/team", "mine")
