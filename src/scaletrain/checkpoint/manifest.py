"""The manifest: the statement, written last and hashed, that makes a folder a checkpoint."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import orjson

from scaletrain import storage
from scaletrain.errors import CheckpointError, NewerFormatError

MANIFEST = "manifest.json"
FORMAT_VERSION = 1
CHUNK_BYTES = 8 * 1024 * 1024
READS = 3  # of bytes that do not match their checksum, before the file itself is held to be damaged


@dataclass(frozen=True)
class FileRecord:
    """One file of a checkpoint, as its manifest lists it.

    `checksum` is the xxh3-128 of the whole file, `chunks` the xxh3-64 of each 8 MiB; `header_bytes` is the length of
    the safetensors header (with its 8-byte length field) and `header_checksum` its xxh3-64, so that a reader learns
    what the file holds without fetching a chunk.
    """

    name: str
    size_bytes: int
    checksum: str
    chunks: tuple[str, ...]
    header_bytes: int
    header_checksum: str


@dataclass(frozen=True)
class Manifest:
    """The statement that makes a folder a checkpoint.

    `attempt` is the fencing token of the attempt that wrote it, `parent_step` the step that attempt resumed from or
    saved before (None at first), `ledger_hash` the hash of the ledger's line for `step`, `parameters` the shape of
    every trainable parameter, `scalars` the optimizer step and counters that are not tensors. `dataset_url` is where
    the rows came from.
    """

    step: int
    samples_seen: int
    attempt: int
    world_size: int
    zero_stage: int
    precision: str
    dataset_url: str
    model_url: str
    ledger_hash: str
    parent_step: int | None
    created: str
    parameters: Mapping[str, tuple[int, ...]]
    scalars: Mapping[str, float]
    files: tuple[FileRecord, ...]
    version: int = FORMAT_VERSION
    manifest_hash: str = ""

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)


def load_manifest(checkpoint_url: str) -> Manifest:
    """Read a manifest and verify its own hash.

    Raises NotFoundError where nothing was committed, NewerFormatError where the manifest is whole and from a newer
    version of scaletrain, CheckpointError where it is damaged.
    """
    url = storage.join(checkpoint_url, MANIFEST)
    for _ in range(READS - 1):
        try:
            return _read(url)
        except NewerFormatError:
            raise
        except CheckpointError:
            pass  # the transfer may be what was bad
    return _read(url)


def seal(manifest: Manifest) -> Manifest:
    """Return the manifest with its own hash."""
    return replace(manifest, manifest_hash=_hash(asdict(manifest)))


def _read(url: str) -> Manifest:
    try:
        raw: dict[str, Any] = orjson.loads(storage.read_bytes(url))
        stated_hash, hashed = raw["manifest_hash"], _hash(raw)
        version = raw["version"]
        if version > FORMAT_VERSION and stated_hash == hashed:
            raise NewerFormatError(
                f"{url} has format version {version}; this scaletrain reads up to {FORMAT_VERSION}: use the version "
                "that wrote it, or newer"
            )
        raw["files"] = tuple(FileRecord(**{**file, "chunks": tuple(file["chunks"])}) for file in raw["files"])
        raw["parameters"] = {name: tuple(shape) for name, shape in raw["parameters"].items()}
        manifest = Manifest(**raw)
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as exc:
        raise CheckpointError(f"{url} is not a manifest ({exc})") from exc
    if stated_hash != hashed:
        raise CheckpointError(f"{url} does not match its own hash: it was changed or damaged after it was committed")
    return manifest


def _hash(raw: Mapping[str, Any]) -> str:
    """Hash a manifest as it is written, so that fields which an older version did not have change nothing."""
    return hashlib.sha256(orjson.dumps({**raw, "manifest_hash": ""}, option=orjson.OPT_SORT_KEYS)).hexdigest()
