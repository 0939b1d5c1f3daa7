"""commits: the newest that is whole is the latest, and pruning never removes the one that a resume needs."""

import pytest

from saved_checkpoint import save
from scaletrain import checkpoint, storage
from scaletrain.errors import NotFoundError
from scaletrain.layout import RunLayout


def test_latest_ignores_an_uncommitted_step(run: RunLayout) -> None:
    """A folder without a manifest was never committed."""
    save(run, 10)
    checkpoint.write_shard(run.checkpoint(20), "rank-00000.safetensors", [])
    newest = checkpoint.latest(run)
    assert newest is not None
    assert newest.step == 10


@pytest.mark.parametrize("damage", ["garbage", "changed", "empty", "short file", "missing file"])
def test_latest_falls_back_to_the_newest_that_verifies(run: RunLayout, damage: str) -> None:
    """A manifest that is damaged, or whose files are not whole, does not hide the commit before it."""
    save(run, 10)
    save(run, 20)
    folder = storage.local_path(run.checkpoint(20))
    manifest = folder / checkpoint.MANIFEST
    shard = folder / "rank-00001.safetensors"
    if damage == "garbage":
        manifest.write_bytes(b"\x00not json")
    elif damage == "changed":
        manifest.write_bytes(manifest.read_bytes().replace(b'"samples_seen": 160', b'"samples_seen": 168'))
    elif damage == "empty":
        manifest.write_bytes(b"")
    elif damage == "short file":
        shard.write_bytes(shard.read_bytes()[:-1])
    else:
        shard.unlink()
    newest = checkpoint.latest(run)
    assert newest is not None
    assert newest.step == 10


def test_prune_keeps_the_newest_and_sweeps_what_was_never_committed(run: RunLayout) -> None:
    """keep=2 leaves two commits, removes older ones and old leftovers, and spares a save that is under way."""
    for step in (10, 20, 30, 40):
        save(run, step)
    for step in (15, 50):
        checkpoint.write_shard(run.checkpoint(step), "rank-00000.safetensors", [])
    assert checkpoint.prune(run, keep=2) == [20, 15, 10]
    assert storage.list_folders(run.checkpoints) == ["step-00000030", "step-00000040", "step-00000050"]


def test_prune_counts_only_checkpoints_that_can_be_loaded(run: RunLayout) -> None:
    """A damaged commit does not push out the one that a resume would need."""
    for step in (10, 20):
        save(run, step)
    (storage.local_path(run.checkpoint(20)) / "rank-00000.safetensors").unlink()
    checkpoint.prune(run, keep=1)
    newest = checkpoint.latest(run)
    assert newest is not None
    assert newest.step == 10


def test_a_run_without_checkpoints_has_no_latest(run: RunLayout) -> None:
    """Nothing there is an answer, not an error; asking for one by name is."""
    assert checkpoint.latest(run) is None
    with pytest.raises(NotFoundError):
        checkpoint.load_manifest(run.checkpoint(10))
