"""Which store a URL belongs to, and the connection to it: one a process, with the options it was configured with."""

import functools
import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from scaletrain.errors import ConfigError, StorageError
from scaletrain.storage.bucket import BucketStore
from scaletrain.storage.client import Details
from scaletrain.storage.fsspec import FsspecStore
from scaletrain.storage.gcs import GcsClient
from scaletrain.storage.http import CONNECT_TIMEOUT_S, READ_TIMEOUT_S
from scaletrain.storage.s3 import S3Client
from scaletrain.storage.s3_http import S3Http
from scaletrain.storage.streaming import Reader

Options = Mapping[str, str | int | float | bool]

_PACKAGES = {"s3": "pip install 'scaletrain[aws]'", "gs": "pip install 'scaletrain[gcp]'"}
_MAX_CONNECTIONS = 64


class Store(Protocol):
    """What can be asked of a store, by the names that its objects have in it."""

    def exists(self, name: str) -> bool: ...
    def info(self, name: str) -> Details: ...
    def objects(self, name: str) -> list[Details]: ...
    def folders(self, name: str) -> list[str]: ...
    def read(self, name: str, start: int, length: int | None) -> bytes: ...
    def reader(self, name: str) -> tuple[Reader, int]: ...
    def write(self, name: str, data: bytes) -> None: ...
    def create(self, name: str, data: bytes) -> bool: ...
    def remove(self, name: str) -> None: ...
    def upload(self, source: Path, name: str) -> None: ...
    def download(self, name: str, target: Path) -> None: ...
    def details_of(self, entry: Mapping[str, Any]) -> tuple[int, str]: ...


def protocol_of(url: str) -> str:
    """Return the fsspec protocol of a URL; "file" for a plain path."""
    protocol = url.partition("://")[0] if "://" in url else "file"
    return {"s3a": "s3", "gcs": "gs", "local": "file"}.get(protocol, protocol)


def store_of(url: str) -> tuple[Store, str]:
    """Return the store of a URL, shared by all threads of this process, and the name of the object in it."""
    file_system, name = open_file_system(url)
    protocol = protocol_of(url)
    if protocol == "s3":
        return BucketStore(S3Client(file_system, _s3_http(os.getpid()))), name
    if protocol == "gs":
        return BucketStore(GcsClient(file_system)), name
    return FsspecStore(file_system, in_memory=protocol == "memory"), name


def open_file_system(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of a URL and the path in it; its requests are sent once, see `storage.retry`."""
    file_system = _connect(protocol_of(url), os.getpid())
    return file_system, file_system._strip_protocol(url)


def known_options(protocol: str) -> set[str]:
    """Return the names of the options that a protocol's file system takes."""
    kinds = _file_system_class(protocol).__mro__
    names = {name for kind in kinds for name in inspect.signature(kind.__init__).parameters}
    return (names | ({"profile"} if protocol == "s3" else set())) - {"self", "args", "kwargs", "storage_options"}


def options_of(protocol: str) -> dict[str, str | int | float | bool]:
    """Return the options that a protocol was configured with in this process."""
    import fsspec.config

    return dict(fsspec.config.conf.get(protocol, {}))


def reconnect(protocol: str, options: Options) -> None:
    """Let new connections of a protocol use these options (other users of fsspec in this process too)."""
    import fsspec.config

    fsspec.config.conf[protocol] = dict(options)
    _connect.cache_clear()
    _s3_http.cache_clear()


@functools.cache
def _s3_http(pid: int) -> S3Http:
    return S3Http(_connect("s3", pid), options_of("s3"))


@functools.cache
def _connect(protocol: str, _pid: int) -> Any:
    """Make a file system without fsspec's caches and repetitions; no connection survives a fork."""
    kind = _file_system_class(protocol)
    fresh = {"skip_instance_cache": True, "use_listings_cache": False}
    if protocol == "s3":
        once = {
            "retries": {"total_max_attempts": 1},
            "max_pool_connections": _MAX_CONNECTIONS,
            "connect_timeout": CONNECT_TIMEOUT_S,
            "read_timeout": READ_TIMEOUT_S,
        }
        file_system = kind(**fresh, config_kwargs=once)
        file_system.retries = 1
        return file_system
    if protocol == "gs":
        import aiohttp

        once_kind = type(kind.__name__, (kind,), {"_request": inspect.unwrap(kind._request)})
        file_system = once_kind(**fresh)
        if file_system.requests_timeout is None:
            file_system.requests_timeout = aiohttp.ClientTimeout(
                total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=READ_TIMEOUT_S
            )
        return file_system
    return kind(**fresh)


def _file_system_class(protocol: str) -> Any:
    import fsspec

    # gcsfs would ask each bucket first whether it is one of the hierarchical kind, which takes a minute to time out
    # where nobody knows the question.
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    try:
        return fsspec.get_filesystem_class(protocol)
    except ValueError as error:
        raise ConfigError(f"{protocol}://: unknown kind of URL; use s3://, gs:// or a local folder") from error
    except ImportError as error:
        remedy = _PACKAGES.get(protocol, f"install what it asks for: {error}")
        raise StorageError(f"{protocol}://: the package that speaks it is not installed; {remedy}") from error
