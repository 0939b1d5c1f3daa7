"""A remote object as a plain binary file: it reads ahead in blocks, and can seek."""

import io
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, BinaryIO, cast

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

Reader = Callable[[int, int], bytes]  # the bytes from a start up to a stop, all of them

_BLOCK_BYTES = 8 * 2**20


def stream(read: Reader, *, size_bytes: int) -> AbstractContextManager[BinaryIO]:
    """Make a file of what reads ranges of an object of so many bytes."""
    return cast(BinaryIO, io.BufferedReader(_Blocks(read, size_bytes), buffer_size=2**16))


class _Blocks(io.RawIOBase):
    """A file that holds one block, and asks for another where a read begins outside of it."""

    def __init__(self, read: Reader, size_bytes: int) -> None:
        self._read = read
        self._size_bytes = size_bytes
        self._position = 0
        self._block = b""
        self._block_start = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size_bytes}[whence]
        if base + offset < 0:
            raise ValueError(f"negative seek position {base + offset}")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer).cast("B")
        if self._position >= self._size_bytes:
            return 0
        begin = self._position - self._block_start
        if not 0 <= begin < len(self._block):
            self._block_start, begin = self._position, 0
            self._block = self._read(self._position, min(self._position + _BLOCK_BYTES, self._size_bytes))
        data = self._block[begin : begin + len(view)]
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        self._block = b""
        super().close()
