"""Plain HTTP for the bytes: one request from the calling thread, over connections that all threads of a process share.

s3fs and gcsfs send everything through the one event loop of a process, which is then what limits it. Requests that
carry many bytes go past it: they are signed with the same credentials, sent by urllib3, and their failures are told
in the same way.
"""

import functools
import os
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import urllib3

_MAX_CONNECTIONS = 64
CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 5.0, 30.0


@dataclass(frozen=True)
class Answer:
    """An answer that is all there; the names of the headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    data: bytes


def send(method: str, url: str, *, headers: Mapping[str, str], body: bytes | None, ca_certs: str | None) -> Answer:
    """Send one request; redirects are answers like others, and compressed objects come as they are stored."""
    answer = _pool(os.getpid(), ca_certs).request(
        method, url, headers=dict(headers), body=body, redirect=False, decode_content=False
    )
    return Answer(answer.status, {name.lower(): value for name, value in answer.headers.items()}, answer.data)


def is_direct(url: str) -> bool:
    """Say whether a server is reached without a proxy."""
    parts = urlsplit(url)
    proxied = parts.scheme in urllib.request.getproxies()
    return not proxied or bool(urllib.request.proxy_bypass(parts.netloc))


@functools.cache
def _pool(_pid: int, ca_certs: str | None) -> "urllib3.PoolManager":
    """The connections of a process; a forked one makes its own."""
    import urllib3

    timeout = urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=READ_TIMEOUT_S)
    return urllib3.PoolManager(num_pools=8, maxsize=_MAX_CONNECTIONS, retries=False, timeout=timeout, ca_certs=ca_certs)
