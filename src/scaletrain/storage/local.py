"""A local folder that behaves like a bucket: durable atomic writes, creation that one caller wins, no empty folders."""

import errno
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_CHANGED_MEANWHILE = (errno.ENOENT, errno.ENOTEMPTY, errno.EISDIR, errno.ENOTDIR)
_LOCK_S, _LOCK_POLL_S = 30.0, 0.05


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary file beside `path`; afterwards it is on the disk and takes the place of `path` in one step."""
    with _temporary_beside(path) as temporary:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)


def create(path: Path, data: bytes) -> bool:
    """Write a file where there is none, whole from its first moment, and say whether it was us (by a hard link)."""
    with _temporary_beside(path) as temporary:
        temporary.write_bytes(data)
        _sync(temporary)
        try:
            path.hardlink_to(temporary)
        except FileExistsError:
            if temporary.stat().st_nlink == 1:  # else NFS has made the link, lost the answer, and asked again
                return False
        _sync(path.parent)
    return True


def replace(path: Path, data: bytes, version: str) -> bool:
    """Write a file over a version of it, and say whether it was us.

    Whoever replaces a file holds a lock on it meanwhile, which goes with its process.
    """
    with _temporary_beside(path) as temporary:
        temporary.write_bytes(data)
        _sync(temporary)
        try:
            with path.open("rb+") as found:
                _lock(found.fileno())
                if not os.path.samestat(os.fstat(found.fileno()), path.stat()) or size_and_version(path)[1] != version:
                    return False
                temporary.replace(path)
        except FileNotFoundError:
            return False
        _sync(path.parent)
    return True


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with everything below it; a missing one is fine.

    What others remove or write there meanwhile is no error, as it is none in a bucket; what they write goes too.
    """
    while path.is_symlink() or path.exists():
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        except OSError as error:
            if error.errno not in _CHANGED_MEANWHILE:
                raise


def remove_half_written(folder: Path, *, unchanged_for_s: float) -> None:
    """Remove the temporary files directly in a folder that were last written to so long ago."""
    for path in folder.glob(".*.partial"):
        with suppress(FileNotFoundError):  # finished, or removed by somebody else
            if time.time() - path.stat().st_mtime >= unchanged_for_s:
                path.unlink()


def exists(path: Path) -> bool:
    """Say whether there is a file, or a folder with a file somewhere below it."""
    return path.is_file() or _has_files(path)


def folders_in(path: Path) -> list[str]:
    """Return the names of the folders directly below that have a file somewhere below them, sorted."""
    return sorted(each.name for each in path.iterdir() if _has_files(each)) if path.is_dir() else []


def files_below(path: Path) -> Iterator[Path]:
    """Yield all files below a folder, or the file itself; linked files count, linked folders are not entered."""
    if path.is_file() and not _is_partial(path.name):
        yield path
    for folder, _, names in os.walk(path, onerror=_raise_unless_missing):
        yield from (Path(folder, name) for name in names if not _is_partial(name))


def size_and_version(path: Path) -> tuple[int, str]:
    """Return the size of a file in bytes and a text that is another one whenever the file was replaced."""
    status = path.stat()
    if path.is_dir():
        raise IsADirectoryError(path)
    # Every write makes a new inode, so the version changes even within one tick of the file system's clock.
    return status.st_size, f"{status.st_mtime_ns}-{status.st_ino}-{status.st_size}"


@contextmanager
def _temporary_beside(path: Path) -> Iterator[Path]:
    _make_folder(path.parent)
    temporary = path.parent / f".{os.urandom(8).hex()}.partial"
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _lock(descriptor: int) -> None:
    """Wait for a lock, but not for ever: its holder may stand still."""
    deadline = time.monotonic() + _LOCK_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise OSError(error.errno, "a process that stands still is replacing this file; end it") from error
        time.sleep(_LOCK_POLL_S)


def _is_partial(name: str) -> bool:
    """Say whether a file is one that is being written, or that a killed process left half-written."""
    return name.startswith(".") and name.endswith(".partial")


def _has_files(path: Path) -> bool:
    return any(not _is_partial(name) for _, _, names in os.walk(path) for name in names)


def _raise_unless_missing(error: OSError) -> None:
    if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
        raise error


def _make_folder(path: Path) -> None:
    if not path.is_dir():
        _make_folder(path.parent)
        path.mkdir(exist_ok=True)
        _sync(path.parent)


def _sync(path: Path) -> None:
    """Force a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
