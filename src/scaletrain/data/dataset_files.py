"""The files of a dataset as its index lists them: written with their checksums, and compared with them again."""

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import xxhash

from scaletrain import storage
from scaletrain.errors import NotFoundError

# Several preparations may write to one place: what has not grown for so long is of one that was killed.
ABANDONED_AFTER_S = 600.0
_BLOCK_BYTES = 2**20


@dataclass(frozen=True)
class FileInfo:
    """A file beside the shards; `checksum` is the xxh3-128 of its bytes, in hex."""

    name: str
    size_bytes: int
    checksum: str


class Listed(Protocol):
    """What an index says of a file, shard or not."""

    @property
    def name(self) -> str: ...
    @property
    def size_bytes(self) -> int: ...
    @property
    def checksum(self) -> str: ...


def write_file(url: str, name: str, data: bytes) -> FileInfo:
    """Write a small file below `url`; returns what the index says of it."""
    storage.write_bytes(storage.join(url, name), data)
    return FileInfo(name, len(data), xxhash.xxh3_128_hexdigest(data))


def upload_file(path: Path, url: str) -> FileInfo:
    """Upload a local file, under its own name, below `url`; returns what the index says of it."""
    with path.open("rb") as file:
        checksum = checksum_of(file)
    storage.upload_file(path, storage.join(url, path.name))
    return FileInfo(path.name, path.stat().st_size, checksum)


def damage(url: str, listed: Listed) -> str | None:
    """Read a file below `url` to its end and say how it differs from what the index says of it; None if it does not."""
    url = storage.join(url, listed.name)
    try:
        if (size_bytes := storage.info(url).size_bytes) != listed.size_bytes:
            return f"has {size_bytes} bytes, the index says {listed.size_bytes}"
        with storage.open_read(url) as file:
            checksum = checksum_of(file)
    except NotFoundError:
        return "is missing"
    return None if checksum == listed.checksum else f"its checksum is {checksum}, the index says {listed.checksum}"


def checksum_of(file: BinaryIO) -> str:
    """Read a file to its end; returns the xxh3-128 of its bytes, in hex."""
    digest = xxhash.xxh3_128()
    while block := file.read(_BLOCK_BYTES):
        digest.update(block)
    return digest.hexdigest()
