"""Which store a URL belongs to, and the connection to it: one a process, with the options it was configured with."""

import functools
import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from scaletrain.errors import ConfigError, StorageError
from scaletrain.storage import gcs, s3
from scaletrain.storage.bucket import BucketStore
from scaletrain.storage.client import Details
from scaletrain.storage.fsspec import FsspecStore
from scaletrain.storage.streaming import Reader

Options = Mapping[str, str | int | float | bool]

_BUCKETS = {"s3": s3, "gs": gcs}
_PACKAGES = {"s3": "pip install 'scaletrain[aws]'", "gs": "pip install 'scaletrain[gcp]'"}


class Store(Protocol):
    """What can be asked of a store, by the names that its objects have in it."""

    def exists(self, name: str) -> bool: ...
    def info(self, name: str) -> Details: ...
    def objects(self, name: str) -> list[Details]: ...
    def folders(self, name: str) -> list[str]: ...
    def glob(self, folder: str, pattern: str) -> list[Details]: ...
    def read(self, name: str, start: int, length: int | None) -> bytes: ...
    def reader(self, name: str) -> tuple[Reader, int]: ...
    def write(self, name: str, data: bytes) -> None: ...
    def create(self, name: str, data: bytes) -> bool: ...
    def replace(self, name: str, data: bytes, version: str) -> bool: ...
    def remove(self, name: str) -> None: ...
    def upload(self, source: Path, name: str) -> None: ...
    def download(self, name: str, target: Path) -> None: ...


def protocol_of(url: str) -> str:
    """Return the fsspec protocol of a URL; "file" for a plain path."""
    protocol = url.partition("://")[0] if "://" in url else "file"
    return {"s3a": "s3", "gcs": "gs", "local": "file"}.get(protocol, protocol)


def store_of(url: str) -> tuple[Store, str]:
    """Return the store of a URL, shared by all threads of this process, and the name of the object in it."""
    protocol = protocol_of(url)
    store = _connect(protocol, os.getpid())
    if isinstance(store, FsspecStore):
        return store, store.file_system._strip_protocol(url)
    return store, url.partition("://")[2].rstrip("/")


def known_options(protocol: str) -> set[str]:
    """Return the names of the options that a protocol takes."""
    if protocol in _BUCKETS:
        return set(_BUCKETS[protocol].OPTIONS)
    kinds = _file_system_class(protocol).__mro__
    names = {name for kind in kinds for name in inspect.signature(kind.__init__).parameters}
    return names - {"self", "args", "kwargs", "storage_options"}


def options_of(protocol: str) -> dict[str, str | int | float | bool]:
    """Return the options that a protocol was configured with in this process."""
    import fsspec.config

    return dict(fsspec.config.conf.get(protocol, {}))


def reconnect(protocol: str, options: Options) -> None:
    """Let new connections of a protocol use these options (other users of fsspec in this process too)."""
    import fsspec.config

    fsspec.config.conf[protocol] = dict(options)
    _connect.cache_clear()


@functools.cache
def _connect(protocol: str, _pid: int) -> Store:
    """Connect to a kind of store; no connection survives a fork."""
    if protocol not in _BUCKETS:
        file_system = _file_system_class(protocol)(skip_instance_cache=True, use_listings_cache=False)
        return FsspecStore(file_system, in_memory=protocol == "memory")
    try:
        return BucketStore(_BUCKETS[protocol].connect(options_of(protocol)))
    except ImportError as error:
        raise _not_installed(protocol, _PACKAGES[protocol]) from error


def _file_system_class(protocol: str) -> Any:
    import fsspec

    try:
        return fsspec.get_filesystem_class(protocol)
    except ValueError as error:
        raise ConfigError(f"{protocol}://: unknown kind of URL; use s3://, gs:// or a local folder") from error
    except ImportError as error:
        raise _not_installed(protocol, f"install what it asks for: {error}") from error


def _not_installed(protocol: str, remedy: str) -> StorageError:
    return StorageError(f"{protocol}://: the package that speaks it is not installed; {remedy}")
