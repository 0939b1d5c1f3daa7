"""An object store through fsspec: one connection per process, no caches, and the few things fsspec leaves open.

s3:// and gs:// are what this is for; memory:// serves tests inside one process. Other fsspec protocols work as far as
their single writes are atomic and they know `mode="create"`; `scaletrain doctor` tries both.
"""

import errno
import functools
import io
import os
import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from scaletrain.errors import ConfigError, StorageError
from scaletrain.storage_errors import errors_of, service_code

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_PACKAGES = {"s3": "pip install 'scaletrain[aws]'", "gs": "pip install 'scaletrain[gcp]'"}
_STREAM_BLOCK_BYTES = 8 * 2**20
_CREATE_CONFLICT_ATTEMPTS = 10
_memory_lock = threading.Lock()


def protocol_of(url: str) -> str:
    """Return the fsspec protocol of a URL; "file" for a plain path."""
    protocol = url.partition("://")[0] if "://" in url else "file"
    return {"s3a": "s3", "gcs": "gs", "local": "file"}.get(protocol, protocol)


def open_file_system(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of a URL, shared by all threads of this process, and the path in it."""
    file_system = _connect(protocol_of(url), os.getpid())
    return file_system, file_system._strip_protocol(url)


def known_options(protocol: str) -> set[str]:
    """Return the names of the options that a protocol's file system takes."""
    import inspect

    kinds = _file_system_class(protocol).__mro__
    names = {name for kind in kinds for name in inspect.signature(kind.__init__).parameters}
    return (names | ({"profile"} if protocol == "s3" else set())) - {"self", "args", "kwargs", "storage_options"}


def reconnect(protocol: str, options: Mapping[str, str | int | float | bool]) -> None:
    """Let new connections of a protocol use these options (other users of fsspec in this process too)."""
    import fsspec.config

    fsspec.config.conf[protocol] = dict(options)
    _connect.cache_clear()


def exists(url: str) -> bool:
    """Say whether there is an object, or a folder with an object; a missing bucket is an error."""
    file_system, path = open_file_system(url)
    try:
        file_system.info(path)
    except FileNotFoundError as error:
        if service_code(error) == "NoSuchBucket":
            raise
        return False
    return True


def size_and_version(details: Mapping[str, Any]) -> tuple[int, str]:
    """Return size in bytes and version from what fsspec tells about an object."""
    if details["type"] == "directory":
        raise IsADirectoryError(details["name"])
    version = details.get("generation") or details.get("ETag") or details.get("etag")  # gs; s3; others
    if version is None:
        written = next(details[key] for key in ("mtime", "LastModified", "created") if key in details)
        version = written.timestamp() if hasattr(written, "timestamp") else written
    return int(details["size"]), str(version)


def objects_below(url: str) -> dict[str, dict[str, Any]]:
    """Return what fsspec tells about every object below a folder (or the object itself), by its path in the store."""
    file_system, path = open_file_system(url)
    found = file_system.find(path, detail=True)
    return {name: each for name, each in found.items() if each["type"] != "directory" and not name.endswith("/")}


def folders_in(url: str) -> list[str]:
    """Return the names of the folders directly below a folder, sorted."""
    file_system, path = open_file_system(url)
    try:
        entries = file_system.ls(path, detail=True)
    except FileNotFoundError:
        exists(url)  # raises where the bucket is missing
        return []
    return sorted(each["name"].rstrip("/").rpartition("/")[2] for each in entries if each["type"] == "directory")


def read(url: str, start: int, length: int | None) -> bytes:
    """Read an object or a part of it."""
    file_system, path = open_file_system(url)
    if start == 0 and length is None:
        return cast(bytes, file_system.cat_file(path))
    if length == 0:
        return b""
    try:
        return cast(bytes, file_system.cat_file(path, start=start, end=None if length is None else start + length))
    except OSError as error:
        if service_code(error) == "InvalidRange":  # starts at the end, or behind it
            return b""
        raise


def open_read(url: str) -> AbstractContextManager[BinaryIO]:
    """Open an object for streaming."""
    file_system, path = open_file_system(url)
    if protocol_of(url) == "memory":  # its file object is shared by all readers
        return io.BytesIO(file_system.cat_file(path))
    file = file_system.open(path, "rb", block_size=_STREAM_BLOCK_BYTES)
    return cast(BinaryIO, io.BufferedReader(_RemoteFile(url, file), buffer_size=2**20))


def write(url: str, data: bytes) -> None:
    """Write an object."""
    file_system, path = open_file_system(url)
    file_system.pipe_file(path, data)


def create(url: str, data: bytes) -> bool:
    """Write an object where there is none, and say whether it was us.

    S3: PutObject with If-None-Match; GCS: ifGenerationMatch=0.
    """
    file_system, path = open_file_system(url)
    with _memory_lock if protocol_of(url) == "memory" else nullcontext():
        for _ in range(_CREATE_CONFLICT_ATTEMPTS):
            try:
                file_system.pipe_file(path, data, mode="create")
                return True
            except OSError as error:
                if isinstance(error, FileExistsError) or service_code(error) == "PreconditionFailed":
                    return False
                # So S3 answers while another creation of the same key is under way; it asks to try again.
                if service_code(error) != "ConditionalRequestConflict":
                    raise
    raise OSError(errno.EBUSY, "others kept creating the same object; try again")


def remove(url: str, path: str) -> None:
    """Remove one object, by its path in the store of `url`."""
    with suppress(FileNotFoundError):
        open_file_system(url)[0].rm_file(path)


def upload(source: Path, url: str) -> None:
    """Copy a local file to a URL, in parts where it is big."""
    file_system, path = open_file_system(url)
    if protocol_of(url) == "memory":  # its put_file is not atomic
        file_system.pipe_file(path, source.read_bytes())
    else:
        file_system.put_file(str(source), path)


def download(url: str, target: Path) -> None:
    """Copy an object to a local file."""
    file_system, path = open_file_system(url)
    file_system.get_file(path, str(target))


class _RemoteFile(io.RawIOBase):
    """A remote file whose failures while reading are raised as ours."""

    def __init__(self, url: str, file: BinaryIO) -> None:
        self._url = url
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer).cast("B")
        with errors_of(self._url):
            data = self._file.read(len(view))
        view[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        with errors_of(self._url):
            return self._file.read()

    def close(self) -> None:
        self._file.close()
        super().close()


@functools.cache
def _connect(protocol: str, _pid: int) -> Any:
    """Make a file system without fsspec's caches; a forked process makes its own, as none survives a fork."""
    import fsspec

    _file_system_class(protocol)
    return fsspec.filesystem(protocol, skip_instance_cache=True, use_listings_cache=False)


def _file_system_class(protocol: str) -> Any:
    import fsspec

    try:
        return fsspec.get_filesystem_class(protocol)
    except ValueError as error:
        raise ConfigError(f"{protocol}://: unknown kind of URL; use s3://, gs:// or a local folder") from error
    except ImportError as error:
        remedy = _PACKAGES.get(protocol, f"install what it asks for: {error}")
        raise StorageError(f"{protocol}://: the package that speaks it is not installed; {remedy}") from error
