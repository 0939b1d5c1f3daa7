"""A way out for emulated machines: an HTTP proxy that listens in their network and connects from this computer's.

Machines have no route and no resolver to the internet; programs that follow http_proxy and https_proxy (pip, apt-get,
curl) get through. This computer itself is out of reach, and so is the metadata service of a cloud that it runs in.
"""

import ctypes
import ipaddress
import os
import selectors
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from urllib.parse import urlsplit

_NEW_NETWORK = 0x40000000  # CLONE_NEWNET, https://man7.org/linux/man-pages/man2/setns.2.html
_CONNECT_LIMIT_S = 30
_HEAD_LIMIT_BYTES = 65536


class Proxy:
    """Serves in threads until it is closed."""

    def __init__(self, process: int, address: str, port: int) -> None:
        """Listen at an address of the network that a process is in."""
        self._listener = _listen_in(process, address, port)
        self._requests: list[tuple[str, str]] = []
        threading.Thread(target=self._accept, daemon=True, name="proxy").start()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def requests(self) -> list[tuple[str, str]]:
        """Return every request so far: the address of whoever made it, and the host it was for."""
        return list(self._requests)

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, (address, _) = self._listener.accept()
                note = partial(self._note, address)
                threading.Thread(target=_serve, args=(client, note), daemon=True).start()

    def _note(self, address: str, host: str) -> None:
        self._requests.append((address, host))


def _listen_in(process: int, address: str, port: int) -> socket.socket:
    """A socket stays in the network that its thread was in when it was made; the thread ends with that."""
    made: list[socket.socket | OSError] = []

    def make() -> None:
        library = ctypes.CDLL(None, use_errno=True)
        descriptor = os.open(f"/proc/{process}/ns/net", os.O_RDONLY)
        try:
            if library.setns(descriptor, _NEW_NETWORK) != 0:
                raise OSError(ctypes.get_errno(), "setns")
            made.append(socket.create_server((address, port), backlog=64))
        except OSError as error:
            made.append(error)
        finally:
            os.close(descriptor)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if isinstance(made[0], OSError):
        raise made[0]
    return made[0]


def _serve(client: socket.socket, note: Callable[[str], None]) -> None:
    with client, suppress(OSError):
        head, _, rest = _read_head(client).partition(b"\r\n\r\n")
        line, _, headers = head.partition(b"\r\n")
        method, target, version = line.decode("latin-1").split(" ", 2)
        url = urlsplit(f"//{target}" if method == "CONNECT" else target)
        note(url.hostname or "")
        try:
            server = _connect(url.hostname or "", url.port or 80)
        except OSError as error:
            client.sendall(f"HTTP/1.1 502 {error}\r\nContent-Length: 0\r\n\r\n".encode())
            return
        with server:
            if method == "CONNECT":
                client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            else:
                path = url._replace(scheme="", netloc="").geturl() or "/"
                kept = [
                    each for each in headers.split(b"\r\n") if not each.lower().startswith((b"proxy-", b"connection:"))
                ]
                first = f"{method} {path} {version}\r\n".encode("latin-1")
                server.sendall(first + b"\r\n".join([*kept, b"Connection: close"]) + b"\r\n\r\n")
            server.sendall(rest)
            _relay(client, server)


def _read_head(client: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data and len(data) < _HEAD_LIMIT_BYTES:
        chunk = client.recv(4096)
        if not chunk:
            raise OSError("closed before the request's head was whole")
        data += chunk
    return data


def _connect(host: str, port: int) -> socket.socket:
    family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    address = ipaddress.ip_address(place[0])
    if address.is_loopback or address.is_link_local or address.is_unspecified or _is_own(family, str(address)):
        raise OSError(f"{host} is this computer, not the internet")
    return socket.create_connection((str(address), port), timeout=_CONNECT_LIMIT_S)


def _is_own(family: int, address: str) -> bool:
    """A socket can be bound to an address of this computer's only."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def _relay(client: socket.socket, server: socket.socket) -> None:
    other = {client: server, server: client}
    for each in other:
        each.settimeout(None)
    with selectors.DefaultSelector() as selector:
        for each in other:
            selector.register(each, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select():
                source = key.fileobj
                assert isinstance(source, socket.socket)
                data = source.recv(65536)
                if data:
                    other[source].sendall(data)
                    continue
                selector.unregister(source)
                other[source].shutdown(socket.SHUT_WR)
