"""Every way to name a model leads to a local folder, or to an error that says what was tried."""

import os
import shutil
from pathlib import Path

import pytest

from scaletrain import storage
from scaletrain.errors import CheckpointError, ModelError
from scaletrain.model.export import find_checkpoint
from scaletrain.model.generate import load_for_chat
from scaletrain.model.resolve import newest_version, resolve_model
from tiny import commit, tiny_model_folder, tiny_run


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test's own, and no way to the hub."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_run_is_found_by_name_and_by_url(bucket_root: str) -> None:
    """The run's newest checkpoint is exported once, whichever way it is named."""
    run, trained = tiny_run(bucket_root, name="my-run")
    by_name = resolve_model("my-run", root=bucket_root)
    assert resolve_model(run.url, root="elsewhere") == by_name
    assert resolve_model(run.checkpoint(10), root="elsewhere") == by_name
    model, _ = load_for_chat(by_name, device="cpu")
    assert model.num_parameters() == trained.num_parameters()


def test_a_run_that_went_on_is_exported_anew(tmp_path: Path) -> None:
    """What was cached of an older checkpoint is not taken for the newest."""
    root = str(tmp_path / "bucket")
    run, trained = tiny_run(root)
    first = resolve_model("run", root=root)
    manifest = find_checkpoint(run)
    commit(run, step=20, model_url=manifest.model_url, trained=dict(trained.named_parameters()))
    second = resolve_model("run", root=root)
    assert first != second
    assert resolve_model("run", root=root) == second


def test_exports_that_nobody_asks_for_are_removed(tmp_path: Path) -> None:
    """A server makes one of every checkpoint: those of an hour ago go with the next, but not another run's."""
    root = str(tmp_path / "bucket")
    run, trained = tiny_run(root)
    manifest = find_checkpoint(run)
    first = resolve_model("run", root=root)
    other = first.with_name("run-2-10-0123456789ab")
    other.mkdir()
    for old in (first, other):
        os.utime(old, (0, 0))
    commit(run, step=20, model_url=manifest.model_url, trained=dict(trained.named_parameters()))
    second = resolve_model("run", root=root)
    assert [each.exists() for each in (first, second, other)] == [False, True, True]


def test_a_version_changes_with_a_runs_checkpoint_and_a_folders_files(tmp_path: Path) -> None:
    """A server replaces what it serves by this; a folder whose export is under way has none."""
    root = str(tmp_path / "bucket")
    run, trained = tiny_run(root)
    manifest = find_checkpoint(run)
    before = newest_version("run", root=root)
    assert newest_version(run.url, root="elsewhere") == before
    commit(run, step=20, model_url=manifest.model_url, trained=dict(trained.named_parameters()))
    assert newest_version("run", root=root) != before
    assert newest_version(run.checkpoint(10), root=root) == before
    folder = tiny_model_folder(tmp_path / "model")
    first = newest_version(str(folder), root=root)
    assert newest_version(str(folder), root=root) == first
    (folder / "config.json").rename(tmp_path / "config.json")
    assert newest_version(str(folder), root=root) is None
    tiny_model_folder(folder, seed=1)
    assert newest_version(str(folder), root=root) not in (None, first)
    assert newest_version("org/model-of-the-hub", root=root) == ""


def test_a_run_that_has_not_saved_yet_says_so(tmp_path: Path) -> None:
    """A run's name is never taken for something else only because it is too early."""
    storage.write_text(str(tmp_path / "runs" / "young" / "config.yaml"), "name: young")
    with pytest.raises(CheckpointError, match="young has no committed checkpoint"):
        resolve_model("young", root=str(tmp_path))


def test_a_local_folder_is_used_where_it_is(tmp_path: Path, cache: Path) -> None:
    """Nothing is copied."""
    folder = tiny_model_folder(tmp_path / "model")
    assert resolve_model(str(folder), root=str(tmp_path)) == folder
    assert not cache.exists()


def test_a_folder_in_a_bucket_is_copied_once(s3_bucket: str, tmp_path: Path) -> None:
    """A URL gives a local copy that loads, and the same one the next time."""
    storage.upload_folder(tiny_model_folder(tmp_path / "model"), f"{s3_bucket}/model")
    folder = resolve_model(f"{s3_bucket}/model", root=str(tmp_path))
    assert load_for_chat(folder, device="cpu")
    assert resolve_model(f"{s3_bucket}/model", root=str(tmp_path)) == folder


def test_a_broken_cache_is_not_used(s3_bucket: str, tmp_path: Path) -> None:
    """A damaged copy is an error that says which folder to remove."""
    storage.upload_folder(tiny_model_folder(tmp_path / "model"), f"{s3_bucket}/model")
    folder = resolve_model(f"{s3_bucket}/model", root=str(tmp_path))
    (folder / "model.safetensors").write_bytes(b"x" * (folder / "model.safetensors").stat().st_size)
    with pytest.raises(ModelError, match=r"is damaged.*remove"):
        resolve_model(f"{s3_bucket}/model", root=str(tmp_path))
    shutil.rmtree(folder)
    assert resolve_model(f"{s3_bucket}/model", root=str(tmp_path)) == folder


def test_an_unknown_name_lists_the_runs_there_are(tmp_path: Path) -> None:
    """A typo in a run's name is easy to see."""
    for name in ("chitchat-small", "chitchat-large"):
        storage.write_text(str(tmp_path / "runs" / name / "config.yaml"), f"name: {name}")
    with pytest.raises(ModelError, match=r"(?s)no such folder here.*nor is it a run.*chitchat-large, chitchat-small"):
        resolve_model("chitchat-smal", root=str(tmp_path))
