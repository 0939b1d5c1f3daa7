"""Every question asked of storage, and every byte put there: a local folder, s3://, gs:// or any other fsspec URL.

A folder exists as long as there is an object below it, as in a bucket; an empty local folder does not count.
Every write is atomic: a reader sees the old object or the new one, never half. Listings are never cached. A request
that a bucket did not answer is sent again, for up to some 25 seconds. Functions may be called from any thread, and
after a fork. What goes wrong is a NotFoundError, AccessError or StorageError.
"""

import re
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from scaletrain.errors import ConfigError, NotFoundError, StorageError
from scaletrain.storage import local, remote
from scaletrain.storage.errors import errors_of, without_password
from scaletrain.storage.parallel import in_parallel
from scaletrain.storage.remote import protocol_of, store_of
from scaletrain.storage.streaming import stream


@dataclass(frozen=True)
class ObjectInfo:
    """One object; `version` changes whenever its bytes are replaced by others.

    Two objects of one kind of store that have the same size and `checksum` have the same bytes; "" says nothing, and a
    listing has none.
    """

    url: str
    size_bytes: int
    version: str
    checksum: str = field(default="", compare=False)


# --- URLs ---------------------------------------------------------------------------------------------------------


def join(url: str, *parts: str) -> str:
    """Append path parts to a URL or a local path."""
    for part in parts:
        if part := part.strip("/"):
            url = url + part if url.endswith("://") else f"{url.rstrip('/')}/{part}"
    return url


def is_local(url: str) -> bool:
    """Say whether a URL is a path on this machine."""
    return protocol_of(url) == "file"


def local_path(url: str) -> Path:
    """Return the path of a local URL; `~` is expanded."""
    assert is_local(url), url
    return Path(url.partition("://")[2] if "://" in url else url).expanduser()


def absolute(url: str) -> str:
    """Make a local path independent of the working directory; other URLs are returned as they are."""
    return str(local_path(url).absolute()) if is_local(url) else url


def configure(root: str, options: Mapping[str, str | int | float | bool]) -> None:
    """Set the options for the root's protocol, and connect anew; every process calls this once, at its start.

    Raises ConfigError for an unknown kind of URL and for an option that would be ignored.
    """
    if is_local(root):
        if options:
            raise ConfigError(f"storage.options: {root} is a local folder and takes no options; remove them")
        return
    protocol = protocol_of(root)
    known = remote.known_options(protocol)
    unknown = [name for name in options if name not in known]
    if unknown:
        import difflib

        close = difflib.get_close_matches(unknown[0], known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(sorted(known))}"
        raise ConfigError(f"storage.options.{unknown[0]}: no such option of {protocol}://; {hint}")
    remote.reconnect(protocol, options)


def options_of(url: str) -> dict[str, str | int | float | bool]:
    """Return the options that this process was configured with for a URL, for `configure` in another process."""
    return {} if is_local(url) else remote.options_of(protocol_of(url))


# --- Questions ----------------------------------------------------------------------------------------------------


def exists(url: str) -> bool:
    """Say whether there is an object at a URL, or a folder with an object below it."""
    with errors_of(url):
        if is_local(url):
            return local.exists(local_path(url))
        store, name = store_of(url)
        return store.exists(name)


def info(url: str) -> ObjectInfo:
    """Return size and version of an object; NotFoundError where there is none, or only a folder."""
    with errors_of(url):
        if is_local(url):
            return ObjectInfo(url, *local.size_and_version(local_path(url)))
        store, name = store_of(url)
        details = store.info(name)
        return ObjectInfo(url, details.size_bytes, details.version, details.checksum)


def list_objects(url: str) -> list[ObjectInfo]:
    """List all objects below a folder, sorted by URL; a missing folder has none, and an object is its own list.

    A bucket is asked once for each thousand objects.
    """
    found = []
    with errors_of(url):
        if is_local(url):
            root = local_path(url)
            for file in local.files_below(root):
                with suppress(FileNotFoundError):  # removed since it was listed
                    below = join(url, file.relative_to(root).as_posix()) if file != root else url
                    found.append(ObjectInfo(below, *local.size_and_version(file)))
        else:
            store, name = store_of(url)
            base = name.rstrip("/")
            for each in store.objects(name):
                found.append(ObjectInfo(join(url, each.name.removeprefix(base)), each.size_bytes, each.version))
    return sorted(found, key=lambda each: each.url)


def list_folders(url: str) -> list[str]:
    """Return the names of the folders directly below a folder, sorted; a missing folder has none.

    A bucket is asked once for each thousand folders and objects directly below.
    """
    with errors_of(url):
        if is_local(url):
            return local.folders_in(local_path(url))
        store, name = store_of(url)
        return store.folders(name)


def glob(pattern: str) -> list[ObjectInfo]:
    """List what a file, a folder (all below it) or a glob (`*`, `?`, `[a-z]`, `**`) stands for, sorted by URL."""
    if not re.search(r"[*?\[]", pattern):
        return list_objects(pattern)
    found: dict[str, ObjectInfo] = {}
    with errors_of(pattern):
        shown = _fixed_folder(pattern)
        if is_local(pattern):
            path = str(local_path(pattern))
            fixed = _fixed_folder(path)
            for match in Path(fixed).glob(path.removeprefix(fixed)):
                found |= {each.url: each for each in list_objects(shown + str(match).removeprefix(fixed))}
        else:
            store, name = store_of(pattern)
            fixed = _fixed_folder(name)
            for each in store.glob(fixed.rstrip("/"), name.removeprefix(fixed)):
                url = shown + each.name.removeprefix(fixed)
                found[url] = ObjectInfo(url, each.size_bytes, each.version)
    return [found[url] for url in sorted(found)]


