"""One rank's file of a checkpoint: slices in, and byte ranges out that were verified chunk by chunk.

A safetensors file, in which each fp32 slice stands under the key `kind:parameter:offset` (kind: `fp32` for the master
weight, else an optimizer moment; offset: elements into the flattened parameter).
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import orjson
import xxhash

from scaletrain import storage
from scaletrain.checkpoint.manifest import FORMAT_VERSION, FileRecord
from scaletrain.errors import CheckpointError, StorageError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

CHUNK_BYTES = 8 * 1024 * 1024
_CACHED_CHUNKS = 8
_ALIGNMENT = 64


@dataclass(frozen=True)
class Slice:
    """A range of one flattened fp32 tensor, to be written: `values` has shape [length]."""

    kind: str
    name: str
    offset: int
    values: "npt.NDArray[np.float32]"


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


class VerifiedFile:
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


def split_key(key: str, url: str) -> tuple[str, str, int]:
    """Return kind, parameter and offset of a tensor's key; `url` is the file that the error names."""
    kind, _, rest = key.partition(":")
    name, _, offset = rest.rpartition(":")
    if not name or not offset.isdecimal():
        raise CheckpointError(f"{url} holds the tensor {key!r}, which is not named kind:parameter:offset")
    return kind, name, int(offset)


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


@contextmanager
def _staged(url: str) -> Iterator[Path]:
    """Yield a local path to write to; what is there at the end becomes `url` at once."""
    try:
        if storage.is_local(url):
            final = storage.local_path(url)
            final.parent.mkdir(parents=True, exist_ok=True)
            path = final.with_name(final.name + ".partial")
            try:
                yield path
                path.replace(final)
            finally:
                path.unlink(missing_ok=True)  # on a full disk, half a file is what to get rid of first
            return
        with TemporaryDirectory(prefix="scaletrain-") as folder:
            path = Path(folder) / url.rsplit("/", 1)[-1]
            yield path
            storage.upload_file(path, url)
    except OSError as exc:
        raise StorageError(
            f"cannot write {url}: {exc.strerror or exc}; free some space or choose another folder"
        ) from exc
