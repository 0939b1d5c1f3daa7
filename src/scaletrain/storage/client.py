"""What storage asks of an object store: a few requests, each of which is answered whole or fails.

A name is the object's path in its store and begins with the bucket: `bucket/runs/a/config.yaml`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

MARK = "scaletrain-mark"  # the metadata that tells the writer of an object whether it was its own request that made it
ABSENT = ""  # the version of an object that is not there
MIB = 2**20
MAX_CONNECTIONS = 64  # that a process keeps to one kind of store
CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 5.0, 30.0


@dataclass(frozen=True)
class Details:
    """One object as its store describes it; a listing tells neither mark nor checksum.

    Two objects of one kind of store that have the same size and checksum have the same bytes; "" says nothing.
    """

    name: str
    size_bytes: int
    version: str
    mark: str = ""
    checksum: str = ""


@dataclass(frozen=True)
class Page:
    """A part of a listing; `after` asks for the next one, and is None on the last."""

    objects: tuple[Details, ...]
    folders: tuple[str, ...]
    after: str | None


@dataclass(frozen=True)
class Piece:
    """Some bytes of an object; `object_size_bytes` is None where the store did not tell it with them."""

    data: bytes
    object_size_bytes: int | None
    version: str


@dataclass(frozen=True)
class Upload:
    """An upload in parts that has been started; `id` is the store's own name of it."""

    name: str
    id: str
    mark: str


@dataclass(frozen=True)
class Part:
    """One part of an upload; they count from 1."""

    number: int
    data: bytes


class Client(Protocol):
    """The requests of one kind of store. None of them is repeated here: `storage.retry` does that."""

    @property
    def largest_put_bytes(self) -> int:
        """The most that goes up in one request; more than that goes in parts."""

    def head(self, name: str) -> Details | None:
        """Describe an object; None where there is none, and also where there is no bucket."""

    def page(self, folder: str, *, deep: bool, limit: int, after: str | None) -> Page:
        """List what is below a folder: all objects, or only those directly in it and the names of its folders."""

    def get(self, name: str, start: int, stop: int, *, version: str | None) -> Piece:
        """Read the bytes from `start` up to `stop`, fewer at the end of the object; of one version if it is given."""

    def put(self, name: str, data: bytes, *, mark: str, over: str | None) -> None:
        """Write an object over whatever there is (None), over nothing (ABSENT), or over the version given alone.

        Raises FileExistsError where something else is there, or that version is gone.
        """

    def delete(self, names: Sequence[str]) -> None:
        """Remove up to a thousand objects of one bucket; missing ones are fine."""

    def begin(self, name: str, *, mark: str) -> Upload:
        """Start an upload in parts, which may go up side by side."""

    def put_part(self, upload: Upload, part: Part) -> str:
        """Send one part, and return the receipt for it; it may be sent again where the answer was lost."""

    def finish(self, upload: Upload, *, receipts: Sequence[str]) -> None:
        """Make the object of its parts; also right where an earlier attempt at it went through unnoticed."""

    def abort(self, upload: Upload) -> None:
        """Drop an upload and the parts that were sent."""


def piece_of(data: bytes, content_range: str | None, version: str) -> Piece:
    """Read the size of the whole object from a header as `bytes 0-99/1234`."""
    total = (content_range or "").rpartition("/")[2]
    return Piece(data, int(total) if total.isdigit() else None, version)