def _fixed_folder(pattern: str) -> str:
    """Return the part of a pattern up to the last slash before its first wildcard."""
    fixed = re.split(r"[*?\[]", pattern)[0]
    return fixed[: fixed.rfind("/") + 1]


# --- Bytes --------------------------------------------------------------------------------------------------------


def read_bytes(url: str, *, start: int = 0, length: int | None = None) -> bytes:
    """Read an object, or `length` bytes from `start`; fewer where the object ends before."""
    with errors_of(url):
        if is_local(url):
            with local_path(url).open("rb") as file:
                file.seek(start)
                return file.read(-1 if length is None else length)
        store, name = store_of(url)
        return store.read(name, start, length)


def read_text(url: str) -> str:
    """Read an object as UTF-8."""
    try:
        return read_bytes(url).decode()
    except UnicodeDecodeError as error:
        name = without_password(url)
        raise StorageError(f"{name}: is not UTF-8 text (byte {error.start}); save it as UTF-8") from error


def read_lines(url: str) -> list[str]:
    """The same, by lines. Line feeds and carriage returns alone end one: U+2028 may stand inside a JSON text."""
    return [line.decode() for line in read_text(url).encode().splitlines()]


def open_read(url: str) -> AbstractContextManager[BinaryIO]:
    """Open an object for streaming; the file can seek."""
    with errors_of(url):
        if is_local(url):
            return local_path(url).open("rb")
        store, name = store_of(url)
        read, size_bytes = store.reader(name)

    def read_range(start: int, stop: int) -> bytes:
        with errors_of(url):
            return read(start, stop)

    return stream(read_range, size_bytes=size_bytes)


def write_bytes(url: str, data: bytes) -> None:
    """Write an object atomically and durably, over an old one if there is one."""
    with errors_of(url):
        if is_local(url):
            with local.replacing(local_path(url)) as temporary:
                temporary.write_bytes(data)
        else:
            store, name = store_of(url)
            store.write(name, data)


def write_text(url: str, text: str) -> None:
    """Write an object of UTF-8 text atomically and durably."""
    write_bytes(url, text.encode())


def create(url: str, data: bytes) -> bool:
    """Write an object only where there is none, and say whether it was us; of many callers exactly one is told True.

    It is that one too when the answer to its request was lost and it had to ask again.
    """
    with errors_of(url):
        if is_local(url):
            return local.create(local_path(url), data)
        store, name = store_of(url)
        return store.create(name, data)


def replace(url: str, data: bytes, *, version: str) -> bool:
    """Write an object only over the version of it that `info` told, and say whether it was us.

    False where another has taken its place, or it is gone. Like `create` it knows its own work again where an answer
    was lost. In a store of which only fsspec knows, the comparison and the write are two requests.
    """
    with errors_of(url):
        if is_local(url):
            return local.replace(local_path(url), data, version)
        store, name = store_of(url)
        return store.replace(name, data, version)


def remove(url: str) -> None:
    """Remove an object, or a folder and everything below it; a missing one is fine."""
    with errors_of(url):
        if is_local(url):
            local.remove(local_path(url))
        else:
            store, name = store_of(url)
            store.remove(name)


def remove_half_written(url: str, *, unchanged_for_s: float = 0) -> None:
    """Remove what killed processes left half-written directly in a local folder; a bucket shows nothing of the kind.

    A process that is writing there, and has not written for that long, gets an error.
    """
    if is_local(url):
        with errors_of(url):
            local.remove_half_written(local_path(url), unchanged_for_s=unchanged_for_s)


# --- Files and folders --------------------------------------------------------------------------------------------


def upload_file(path: Path, url: str) -> None:
    """Copy a local file to a URL, atomically."""
    if not path.is_file():
        raise NotFoundError(f"{path}: no such file to upload to {without_password(url)}")
    with errors_of(url):
        if is_local(url):
            with local.replacing(local_path(url)) as temporary:
                shutil.copyfile(path, temporary)
        else:
            store, name = store_of(url)
            store.upload(path, name)


def download_file(url: str, path: Path) -> None:
    """Copy an object to a local file, atomically; the folders above it are made."""
    with errors_of(url), local.replacing(path) as temporary:
        if is_local(url):
            shutil.copyfile(local_path(url), temporary)
        else:
            store, name = store_of(url)
            store.download(name, temporary)


def upload_folder(path: Path, url: str, *, max_workers: int = 8) -> None:
    """Copy the files below a local folder to a URL, in parallel; other objects there are left alone."""
    if not path.is_dir():
        raise NotFoundError(f"{path}: no such folder to upload to {without_password(url)}")
    names = [each.relative_to(path).as_posix() for each in local.files_below(path)]
    in_parallel(lambda name: upload_file(path / name, join(url, name)), sorted(names), max_workers=max_workers)


def download_folder(url: str, path: Path, *, max_workers: int = 8) -> None:
    """Copy all objects below a URL into a local folder, in parallel; NotFoundError where there are none."""
    prefix = url.rstrip("/") + "/"
    names = [each.url.removeprefix(prefix) for each in list_objects(url) if each.url.startswith(prefix)]
    if not names:
        raise NotFoundError(f"{without_password(url)}: no such folder; check the name")
    for name in names:
        if ".." in name.split("/"):
            raise StorageError(
                f"{without_password(join(url, name))}: would be written outside {path}; rename the object"
            )
    in_parallel(lambda name: download_file(join(url, name), path / name), names, max_workers=max_workers)
