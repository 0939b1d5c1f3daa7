"""commits: the newest that is whole is the latest, and pruning never removes the one that a resume needs."""

from dataclasses import replace

import pytest

from saved_checkpoint import save, write_shard
from scaletrain import attempts, checkpoint, storage
from scaletrain.checkpoint import commits
from scaletrain.errors import DamagedError, NotFoundError, TrainingError
from scaletrain.layout import RunLayout


def test_latest_ignores_an_uncommitted_step(run: RunLayout) -> None:
    """A folder without a manifest was never committed."""
    save(run, 10)
    write_shard(run.checkpoint(20), "rank-00000.safetensors", [])
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


@pytest.mark.parametrize("damage", ["missing file", "short file", "garbage"])
def test_a_run_whose_only_checkpoint_is_not_whole_is_no_new_run(run: RunLayout, damage: str) -> None:
    """None would have it begin anew, and remove what can be mended; whoever only looks gets None."""
    save(run, 10)
    save(run, 20)
    storage.remove(run.checkpoint(10))
    shard = storage.local_path(run.checkpoint(20)) / "rank-00001.safetensors"
    if damage == "missing file":
        shard.unlink()
    elif damage == "short file":
        shard.write_bytes(shard.read_bytes()[:-1])
    else:
        storage.write_bytes(storage.join(run.checkpoint(20), checkpoint.MANIFEST), b"garbage")
    with pytest.raises(DamagedError, match=r"no checkpoint of .* is whole: .*step-00000020.* Bring an older version"):
        checkpoint.latest(run)
    assert checkpoint.newest_whole(run) is None


