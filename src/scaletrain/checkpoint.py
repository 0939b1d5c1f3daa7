"""What a committed checkpoint is: its files, its manifest, which one is the newest, and how its slices are read.

A checkpoint is a folder, `checkpoints/step-00000100/`. Every rank writes one safetensors file of the fp32 slices it
holds, each under the key `kind:parameter:offset` (kind: `fp32` for the master weight, else an optimizer moment;
offset: elements into the flattened parameter). `manifest.json` is written last, by one rank, and makes the folder a
checkpoint: it lists every file with its size and the checksum of each 8 MiB chunk, and carries a hash of itself.
Readers trust nothing else. Since slices are addressed by parameter and offset, any number of workers and any ZeRO
stage reads just the ranges it needs; no file is ever unpickled.
"""

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import orjson
import xxhash

from scaletrain import storage
from scaletrain.errors import CheckpointError, NotFoundError, StorageError
from scaletrain.layout import RunLayout, step_of
from scaletrain.log import get_logger

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

MANIFEST = "manifest.json"
FORMAT_VERSION = 1
CHUNK_BYTES = 8 * 1024 * 1024
_CACHED_CHUNKS = 8
_ALIGNMENT = 64

log = get_logger(__name__)


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
    every trainable parameter, `scalars` the optimizer step and counters that are not tensors.
    """

    step: int
    samples_seen: int
    attempt: int
    world_size: int
    zero_stage: int
    precision: str
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


@dataclass(frozen=True)
class Slice:
    """A range of one flattened fp32 tensor, to be written: `values` has shape [length]."""

    kind: str
    name: str
    offset: int
    values: "npt.NDArray[np.float32]"


# ---- writing -------------------------------------------------------------------------------------------------------


def write_shard(checkpoint_url: str, file_name: str, slices: Sequence[Slice]) -> FileRecord:
    """Write one rank's slices as a safetensors file and return its record for the manifest.

    The file is written and hashed in one pass. Raises StorageError (disk full, no access).
    """
    header = _safetensors_header(slices)
    blocks: list[bytes | memoryview] = [header, *(memoryview(one.values.view("u1")) for one in slices)]  # type: ignore[arg-type]
    file_hash = xxhash.xxh3_128()
    chunk_hashes = _ChunkHasher()
    with _staged(storage.join(checkpoint_url, file_name)) as path:
        with path.open("wb") as file:
            for block in blocks:
                file.write(block)
                file_hash.update(block)
                chunk_hashes.update(block)
            file.flush()
            os.fsync(file.fileno())
        size_bytes = path.stat().st_size
    return FileRecord(
        name=file_name,
        size_bytes=size_bytes,
        checksum=file_hash.hexdigest(),
        chunks=chunk_hashes.digests(),
        header_bytes=len(header),
        header_checksum=xxhash.xxh3_64_hexdigest(header),
    )


def commit(checkpoint_url: str, manifest: Manifest) -> Manifest:
    """Write the manifest, which makes the checkpoint real; every file must have been written before."""
    sealed = replace(manifest, manifest_hash=_manifest_hash(manifest))
    storage.write_bytes(
        storage.join(checkpoint_url, MANIFEST), orjson.dumps(asdict(sealed), option=orjson.OPT_INDENT_2)
    )
    return sealed


def prune(run: RunLayout, *, keep: int) -> list[int]:
    """Remove all but the newest `keep` checkpoints that are whole, and everything else that is older than the newest.

    Returns the steps that were removed. Each manifest goes first, so that no half-removed folder looks committed.
    """
    steps = _step_folders(run)
    whole = [step for step in steps if isinstance(_check(run.checkpoint(step)), Manifest)]
    if not whole:
        return []
    removed = [step for step in steps if step not in whole[:keep] and step < whole[0]]
    for step in removed:
        storage.remove(storage.join(run.checkpoint(step), MANIFEST))
        storage.remove(run.checkpoint(step))
    return removed


# ---- finding -------------------------------------------------------------------------------------------------------


def latest(run: RunLayout) -> Manifest | None:
    """The newest checkpoint whose manifest is whole and whose files have the sizes it states; None if there is none.

    This is the only answer to "latest": retry, resume, evaluate, export and serve all ask it. A newer folder that
    does not verify is passed over with a warning that says why; one without a manifest was never committed.
    """
    for step in _step_folders(run):
        found = _check(run.checkpoint(step))
        if isinstance(found, Manifest):
            return found
        if isinstance(found, CheckpointError):
            log.warning("passing over step %d: %s", step, found)
    return None


def load_manifest(checkpoint_url: str) -> Manifest:
    """Read a manifest and verify its own hash.

    Raises NotFoundError where nothing was committed, CheckpointError where the manifest is damaged or from a newer
    version of scaletrain.
    """
    url = storage.join(checkpoint_url, MANIFEST)
    try:
        raw: dict[str, Any] = orjson.loads(storage.read_bytes(url))
        version = raw["version"]
        if version > FORMAT_VERSION:
            raise CheckpointError(f"{url} has format version {version}; this scaletrain reads up to {FORMAT_VERSION}")
        raw["files"] = tuple(FileRecord(**{**file, "chunks": tuple(file["chunks"])}) for file in raw["files"])
        raw["parameters"] = {name: tuple(shape) for name, shape in raw["parameters"].items()}
        manifest = Manifest(**raw)
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as exc:
        raise CheckpointError(f"{url} is not a manifest ({exc})") from exc
    if manifest.manifest_hash != _manifest_hash(manifest):
        raise CheckpointError(f"{url} does not match its own hash: it was changed or damaged after it was committed")
    return manifest


def check_sizes(checkpoint_url: str, manifest: Manifest) -> None:
    """Raise CheckpointError unless every file of the manifest is there with its size."""
    found = {info.url.rsplit("/", 1)[-1]: info.size_bytes for info in storage.list_objects(checkpoint_url)}
    for file in manifest.files:
        size = found.get(file.name)
        if size is None:
            raise CheckpointError(f"{storage.join(checkpoint_url, file.name)} is missing")
        if size != file.size_bytes:
            url = storage.join(checkpoint_url, file.name)
            raise CheckpointError(f"{url} has {size} bytes, its manifest says {file.size_bytes}")


def verify(checkpoint_url: str) -> Manifest:
    """Read every byte of a checkpoint against its checksums; raises CheckpointError that names file and chunk."""
    manifest = load_manifest(checkpoint_url)
    check_sizes(checkpoint_url, manifest)
    for record in manifest.files:
        file = _VerifiedFile(storage.join(checkpoint_url, record.name), record)
        for chunk in range(len(record.chunks)):
            file.chunk(chunk)
    return manifest


# ---- reading -------------------------------------------------------------------------------------------------------


def open_checkpoint(checkpoint_url: str) -> "Checkpoint":
    """Open a committed checkpoint for reading; reads the manifest and every file's header, but no tensor."""
    manifest = load_manifest(checkpoint_url)
    return Checkpoint(checkpoint_url, manifest)


