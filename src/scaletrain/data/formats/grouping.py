"""Bring together what belongs together, whatever its size: rows of one key, through files on the local disk.

Rows are dealt into FAN_OUT files by a hash of their key; a file that is still too large is dealt again. A group is
read back as a whole. The memory needed is that of one part (PART_BYTES on disk) or of one large group (at most
GROUP_BYTES; a larger one comes back without its rows), not that of the dump. The disk needed is that of the rows, in
a temporary folder (TMPDIR), and for a moment twice that of the part that is dealt again.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import orjson
import xxhash

from scaletrain.errors import StorageError
from scaletrain.scratch import scratch_folder

FAN_OUT = 64
PART_BYTES = 2 * 2**20
GROUP_BYTES = 64 * 2**20
_MAX_DEPTH = 4  # 64^4 parts of 2 MiB: what is larger yet is the rows of few keys


@dataclass(frozen=True, slots=True)
class Group:
    """The rows of one key in the order they were added; None where they take more than GROUP_BYTES, `count` of them."""

    key: str
    rows: list[list[Any]] | None
    count: int


class Grouping:
    """Rows on their way into groups: `add` them all, then read `groups` once. A context manager, for its folder.

    Both raise StorageError where the disk is full.
    """

    def __init__(self, *, part_bytes: int = PART_BYTES, group_bytes: int = GROUP_BYTES) -> None:
        self._part_bytes = part_bytes
        self._group_bytes = group_bytes
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        folder = self._stack.enter_context(scratch_folder("groups"))
        self._dealer = self._stack.enter_context(_Dealer(folder, depth=0))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def add(self, key: str, row: Sequence[object]) -> None:
        """Keep a row, of anything that JSON has."""
        self._dealer.deal(key, orjson.dumps([key, *row]) + b"\n")

    def groups(self) -> Iterator[Group]:
        """Yield all groups, in an order that is the same for the same rows."""
        for part in self._dealer.parts():
            yield from self._groups(part, depth=1)

    def _groups(self, part: Path, *, depth: int) -> Iterator[Group]:
        if part.stat().st_size <= self._part_bytes:
            groups: dict[str, list[list[Any]]] = {}
            for key, *row in map(orjson.loads, _lines(part)):
                groups.setdefault(key, []).append(row)
            part.unlink()
            while groups:  # what has been yielded need not be kept
                key = next(iter(groups))
                rows = groups.pop(key)
                yield Group(key, rows, len(rows))
        elif depth < _MAX_DEPTH:
            below = part.with_suffix("")
            below.mkdir()
            with _Dealer(below, depth=depth) as dealer:
                for line in _lines(part):
                    dealer.deal(orjson.loads(line)[0], line)
                part.unlink()
                for each in dealer.parts():
                    yield from self._groups(each, depth=depth + 1)
        else:
            yield from self._large_groups(part)

    def _large_groups(self, part: Path) -> Iterator[Group]:
        """Read a part that cannot be dealt further, a key at a time."""
        counts: dict[str, int] = {}
        sizes_bytes: dict[str, int] = {}
        for line in _lines(part):
            key = orjson.loads(line)[0]
            counts[key] = counts.get(key, 0) + 1
            sizes_bytes[key] = sizes_bytes.get(key, 0) + len(line)
        for key, count in counts.items():
            if sizes_bytes[key] > self._group_bytes:
                yield Group(key, None, count)
            else:
                rows = [row for each, *row in map(orjson.loads, _lines(part)) if each == key]
                yield Group(key, rows, count)
        part.unlink()


class _Dealer:
    """Up to FAN_OUT open files, and the hash that says which of them a key's rows go to: another one at each depth."""

    def __init__(self, folder: Path, *, depth: int) -> None:
        self._folder = folder
        self._depth = depth
        self._files: dict[int, BinaryIO] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for file in self._files.values():
            with suppress(OSError):  # of a full disk, which `deal` or `parts` have told
                file.close()

    def deal(self, key: str, line: bytes) -> None:
        number = xxhash.xxh3_64_intdigest(key.encode(), seed=self._depth) % FAN_OUT
        try:
            file = self._files.get(number)
            if file is None:
                file = self._files[number] = self._path(number).open("wb")
            file.write(line)
        except OSError as exc:
            raise _disk_error(self._folder, exc) from exc

    def parts(self) -> list[Path]:
        """Close the files, and return them in the order of their numbers."""
        try:
            for file in self._files.values():
                file.close()
        except OSError as exc:
            raise _disk_error(self._folder, exc) from exc
        return [self._path(number) for number in sorted(self._files)]

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:02}.jsonl"


def _disk_error(folder: Path, error: OSError) -> StorageError:
    return StorageError(
        f"{folder}: {error}; rows that belong together are brought together there: free space, or set TMPDIR"
    )


def _lines(part: Path) -> Iterator[bytes]:
    with part.open("rb") as file:
        yield from file
