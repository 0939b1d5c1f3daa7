"""Byte ranges out of one rank's file of a checkpoint, verified chunk by chunk before they are used."""

import threading
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future

import orjson
import xxhash

from scaletrain import storage
from scaletrain.checkpoint.manifest import CHUNK_BYTES, READS, FileRecord
from scaletrain.errors import CheckpointError, DamagedError

_CACHED_CHUNKS = 8


class VerifiedFile:
    """Reads byte ranges of one file of a checkpoint; each chunk is verified once it is fetched, a few are kept."""

    def __init__(self, url: str, record: FileRecord) -> None:
        self.url = url
        self._record = record
        self._lock = threading.Lock()
        self._cache: OrderedDict[int, Future[bytes]] = OrderedDict()

    def tensors(self) -> Iterator[tuple[str, int, int]]:
        """Yield key, first byte and end of each tensor, positions counted from the start of the file."""
        header = self._verified(0, self._record.header_bytes, self._record.header_checksum)
        if header is None:
            raise DamagedError(f"the header of {self.url} does not match its checksum")
        for key, entry in orjson.loads(header[8:]).items():
            if key == "__metadata__":
                continue
            start, stop = entry["data_offsets"]
            yield key, len(header) + start, len(header) + stop

    def chunk(self, index: int) -> bytes:
        """Return one chunk, fetched and verified once for all threads that want it while it is in the cache."""
        with self._lock:
            chunk = self._cache.get(index)
            ours = chunk is None
            if chunk is None:
                chunk = self._cache[index] = Future()
                while len(self._cache) > _CACHED_CHUNKS:
                    self._cache.popitem(last=False)
            self._cache.move_to_end(index)
        if ours:
            try:
                chunk.set_result(self._fetch(index))
            except BaseException as error:
                with self._lock:  # whoever asks later reads again
                    if self._cache.get(index) is chunk:
                        del self._cache[index]
                chunk.set_exception(error)
                raise
        return chunk.result()

    def read(self, start: int, length: int) -> bytes:
        """Return bytes start..start+length, from verified chunks."""
        parts = []
        for index in range(start // CHUNK_BYTES, (start + length - 1) // CHUNK_BYTES + 1):
            first = index * CHUNK_BYTES
            parts.append(memoryview(self.chunk(index))[max(start - first, 0) : start + length - first])
        return b"".join(parts)

    def _fetch(self, index: int) -> bytes:
        data = self._verified(index * CHUNK_BYTES, self._chunk_length(index), self._record.chunks[index])
        if data is None:
            raise DamagedError(f"chunk {index} of {self.url} does not match its checksum: the file is damaged")
        return data

    def _verified(self, start: int, length: int, checksum: str) -> bytes | None:
        """Bytes that match their checksum; None where they never do, for one bad transfer is no damaged file."""
        for _ in range(READS):
            data = storage.read_bytes(self.url, start=start, length=length)
            if xxhash.xxh3_64_hexdigest(data) == checksum:
                return data
        return None

    def _chunk_length(self, index: int) -> int:
        return min(CHUNK_BYTES, self._record.size_bytes - index * CHUNK_BYTES)


def split_key(key: str, url: str) -> tuple[str, str, int]:
    """Return kind, parameter and offset of a tensor's key; `url` is the file that the error names."""
    kind, _, rest = key.partition(":")
    name, _, offset = rest.rpartition(":")
    if not name or not offset.isdecimal():
        raise CheckpointError(f"{url} holds the tensor {key!r}, which is not named kind:parameter:offset")
    return kind, name, int(offset)
