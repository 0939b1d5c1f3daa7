"""Objects in a bucket: whole listings, reads and transfers, made of the requests of a client.

Every read is of ranges whose lengths are compared with what the store says of the object, so that an answer that was
cut short is noticed and asked for again; all ranges of one read are of one version. Big objects go up and come down
in parts, some at a time, and never more than a few are in memory.
"""

import errno
import fnmatch
import os
import re
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from scaletrain.errors import StorageError
from scaletrain.log import get_logger
from scaletrain.storage.client import ABSENT, MIB, Client, Details, Page, Part, Piece, Upload
from scaletrain.storage.errors import IncompleteAnswerError, errors_of
from scaletrain.storage.parallel import in_parallel, piece_in_memory, ranges
from scaletrain.storage.retry import retried
from scaletrain.storage.streaming import Reader

_PAGE_OBJECTS = 1000  # the most that S3 and GCS list in one answer
_PIECE_BYTES = 8 * MIB
_PARALLEL_PIECES = 16  # a connection of S3 gives some 100 MB/s
_MAX_PARTS = 10_000  # of one upload, to S3 and to GCS
_log = get_logger(__name__)


@dataclass(frozen=True)
class BucketStore:
    """All that storage does in a bucket; see `Store`."""

    client: Client

    def exists(self, name: str) -> bool:
        """Say whether there is an object, or a folder with an object; a missing bucket is an error."""
        return self._head(name) is not None or self._is_folder(name)

    def info(self, name: str) -> Details:
        """Describe an object."""
        found = self._head(name)
        if found is not None:
            return found
        if self._is_folder(name):
            raise IsADirectoryError(errno.EISDIR, "is a folder", name)
        raise FileNotFoundError(errno.ENOENT, "no such object", name)

    def objects(self, name: str) -> list[Details]:
        """List all objects below a folder, or the object itself: a request for each thousand of them."""
        found = [each for page in self._pages(name, deep=True) for each in page.objects if not each.name.endswith("/")]
        if found:
            return found
        itself = self._head(name)
        return [] if itself is None else [itself]

    def folders(self, name: str) -> list[str]:
        """Name the folders directly below a folder: a request for each thousand of what is directly below."""
        return sorted(
            folder.rstrip("/").rpartition("/")[2] for page in self._pages(name, deep=False) for folder in page.folders
        )

    def glob(self, folder: str, pattern: str) -> list[Details]:
        """List what a pattern stands for in a folder; a folder that matches stands for all objects below it.

        Folders are listed one by one; only below `**` everything is looked through.
        """
        segment, _, below = pattern.partition("/")
        if segment == "**":
            return self._glob_deep(folder, pattern)
        if not re.search(r"[*?\[]", segment):
            inner = f"{folder}/{segment}"
            return self.glob(inner, below) if below else self.objects(inner)
        found: list[Details] = []
        for page in self._pages(folder, deep=False):
            if not below:
                found += [each for each in page.objects if each.name[-1] != "/" and _matches(each.name, segment)]
            for inner in (each.removesuffix("/") for each in page.folders):
                if _matches(inner, segment):
                    found += self.glob(inner, below) if below else self.objects(inner)
        return found

    def _glob_deep(self, folder: str, pattern: str) -> list[Details]:
        from fsspec.utils import glob_translate

        matches = re.compile(glob_translate(pattern)).match

        def stands_for(name: str) -> bool:
            parts = name.removeprefix(f"{folder}/").split("/")
            return any(matches("/".join(parts[:length])) for length in range(1, len(parts) + 1))

        return [each for each in self.objects(folder) if each.name != folder and stands_for(each.name)]

    def read(self, name: str, start: int, length: int | None) -> bytes:
        """Read an object or a part of it."""
        if length == 0:
            return b""
        first_stop = start + (_PIECE_BYTES if length is None else min(_PIECE_BYTES, length))
        first = self._first_piece(name, start, first_stop)
        size_bytes = first.object_size_bytes or 0
        stop = size_bytes if length is None else min(size_bytes, start + length)
        rest = in_parallel(
            lambda piece: self._piece(name, *piece, version=first.version).data,
            ranges(first_stop, stop, _PIECE_BYTES),
            max_workers=_PARALLEL_PIECES,
        )
        return b"".join((first.data, *rest)) if rest else first.data

    def reader(self, name: str) -> tuple[Reader, int]:
        """Return what reads ranges of an object, all of the version there is now, and its size in bytes."""
        found = self.info(name)
        return lambda start, stop: self._piece(name, start, stop, version=found.version).data, found.size_bytes

    def download(self, name: str, target: Path) -> None:
        """Copy an object to a local file."""
        with target.open("wb") as file:

            def fetch(piece: tuple[int, int], version: str) -> None:
                with piece_in_memory():
                    _write_at(file.fileno(), self._piece(name, *piece, version=version).data, piece[0])

            first = self._first_piece(name, 0, _PIECE_BYTES)
            _write_at(file.fileno(), first.data, 0)
            rest = ranges(_PIECE_BYTES, first.object_size_bytes or 0, _PIECE_BYTES)
            in_parallel(lambda piece: fetch(piece, first.version), rest, max_workers=_PARALLEL_PIECES)

    def write(self, name: str, data: bytes) -> None:
        """Write an object."""
        view = memoryview(data)
        self._send(name, len(data), lambda start, stop: data if stop - start == len(data) else bytes(view[start:stop]))

    def create(self, name: str, data: bytes) -> bool:
        """Write an object where there is none, and say whether it was us."""
        return self._put_over(name, data, ABSENT)

    def replace(self, name: str, data: bytes, version: str) -> bool:
        """Write an object over a version of it, and say whether it was us."""
        return self._put_over(name, data, version)

    def _put_over(self, name: str, data: bytes, version: str) -> bool:
        """Write an object if it has this version now, and say whether it was us.

        The answer to a request that went through may be lost, and the next one is told that there is another object:
        the mark, a number that is drawn here and kept in the object's metadata, tells it from another's.
        """
        mark = secrets.token_hex(16)
        try:
            retried(lambda: self.client.put(name, data, mark=mark, over=version))
        except FileExistsError:
            found = self._head(name)
            return found is not None and found.mark == mark
        return True

    def upload(self, source: Path, name: str) -> None:
        """Copy a local file to an object."""
        with source.open("rb") as file:
            size_bytes = os.fstat(file.fileno()).st_size

            def read(start: int, stop: int) -> bytes:
                data = os.pread(file.fileno(), stop - start, start)
                if len(data) != stop - start:
                    raise OSError(errno.EIO, f"{source} became shorter while it was uploaded")
                return data

            self._send(name, size_bytes, read)

    def remove(self, name: str) -> None:
        """Remove an object, and everything below it."""
        names = [each.name for page in self._pages(name, deep=True) for each in page.objects]
        if not name.endswith("/") and "/" in name:
            names.append(name)
        for start, stop in ranges(0, len(names), _PAGE_OBJECTS):
            self._delete(names[start:stop])

    # --- Requests -------------------------------------------------------------------------------------------------

    def _head(self, name: str) -> Details | None:
        return retried(lambda: self.client.head(name))

    def _is_folder(self, name: str) -> bool:
        page = self._page(name, deep=True, limit=1, after=None)
        return bool(page.objects)

    def _page(self, folder: str, *, deep: bool, limit: int, after: str | None) -> Page:
        return retried(lambda: self.client.page(folder.rstrip("/"), deep=deep, limit=limit, after=after))

    def _pages(self, folder: str, *, deep: bool) -> Iterator[Page]:
        page = self._page(folder, deep=deep, limit=_PAGE_OBJECTS, after=None)
        yield page
        while page.after is not None:
            page = self._page(folder, deep=deep, limit=_PAGE_OBJECTS, after=page.after)
            yield page

    def _delete(self, names: list[str]) -> None:
        retried(lambda: self.client.delete(names))

    def _first_piece(self, name: str, start: int, stop: int) -> Piece:
        try:
            return self._piece(name, start, stop, version=None)
        except FileNotFoundError:
            self._is_folder(name)  # raises where the bucket is missing
            raise

    def _piece(self, name: str, start: int, stop: int, *, version: str | None) -> Piece:
        """Read a range, and compare what came with what there is."""

        def get() -> Piece:
            piece = self.client.get(name, start, stop, version=version)
            size_bytes = piece.object_size_bytes
            if size_bytes is None:
                found = self.client.head(name)
                size_bytes = 0 if found is None else found.size_bytes
            expected_bytes = max(0, min(stop, size_bytes) - start)
            if len(piece.data) != expected_bytes:
                raise IncompleteAnswerError(len(piece.data), expected_bytes)
            return Piece(piece.data, size_bytes, piece.version)

        return retried(get)

    def _send(self, name: str, size_bytes: int, read: Callable[[int, int], bytes]) -> None:
        """Write an object whose bytes `read(start, stop)` gives, in one request or in parts."""
        client = self.client
        if size_bytes <= client.largest_put_bytes:
            with piece_in_memory():
                data = read(0, size_bytes)
                retried(lambda: client.put(name, data, mark="", over=None))
            return
        upload = retried(lambda: client.begin(name, mark=secrets.token_hex(16)))
        part_bytes = max(_PIECE_BYTES, -(-size_bytes // _MAX_PARTS))

        def send(numbered: tuple[int, tuple[int, int]]) -> str:
            number, (start, stop) = numbered
            with piece_in_memory():
                part = Part(number, read(start, stop))
                return retried(lambda: client.put_part(upload, part))

        try:
            pieces = ranges(0, size_bytes, part_bytes)
            receipts = in_parallel(send, list(enumerate(pieces, start=1)), max_workers=_PARALLEL_PIECES)
            retried(lambda: client.finish(upload, receipts=receipts))
        except BaseException:
            self._abort(upload)
            raise

    def _abort(self, upload: Upload) -> None:
        try:
            with errors_of(upload.name):
                retried(lambda: self.client.abort(upload))
        except StorageError as error:  # what made us give up is the error to report, and it is raised next
            _log.warning("storage: parts of an upload stay until the bucket's lifecycle removes them: %s", error)


def _write_at(descriptor: int, data: bytes, offset: int) -> None:
    """Write all bytes at a place in a file."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def _matches(name: str, pattern: str) -> bool:
    """Say whether the last part of a name is one that a pattern without slashes stands for."""
    return fnmatch.fnmatchcase(name.rpartition("/")[2], pattern)
