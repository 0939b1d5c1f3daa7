"""A proxy before an object store that does what networks and busy stores do; also a command, for benchmarks.

    python tests/fault_proxy.py http://127.0.0.1:9000 --latency-s 0.03

It speaks plain HTTP/1.1, passes every request on to one upstream server, and remembers them. A fault is given to the
first requests that match it, once unless told otherwise: an answer of our own instead of the store's, a connection
reset, an answer cut short, or an answer that never comes, or says otherwise, although the store has done what it was
asked.
"""

import argparse
import asyncio
import re
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import unquote, urlsplit

_CHUNK_BYTES = 2**18


@dataclass(frozen=True)
class Request:
    """What a client asked, without its body."""

    method: str
    target: str
    headers: dict[str, str]

    @property
    def path(self) -> str:
        """The path of the target, without query and escapes."""
        return unquote(self.target.partition("?")[0])


@dataclass
class Fault:
    """What happens to the next `times` requests that match.

    answer          the client gets `status` and `body`, and the store is not asked
    reset           the connection is reset after `after_bytes` of the answer's body, -1 for before the answer begins
    reset_upload    the connection is reset after `after_bytes` of the request's body
    short           the answer's body ends after `after_bytes`, and its Content-Length says that this is all
    drop_answer     the store is asked, and its answer is thrown away
    answer_after    the store is asked, and the client gets `status` and `body` in place of its answer
    """

    kind: Literal["answer", "reset", "reset_upload", "short", "drop_answer", "answer_after"]
    matches: Callable[[Request], bool]
    times: int = 1
    after_bytes: int = 0
    status: int = 503
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class FaultProxy:
    """Run a proxy on a free port of this machine while the context lasts."""

    def __init__(self, upstream: str, *, latency_s: float = 0.0) -> None:
        self.upstream = urlsplit(upstream)
        self.latency_s = latency_s
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._ready = threading.Event()
        self._port = 0

    @property
    def url(self) -> str:
        """Where the proxy listens."""
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> "FaultProxy":
        self._thread.start()
        self._ready.wait(timeout=30)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=30)

    def inject(self, kind: str, matches: Callable[[Request], bool], **details: object) -> Fault:
        """Add a fault, and return it: its `times` says how often it is still due."""
        fault = Fault(kind, matches, **details)  # type: ignore[arg-type]
        with self._lock:
            self.faults.append(fault)
        return fault

    def reset(self) -> None:
        """Forget all faults and all requests."""
        with self._lock:
            self.faults.clear()
            self.requests.clear()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**20))
        self._port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    def _take(self, request: Request) -> Fault | None:
        with self._lock:
            self.requests.append(request)
            for fault in self.faults:
                if fault.times > 0 and fault.matches(request):
                    fault.times -= 1
                    return fault
        return None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass the requests of one client's connection on, each over the same connection to the store."""
        store: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                request = request_of(head)
                fault = self._take(request)
                await asyncio.sleep(self.latency_s)
                if store is None or store[1].is_closing():
                    store = await asyncio.open_connection(self.upstream.hostname, self.upstream.port, limit=2**20)
                if not await self._exchange(head, request, fault, reader, writer, *store):
                    return
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            return  # the client, the store or the test has gone
        finally:
            writer.close()
            if store is not None:
                store[1].close()

    async def _exchange(
        self,
        head: bytes,
        request: Request,
        fault: Fault | None,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        from_store: asyncio.StreamReader,
        to_store: asyncio.StreamWriter,
    ) -> bool:
        """Pass one request and its answer on; says whether the connection can be used again."""
        kind = fault.kind if fault is not None else ""
        expects = request.headers.get("expect", "").lower() == "100-continue"
        if expects:
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            head = re.sub(rb"\r\nexpect:[^\r]*", b"", head, flags=re.IGNORECASE)
        if fault is not None and kind in ("answer", "reset_upload"):
            await pass_body(reader, None, request.headers, stop_after=fault.after_bytes if kind != "answer" else None)
            if kind == "reset_upload":
                return _reset(writer)
            writer.write(_answer(fault))
            await writer.drain()
            return True
        to_store.write(self._renamed(head, self.url, self.upstream.geturl()))
        await pass_body(reader, to_store, request.headers)
        answer = await from_store.readuntil(b"\r\n\r\n")
        status, headers = answer_of(answer)
        if request.method == "HEAD" or status in (204, 304):
            headers = {}
        elif "content-length" not in headers and "transfer-encoding" not in headers:
            headers["until-closed"] = "yes"
        goes_on = "until-closed" not in headers and "close" not in headers.get("connection", "").lower()
        if fault is not None and kind in ("drop_answer", "reset"):
            if kind == "drop_answer" or fault.after_bytes < 0:
                await pass_body(from_store, None, headers)
                return _reset(writer)
            writer.write(answer)
            await pass_body(from_store, writer, headers, stop_after=fault.after_bytes)
            return _reset(writer)
        if fault is not None and kind == "answer_after":
            await pass_body(from_store, None, headers)
            writer.write(_answer(fault))
            await writer.drain()
            return goes_on
        if fault is not None and kind == "short":
            size = str(fault.after_bytes).encode()
            answer = re.sub(rb"(?i)(\r\ncontent-length: )\d+", rb"\g<1>" + size, answer)
            writer.write(answer)
            await pass_body(from_store, writer, headers, stop_after=fault.after_bytes)
            return False
        writer.write(self._renamed(answer, self.upstream.geturl(), self.url))
        await pass_body(from_store, writer, headers)
        return goes_on

    def _renamed(self, head: bytes, old: str, new: str) -> bytes:
        """Put one server's address in the place of the other's, in Host and in Location."""
        return head.replace(urlsplit(old).netloc.encode(), urlsplit(new).netloc.encode())