class Checkpoint:
    """Reads any range of any tensor of a committed checkpoint; every byte is verified before use. Thread-safe."""

    def __init__(self, url: str, manifest: Manifest) -> None:
        self.url = url
        self.manifest = manifest
        self._pieces: dict[tuple[str, str], list[_Piece]] = {}
        for record in manifest.files:
            file = _VerifiedFile(storage.join(url, record.name), record)
            for key, start, stop in file.tensors():
                kind, name, offset = _split_key(key, file.url)
                piece = _Piece(offset=offset, length=(stop - start) // 4, file=file, start=start)
                self._pieces.setdefault((kind, name), []).append(piece)
        for pieces in self._pieces.values():
            pieces.sort(key=lambda piece: piece.offset)

    @property
    def kinds(self) -> tuple[str, ...]:
        """What is stored of each parameter, as fp32, exp_avg, exp_avg_sq."""
        return tuple(sorted({kind for kind, _ in self._pieces}))

    def names(self, kind: str = "fp32") -> tuple[str, ...]:
        """The parameters of which `kind` is stored, in the model's order."""
        return tuple(name for name in self.manifest.parameters if (kind, name) in self._pieces)

    def shape(self, name: str) -> tuple[int, ...]:
        """The full shape of a parameter."""
        return self.manifest.parameters[name]

    def read(self, kind: str, name: str, offset: int = 0, length: int | None = None) -> "npt.NDArray[np.float32]":
        """Read elements offset..offset+length of a flattened tensor (all of it by default), shape [length].

        Raises CheckpointError where the range is not wholly stored, or a checksum does not match.
        """
        import numpy as np

        if name not in self.manifest.parameters:
            raise CheckpointError(f"{self.url} holds no parameter {name}: it belongs to another model")
        total = _numel(self.manifest.parameters[name])
        length = total - offset if length is None else length
        values = np.empty(length, dtype=np.float32)
        filled = 0
        for piece in self._pieces.get((kind, name), []):
            low, high = max(piece.offset, offset), min(piece.offset + piece.length, offset + length)
            if low < high:
                data = piece.file.read(piece.start + 4 * (low - piece.offset), 4 * (high - low))
                values[low - offset : high - offset] = np.frombuffer(data, dtype=np.float32)
                filled += high - low
        if filled != length:
            raise CheckpointError(f"{self.url} holds {filled} of {length} elements of {kind} of {name}")
        return values


@dataclass(frozen=True)
class _Piece:
    offset: int
    length: int
    file: "_VerifiedFile"
    start: int


class _VerifiedFile:
    """Reads byte ranges of one file of a checkpoint; each chunk is verified once it is fetched, a few are kept."""

    def __init__(self, url: str, record: FileRecord) -> None:
        self.url = url
        self._record = record
        self._lock = threading.Lock()
        self._cache: OrderedDict[int, bytes] = OrderedDict()

    def tensors(self) -> Iterator[tuple[str, int, int]]:
        """Yield key, first byte and end of each tensor, positions counted from the start of the file."""
        header = storage.read_bytes(self.url, start=0, length=self._record.header_bytes)
        if xxhash.xxh3_64_hexdigest(header) != self._record.header_checksum:
            raise CheckpointError(f"the header of {self.url} does not match its checksum")
        for key, entry in orjson.loads(header[8:]).items():
            if key == "__metadata__":
                continue
            start, stop = entry["data_offsets"]
            yield key, len(header) + start, len(header) + stop

    def chunk(self, index: int) -> bytes:
        """Return one chunk, fetched and verified at most once while it is in the cache."""
        with self._lock:
            if index in self._cache:
                self._cache.move_to_end(index)
                return self._cache[index]
        data = storage.read_bytes(self.url, start=index * CHUNK_BYTES, length=self._chunk_length(index))
        if xxhash.xxh3_64_hexdigest(data) != self._record.chunks[index]:
            raise CheckpointError(f"chunk {index} of {self.url} does not match its checksum: the file is damaged")
        with self._lock:
            self._cache[index] = data
            while len(self._cache) > _CACHED_CHUNKS:
                self._cache.popitem(last=False)
        return data

    def read(self, start: int, length: int) -> bytes:
        """Return bytes start..start+length, from verified chunks."""
        parts = []
        for index in range(start // CHUNK_BYTES, (start + length - 1) // CHUNK_BYTES + 1):
            first = index * CHUNK_BYTES
            parts.append(memoryview(self.chunk(index))[max(start - first, 0) : start + length - first])
        return b"".join(parts)

    def _chunk_length(self, index: int) -> int:
        return min(CHUNK_BYTES, self._record.size_bytes - index * CHUNK_BYTES)


# ---- helpers -------------------------------------------------------------------------------------------------------


class _ChunkHasher:
    """Hashes a stream chunk by chunk, wherever the blocks it is given begin and end."""

    def __init__(self) -> None:
        self._digests: list[str] = []
        self._hash = xxhash.xxh3_64()
        self._room = CHUNK_BYTES

    def update(self, block: bytes | memoryview) -> None:
        view = memoryview(block)
        while view:
            part, view = view[: self._room], view[self._room :]
            self._hash.update(part)
            self._room -= len(part)
            if self._room == 0:
                self._close_chunk()

    def digests(self) -> tuple[str, ...]:
        if self._room < CHUNK_BYTES:
            self._close_chunk()
        return tuple(self._digests)

    def _close_chunk(self) -> None:
        self._digests.append(self._hash.hexdigest())
        self._hash = xxhash.xxh3_64()
        self._room = CHUNK_BYTES


def _safetensors_header(slices: Sequence[Slice]) -> bytes:
    """The header of a safetensors file (https://github.com/huggingface/safetensors#format), padded with spaces."""
    entries: dict[str, object] = {"__metadata__": {"format": "scaletrain", "version": str(FORMAT_VERSION)}}
    position = 0
    for one in slices:
        end = position + one.values.nbytes
        key = f"{one.kind}:{one.name}:{one.offset}"
        entries[key] = {"dtype": "F32", "shape": [one.values.size], "data_offsets": [position, end]}
        position = end
    text = orjson.dumps(entries)
    text += b" " * (-(len(text) + 8) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _split_key(key: str, url: str) -> tuple[str, str, int]:
    kind, _, rest = key.partition(":")
    name, _, offset = rest.rpartition(":")
    if not name or not offset.isdecimal():
        raise CheckpointError(f"{url} holds the tensor {key!r}, which is not named kind:parameter:offset")
    return kind, name, int(offset)


def _manifest_hash(manifest: Manifest) -> str:
    body = asdict(replace(manifest, manifest_hash=""))
    return hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _check(checkpoint_url: str) -> Manifest | CheckpointError | None:
    """The manifest of a whole checkpoint, what is wrong with a damaged one, None where nothing was committed."""
    try:
        manifest = load_manifest(checkpoint_url)
        check_sizes(checkpoint_url, manifest)
    except NotFoundError:
        return None
    except CheckpointError as error:
        return error
    return manifest


def _step_folders(run: RunLayout) -> list[int]:
    """The steps that have a folder, newest first."""
    steps = (step_of(name) for name in storage.list_folders(run.checkpoints))
    return sorted((step for step in steps if step is not None), reverse=True)


def _numel(shape: tuple[int, ...]) -> int:
    size = 1
    for extent in shape:
        size *= extent
    return size


@contextmanager
def _staged(url: str) -> Iterator[Path]:
    """Yield a local path to write to; what is there at the end becomes `url` at once."""
    try:
        if storage.is_local(url):
            final = storage.local_path(url)
            final.parent.mkdir(parents=True, exist_ok=True)
            path = final.with_name(final.name + ".partial")
            yield path
            path.replace(final)
            return
        with TemporaryDirectory(prefix="scaletrain-") as folder:
            path = Path(folder) / url.rsplit("/", 1)[-1]
            yield path
            storage.upload_file(path, url)
    except OSError as exc:
        raise StorageError(
            f"cannot write {url}: {exc.strerror or exc}; free some space or choose another folder"
        ) from exc
