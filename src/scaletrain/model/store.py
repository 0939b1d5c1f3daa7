"""A model in the bucket: Hugging Face files and an index.json, written last, with the size and checksum of each.

Made once by `publish`, read by every worker through `fetch`, which gives a verified folder on this machine.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson
import xxhash

from scaletrain import storage
from scaletrain.errors import ModelError, NotFoundError, StorageError
from scaletrain.log import get_logger

INDEX = "index.json"
WEIGHTS = (".safetensors", ".safetensors.index.json")
FORMAT_VERSION = 1
_NOT_THE_TOKENIZER = ("config.json", "generation_config.json", "README.md", "LICENSE")
_BLOCK_BYTES = 8 * 2**20
_PARALLEL_FILES = 8

log = get_logger(__name__)


@dataclass(frozen=True)
class ModelFile:
    """One file of a model; `checksum` is its xxh3-128."""

    name: str
    size_bytes: int
    checksum: str

    @property
    def is_weights(self) -> bool:
        return self.name.endswith(WEIGHTS)


@dataclass(frozen=True)
class ModelIndex:
    """What makes a folder of the bucket a model: all of its files. `source` says where it came from."""

    version: int
    source: str
    files: tuple[ModelFile, ...]

    @property
    def tokenizer_hash(self) -> str:
        """A hash that changes when the tokenizer or its chat template does, and only then."""
        parts = [(f.name, f.checksum) for f in self.files if not f.is_weights and f.name not in _NOT_THE_TOKENIZER]
        return hashlib.sha256(orjson.dumps(sorted(parts))).hexdigest()[:16]


def publish(folder: Path, model_url: str, *, source: str) -> None:
    """Copy a folder of Hugging Face files to a URL and write its index last.

    Several processes may publish at once: they write the same bytes, since the URL has the hash of what makes them.
    """
    if is_published(model_url):  # by another process, meanwhile
        return
    files = tuple(_describe(path) for path in sorted(folder.iterdir()) if path.is_file())
    index = ModelIndex(version=FORMAT_VERSION, source=source, files=files)
    storage.upload_folder(folder, model_url)
    storage.create(storage.join(model_url, INDEX), orjson.dumps(asdict(index), option=orjson.OPT_INDENT_2))


def is_published(model_url: str) -> bool:
    """Say whether the model at a URL was written to its end."""
    return storage.exists(storage.join(model_url, INDEX))


def load_index(model_url: str) -> ModelIndex:
    """Read a model's index; raises ModelError where it was not written, or is damaged."""
    url = storage.join(model_url, INDEX)
    try:
        return _parse_index(url, storage.read_bytes(url))
    except NotFoundError as exc:
        raise ModelError(
            f"{model_url} is not a finished model: it has no {INDEX}; run the command that made it again"
        ) from exc


def fetch(model_url: str, *, weights: bool = True) -> Path:
    """Return a local folder with the verified files of a model; a model in a local folder is used where it is.

    A remote one is copied once to the user's cache; many processes may ask at once, and a damaged copy is fetched
    again. Without `weights` only the tokenizer and configuration are there. Raises ModelError for a damaged source.
    """
    index = load_index(model_url)
    files = [file for file in index.files if weights or not file.is_weights]
    if storage.is_local(model_url):
        folder = storage.local_path(model_url)
        damaged = _damaged(folder, files)
        if damaged:
            raise ModelError(_damage(model_url, damaged[0]))
        return folder
    folder = _cached(model_url, index)
    if not _damaged(folder, files):
        return folder
    with locked(folder):
        missing = _damaged(folder, files)
        if missing:
            log.info("fetching %s (%.1f MB)", model_url, sum(file.size_bytes for file in missing) / 1e6)
            _download(model_url, missing, folder)
            damaged = _damaged(folder, missing)
            if damaged:
                raise ModelError(_damage(model_url, damaged[0]))
    return folder


def cache_folder() -> Path:
    """Where this user's copies of remote models are kept: $XDG_CACHE_HOME/scaletrain, or ~/.cache/scaletrain."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "scaletrain"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let one process of this machine at a time work on a folder; the lock goes with the process that holds it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder.parent / f".{folder.name}.lock").open("w")
    except OSError as exc:
        raise StorageError(
            f"{folder}: cannot be written ({exc.strerror or exc}); set XDG_CACHE_HOME to a place that can"
        ) from exc
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def checksum(path: Path) -> str:
    """The xxh3-128 of a file."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _describe(path: Path) -> ModelFile:
    return ModelFile(name=path.name, size_bytes=path.stat().st_size, checksum=checksum(path))


def _parse_index(url: str, data: bytes) -> ModelIndex:
    try:
        raw = orjson.loads(data)
        files = tuple(ModelFile(**file) for file in raw["files"])
        index = ModelIndex(version=raw["version"], source=raw["source"], files=files)
    except (orjson.JSONDecodeError, KeyError, TypeError) as exc:
        raise ModelError(
            f"{url} is not the index of a model ({exc}); remove its folder and run the command again"
        ) from exc
    if index.version > FORMAT_VERSION:
        raise ModelError(f"{url} has format version {index.version}; this scaletrain reads up to {FORMAT_VERSION}")
    return index


def _cached(model_url: str, index: ModelIndex) -> Path:
    key = xxhash.xxh3_64_hexdigest(model_url.encode() + orjson.dumps(asdict(index)))
    return cache_folder() / "models" / f"{model_url.rstrip('/').rpartition('/')[2]}-{key}"


def _damaged(folder: Path, files: list[ModelFile]) -> list[ModelFile]:
    """The files that are not there as the index describes them."""

    def is_whole(file: ModelFile) -> bool:
        path = folder / file.name
        return path.is_file() and path.stat().st_size == file.size_bytes and checksum(path) == file.checksum

    with ThreadPoolExecutor(_PARALLEL_FILES) as pool:
        whole = list(pool.map(is_whole, files))
    return [file for file, good in zip(files, whole, strict=True) if not good]


def _download(model_url: str, files: list[ModelFile], folder: Path) -> None:
    def download(file: ModelFile) -> None:
        storage.download_file(storage.join(model_url, file.name), folder / file.name)

    with ThreadPoolExecutor(_PARALLEL_FILES) as pool:
        list(pool.map(download, files))


def _damage(model_url: str, file: ModelFile) -> str:
    return (
        f"{storage.join(model_url, file.name)} is damaged: it does not match its checksum in {INDEX}; "
        f"remove {model_url} and run the command that made it again"
    )
