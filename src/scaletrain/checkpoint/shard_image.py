"""One rank's file of a checkpoint as it is written: laid out once, filled in memory, hashed and stored.

A safetensors file, in which each fp32 slice stands under the key `kind:parameter:offset` (kind: `fp32` for the master
weight, else an optimizer moment; offset: elements into the flattened parameter).
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import orjson
import xxhash

from scaletrain import storage
from scaletrain.checkpoint.manifest import CHUNK_BYTES, FORMAT_VERSION, FileRecord

_ALIGNMENT = 64


@dataclass(frozen=True)
class Extent:
    """A range of one flattened fp32 tensor: `length` elements from `offset`."""

    kind: str
    name: str
    offset: int
    length: int


@dataclass(frozen=True)
class ShardLayout:
    """Where everything stands in a file: its first bytes, and the byte at which each extent begins."""

    header: bytes
    extents: tuple[Extent, ...]
    starts: tuple[int, ...]
    size_bytes: int


def lay_out(extents: Sequence[Extent]) -> ShardLayout:
    """Lay extents out one after the other (https://github.com/huggingface/safetensors#format)."""
    entries: dict[str, object] = {"__metadata__": {"format": "scaletrain", "version": str(FORMAT_VERSION)}}
    positions = [0]
    for one in extents:
        end = positions[-1] + 4 * one.length
        key = f"{one.kind}:{one.name}:{one.offset}"
        entries[key] = {"dtype": "F32", "shape": [one.length], "data_offsets": [positions[-1], end]}
        positions.append(end)
    text = orjson.dumps(entries)
    text += b" " * (-(len(text) + 8) % _ALIGNMENT)
    header = len(text).to_bytes(8, "little") + text
    starts = tuple(len(header) + position for position in positions)
    return ShardLayout(header, tuple(extents), starts[:-1], starts[-1])


def store_shard(checkpoint_url: str, file_name: str, path: Path, *, image: memoryview, header_bytes: int) -> FileRecord:
    """Store a filled image as a file of a checkpoint; returns its record for the manifest.

    `path` is a file of the same bytes (of memory, as a rule), from which they are copied to a disk, or to a bucket in
    parallel; hashing goes on beside it. Raises StorageError (disk full, no access).
    """
    with ThreadPoolExecutor(1) as pool:
        hashing = pool.submit(_record, file_name, image, header_bytes)
        storage.upload_file(path, storage.join(checkpoint_url, file_name))
        return hashing.result()


def _record(file_name: str, image: memoryview, header_bytes: int) -> FileRecord:
    whole, chunks = xxhash.xxh3_128(), []
    for start in range(0, len(image), CHUNK_BYTES):
        chunk = image[start : start + CHUNK_BYTES]
        whole.update(chunk)
        chunks.append(xxhash.xxh3_64_hexdigest(chunk))
    return FileRecord(
        name=file_name,
        size_bytes=len(image),
        checksum=whole.hexdigest(),
        chunks=tuple(chunks),
        header_bytes=header_bytes,
        header_checksum=xxhash.xxh3_64_hexdigest(image[:header_bytes]),
    )