async def pass_body(
    source: asyncio.StreamReader,
    target: asyncio.StreamWriter | None,
    headers: dict[str, str],
    *,
    stop_after: int | None = None,
) -> None:
    """Pass a body on (to nobody where there is no target), or only its first bytes."""
    if "chunked" in headers.get("transfer-encoding", "").lower():
        await _pass_chunks(source, target)
        return
    left = None if "until-closed" in headers else int(headers.get("content-length", "0"))
    if stop_after is not None:
        left = stop_after if left is None else min(left, stop_after)
    while left is None or left > 0:
        data = await source.read(_CHUNK_BYTES if left is None else min(_CHUNK_BYTES, left))
        if not data and left is None:
            break
        if not data:
            raise ConnectionResetError("the body ended early")
        if target is not None:
            target.write(data)
            await target.drain()
        left = None if left is None else left - len(data)
    if target is not None:
        await target.drain()


async def _pass_chunks(source: asyncio.StreamReader, target: asyncio.StreamWriter | None) -> None:
    while True:
        line = await source.readuntil(b"\r\n")
        size = int(line.split(b";")[0], 16)
        data = await source.readexactly(size + 2) if size else b""
        if target is not None:
            target.write(line + data)
            await target.drain()
        if size:
            continue
        while True:  # trailers, and the empty line after them
            trailer = await source.readuntil(b"\r\n")
            if target is not None:
                target.write(trailer)
            if trailer == b"\r\n":
                return


def _reset(writer: asyncio.StreamWriter) -> bool:
    writer.transport.abort()
    return False


def _answer(fault: Fault) -> bytes:
    headers = {"Content-Length": str(len(fault.body)), **fault.headers}
    lines = [f"HTTP/1.1 {fault.status} Injected", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + fault.body


def request_of(head: bytes) -> Request:
    """Read the head of a request."""
    first, headers = _parsed(head)
    method, target, _ = first.split(" ", 2)
    return Request(method, target, headers)


def answer_of(head: bytes) -> tuple[int, dict[str, str]]:
    """Read status and headers from the head of an answer."""
    first, headers = _parsed(head)
    return int(first.split(" ", 2)[1]), headers


def _parsed(head: bytes) -> tuple[str, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines if line)
    return first, {name.strip().lower(): value.strip() for name, _, value in pairs}


def main() -> None:
    """Print the proxy's URL, and serve until standard input is closed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("upstream", help="the store's URL, as http://127.0.0.1:9000")
    parser.add_argument(
        "--latency-s", type=float, default=0.0, help="how long each request waits before it is passed on"
    )
    arguments = parser.parse_args()
    with FaultProxy(arguments.upstream, latency_s=arguments.latency_s) as proxy:
        print(proxy.url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
