"""A model in the bucket is read whole and verified, or not at all."""

import multiprocessing
from pathlib import Path

import pytest

from scaletrain import storage
from scaletrain.errors import ModelError
from scaletrain.model import store


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files such as a model has."""
    path = tmp_path / "made"
    path.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (path / name).write_text(name * 100)
    return path


def test_what_is_published_is_fetched(bucket_root: str, folder: Path) -> None:
    """Every kind of storage gives the files back, with their content."""
    url = storage.join(bucket_root, "models", "m")
    store.publish(folder, url, source="here")
    fetched = store.fetch(url)
    assert all((fetched / path.name).read_bytes() == path.read_bytes() for path in folder.iterdir())
    assert store.load_index(url).source == "here"


def test_a_model_without_an_index_is_not_there(tmp_path: Path, folder: Path) -> None:
    """What a killed process left behind is no model."""
    storage.upload_folder(folder, str(tmp_path / "m"))
    assert not store.is_published(str(tmp_path / "m"))
    with pytest.raises(ModelError, match="not a finished model"):
        store.fetch(str(tmp_path / "m"))


def test_a_local_model_is_used_where_it_is(tmp_path: Path, folder: Path, cache: Path) -> None:
    """Nothing is copied where nothing must be."""
    store.publish(folder, str(tmp_path / "m"), source="here")
    assert store.fetch(str(tmp_path / "m")) == tmp_path / "m"
    assert not cache.exists()


def test_a_damaged_copy_is_fetched_again(s3_bucket: str, folder: Path) -> None:
    """One flipped byte in the cache, as a crash of the machine may leave it, is noticed and repaired."""
    store.publish(folder, f"{s3_bucket}/m", source="here")
    weights = store.fetch(f"{s3_bucket}/m") / "model.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(b"x" + good[1:])
    assert store.fetch(f"{s3_bucket}/m") == weights.parent
    assert weights.read_bytes() == good


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_a_damaged_source_is_an_error_that_names_the_file(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, folder: Path
) -> None:
    """Training never starts from damaged weights."""
    url = str(tmp_path / "m") if kind == "local" else request.getfixturevalue("s3_bucket") + "/m"
    store.publish(folder, url, source="here")
    storage.write_bytes(f"{url}/model.safetensors", b"y" * len("model.safetensors" * 100))
    with pytest.raises(ModelError, match=r"model\.safetensors is damaged"):
        store.fetch(url)


def test_the_tokenizer_comes_without_the_weights(s3_bucket: str, folder: Path) -> None:
    """A machine that only tokenises does not download gigabytes."""
    store.publish(folder, f"{s3_bucket}/m", source="here")
    fetched = store.fetch(f"{s3_bucket}/m", weights=False)
    assert (fetched / "tokenizer.json").exists()
    assert not (fetched / "model.safetensors").exists()


def test_many_processes_fetch_at_once(s3_bucket: str, folder: Path) -> None:
    """All workers of a machine start together and share one copy."""
    url = f"{s3_bucket}/m"
    store.publish(folder, url, source="here")
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        paths = pool.map(store.fetch, [url] * 6)
    assert len(set(paths)) == 1
    assert (paths[0] / "config.json").read_text() == "config.json" * 100


def test_the_tokenizers_hash_ignores_the_weights(tmp_path: Path, folder: Path) -> None:
    """Data prepared for one model serves another one with the same tokenizer, and no other."""
    hashes = []
    for name, changed in (("a", "model.safetensors"), ("b", "config.json"), ("c", "tokenizer.json")):
        (folder / changed).write_text(f"changed in {name}")
        store.publish(folder, str(tmp_path / name), source="here")
        hashes.append(store.load_index(str(tmp_path / name)).tokenizer_hash)
    assert hashes[0] == hashes[1] != hashes[2]