def test_a_checkpoint_that_is_replaced_while_it_is_looked_for(run: RunLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    """With keep=1 the step that was listed is gone once it is read, and a newer one is there."""
    save(run, 10)
    list_folders = storage.list_folders

    def list_and_replace(url: str) -> list[str]:
        listed = list_folders(url)
        if listed == ["step-00000010"]:
            save(run, 20)
            storage.remove(run.checkpoint(10))
        return listed

    monkeypatch.setattr(storage, "list_folders", list_and_replace)
    newest = checkpoint.latest(run)
    assert newest is not None and newest.step == 20


def test_prune_keeps_the_newest_and_sweeps_what_was_never_committed(run: RunLayout) -> None:
    """keep=2 leaves two commits and the save that is under way; older commits and all leftovers go."""
    for step in (10, 20, 30, 40):
        save(run, step)
    for step, attempt in ((15, 1), (50, 2), (60, 1)):
        write_shard(run.checkpoint(step), f"attempt-{attempt:04d}.rank-00000-of-00001.safetensors", [])
    assert checkpoint.prune(run, keep=2, attempt=2) == [60, 20, 15, 10]
    assert storage.list_folders(run.checkpoints) == ["step-00000030", "step-00000040", "step-00000050"]


def test_prune_leaves_a_commit_that_comes_meanwhile(run: RunLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempt 2 tidies up, stands still, and thaws when attempt 3 has committed the step that was abandoned."""
    save(run, 10)
    write_shard(run.checkpoint(20), "attempt-0001.rank-00000-of-00002.safetensors", [])
    list_objects = storage.list_objects

    def list_and_commit(url: str) -> list[storage.ObjectInfo]:
        listed = list_objects(url)
        if url == run.checkpoint(20):
            monkeypatch.setattr(storage, "list_objects", list_objects)
            save(run, 20, attempt=3)
        return listed

    monkeypatch.setattr(storage, "list_objects", list_and_commit)
    checkpoint.prune(run, keep=1, attempt=2)
    assert checkpoint.verify(run.checkpoint(20)).attempt == 3


def test_prune_ends_where_a_newer_attempt_has_come(run: RunLayout) -> None:
    """What it found to be of no use may be what the newer one goes on from."""
    for step in (10, 20):
        save(run, step)
    assert [attempts.claim(run), attempts.claim(run)] == [1, 2]
    with pytest.raises(TrainingError, match="attempt 2 has taken the run over"):
        checkpoint.prune(run, keep=1, attempt=1)
    assert checkpoint.verify(run.checkpoint(10)).step == 10


def test_prune_leaves_what_another_rank_stores_meanwhile(run: RunLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempt 1 left a file of step 20; rank 1 of attempt 2 comes to that step once prune has looked there."""
    save(run, 10)
    write_shard(run.checkpoint(20), "attempt-0001.rank-00000-of-00002.safetensors", [])
    list_objects, ours = storage.list_objects, "attempt-0002.rank-00001-of-00002.safetensors"

    def list_and_store(url: str) -> list[storage.ObjectInfo]:
        listed = list_objects(url)
        if url == run.checkpoint(20):
            write_shard(url, ours, [])
        return listed

    monkeypatch.setattr(storage, "list_objects", list_and_store)
    assert checkpoint.prune(run, keep=1, attempt=2) == [20]
    assert [info.url.rsplit("/", 1)[-1] for info in list_objects(run.checkpoint(20))] == [ours]


def test_a_commit_of_an_attempt_that_was_taken_over_does_not_count(run: RunLayout) -> None:
    """What attempt 1 commits beyond the step that attempt 2 went on from is passed over, however late it comes."""
    save(run, 10)
    attempts.begin(run, 2, 10)
    save(run, 20)
    newest = checkpoint.latest(run)
    assert newest is not None
    assert newest.step == 10


def test_an_attempt_that_was_taken_over_never_replaces_a_commit(run: RunLayout) -> None:
    """Both come to step 20; the newer attempt's commit stays, whoever is first."""
    old = save(run, 20)
    newer = checkpoint.commit(run.checkpoint(20), replace(old, attempt=2))
    with pytest.raises(TrainingError, match="attempt 2 has taken the run over"):
        checkpoint.commit(run.checkpoint(20), old)
    assert checkpoint.load_manifest(run.checkpoint(20)) == newer


def test_what_comes_while_a_commit_looks_is_not_replaced(run: RunLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempt 2 finds attempt 1's manifest, which it may replace; before it does, attempt 3's is there."""
    first = save(run, 20)
    load_manifest = commits.load_manifest

    def load_and_be_late(url: str) -> checkpoint.Manifest:
        monkeypatch.setattr(commits, "load_manifest", load_manifest)
        found = load_manifest(url)
        checkpoint.commit(run.checkpoint(20), replace(first, attempt=3))
        return found

    monkeypatch.setattr(commits, "load_manifest", load_and_be_late)
    with pytest.raises(TrainingError, match="attempt 3 has taken the run over"):
        checkpoint.commit(run.checkpoint(20), replace(first, attempt=2))
    assert checkpoint.load_manifest(run.checkpoint(20)).attempt == 3


def test_a_commit_asks_before_it_replaces(run: RunLayout) -> None:
    """Of two attempts with one number, the one that has the claim replaces the other's manifest, never the reverse."""
    there = save(run, 20)
    attempts.claim(run, nonce="mine")
    with pytest.raises(TrainingError, match="its claim is that of process"):
        checkpoint.commit(
            run.checkpoint(20), replace(there, zero_stage=3), check=lambda: attempts.check_newest(run, 1, "another's")
        )
    assert checkpoint.load_manifest(run.checkpoint(20)) == there
    mine = checkpoint.commit(
        run.checkpoint(20), replace(there, zero_stage=3), check=lambda: attempts.check_newest(run, 1, "mine")
    )
    assert checkpoint.load_manifest(run.checkpoint(20)) == mine


def test_a_step_that_was_gone_on_from_counts_whatever_comes_late(run: RunLayout) -> None:
    """Attempt 1 commits step 20 after attempt 2 looked; attempt 3 goes on from there; then attempt 2 begins at 10."""
    save(run, 10)
    save(run, 20)
    attempts.begin(run, 3, 20, after=1)
    attempts.begin(run, 2, 10, after=1)
    newest = checkpoint.latest(run)
    assert newest is not None and newest.step == 20


def test_a_stale_listing_does_not_hide_the_newest(run: RunLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that lists neither the newest folder nor its files is asked for them by name."""
    save(run, 10)
    save(run, 20)
    storage.write_text(run.newest_hint, "20")
    list_folders, list_objects = storage.list_folders, storage.list_objects
    monkeypatch.setattr(storage, "list_folders", lambda url: [n for n in list_folders(url) if not n.endswith("20")])
    monkeypatch.setattr(
        storage, "list_objects", lambda url: [o for o in list_objects(url) if "/step-00000020/" not in o.url]
    )
    newest = checkpoint.latest(run)
    assert newest is not None
    assert newest.step == 20


def test_prune_counts_only_checkpoints_that_can_be_loaded(run: RunLayout) -> None:
    """A damaged commit does not push out the one that a resume would need."""
    for step in (10, 20):
        save(run, step)
    (storage.local_path(run.checkpoint(20)) / "rank-00000.safetensors").unlink()
    checkpoint.prune(run, keep=1, attempt=1)
    newest = checkpoint.latest(run)
    assert newest is not None
    assert newest.step == 10


def test_a_run_without_checkpoints_has_no_latest(run: RunLayout) -> None:
    """Nothing there is an answer, not an error; asking for one by name is."""
    assert checkpoint.latest(run) is None
    with pytest.raises(NotFoundError):
        checkpoint.load_manifest(run.checkpoint(10))


def test_prune_sweeps_what_older_attempts_left_in_a_folder_that_stays(run: RunLayout) -> None:
    """A file of an attempt that died and a half-written one go; a newer attempt's, and what is listed, stay."""
    old = save(run, 10)
    folder = storage.local_path(run.checkpoint(10))
    for name in ("attempt-0001.rank-00001-of-00002.safetensors.json", ".0123456789abcdef.partial"):
        (folder / name).write_bytes(b"left")
    (folder / "attempt-0003.rank-00000-of-00001.safetensors").write_bytes(b"under way")
    assert checkpoint.prune(run, keep=1, attempt=2) == []
    listed = {file.name for file in old.files} | {checkpoint.MANIFEST}
    assert {path.name for path in folder.iterdir()} == listed | {"attempt-0003.rank-00000-of-00001.safetensors"}
