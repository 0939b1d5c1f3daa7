"""Objects in any other file system that fsspec knows; memory:// serves tests inside one process.

These work as far as their single writes are atomic and they know `mode="create"`; `scaletrain doctor` tries both.
"""

import threading
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from scaletrain.storage.client import Details
from scaletrain.storage.parallel import in_parallel
from scaletrain.storage.retry import retried
from scaletrain.storage.streaming import Reader

_memory_lock = threading.Lock()


@dataclass(frozen=True)
class FsspecStore:
    """All that storage does in a file system of fsspec; see `Store`."""

    file_system: Any
    in_memory: bool

    def exists(self, name: str) -> bool:
        """Say whether there is an object, or a folder."""
        try:
            retried(lambda: self.file_system.info(name))
        except FileNotFoundError:
            return False
        return True

    def info(self, name: str) -> Details:
        """Describe an object."""
        return Details(name, *self._details_of(retried(lambda: self.file_system.info(name))))

    def objects(self, name: str) -> list[Details]:
        """List all objects below a folder, or the object itself."""
        found = retried(lambda: self.file_system.find(name, detail=True))
        return [
            Details(each, *self._details_of(entry))
            for each, entry in found.items()
            if entry.get("type") != "directory" and not each.endswith("/")
        ]

    def folders(self, name: str) -> list[str]:
        """Name the folders directly below a folder."""
        try:
            entries = retried(lambda: self.file_system.ls(name, detail=True))
        except FileNotFoundError:
            return []
        return sorted(each["name"].rstrip("/").rpartition("/")[2] for each in entries if each["type"] == "directory")

    def read(self, name: str, start: int, length: int | None) -> bytes:
        """Read an object or a part of it."""
        if length == 0:
            return b""
        end = None if length is None else start + length
        return cast(bytes, retried(lambda: self.file_system.cat_file(name, start=start or None, end=end)))

    def reader(self, name: str) -> tuple[Reader, int]:
        """Return what reads ranges of an object, and its size in bytes."""
        return lambda start, stop: self.read(name, start, stop - start), self.info(name).size_bytes

    def write(self, name: str, data: bytes) -> None:
        """Write an object."""
        retried(lambda: self.file_system.pipe_file(name, data))

    def create(self, name: str, data: bytes) -> bool:
        """Write an object where there is none, and say whether it was us."""
        with _memory_lock if self.in_memory else nullcontext():
            try:
                self.file_system.pipe_file(name, data, mode="create")
            except FileExistsError:
                return False
        return True

    def replace(self, name: str, data: bytes, version: str) -> bool:
        """Write an object over a version of it, and say whether it was us; one request after the other."""
        with _memory_lock if self.in_memory else nullcontext():
            try:
                if self.info(name).version != version:
                    return False
            except FileNotFoundError:
                return False
            self.file_system.pipe_file(name, data)
        return True

    def remove(self, name: str) -> None:
        """Remove an object, and everything below it."""

        def remove(each: str) -> None:
            with suppress(FileNotFoundError):
                retried(lambda: self.file_system.rm_file(each))

        in_parallel(remove, sorted({name, *(each.name for each in self.objects(name))}), max_workers=16)

    def upload(self, source: Path, name: str) -> None:
        """Copy a local file to an object."""
        if self.in_memory:  # its put_file is not atomic
            self.file_system.pipe_file(name, source.read_bytes())
        else:
            retried(lambda: self.file_system.put_file(str(source), name))

    def download(self, name: str, target: Path) -> None:
        """Copy an object to a local file."""
        retried(lambda: self.file_system.get_file(name, str(target)))

    def glob(self, folder: str, pattern: str) -> list[Details]:
        """List what a pattern stands for in a folder; a folder that matches stands for all objects below it."""
        try:
            matches = retried(lambda: self.file_system.glob(f"{folder}/{pattern}"))
        except FileNotFoundError:
            return []
        return [details for each in matches for details in self.objects(each)]

    def _details_of(self, entry: Mapping[str, Any]) -> tuple[int, str]:
        if entry["type"] == "directory":
            raise IsADirectoryError(entry["name"])
        version = entry.get("ETag") or entry.get("etag")
        if version is None:
            written = next(entry[key] for key in ("mtime", "LastModified", "created") if key in entry)
            version = written.timestamp() if hasattr(written, "timestamp") else written
        return int(entry["size"]), str(version)
