"""One client at the other end of a connection: its request's body, what is sent to it, and whether it is there."""

import asyncio
from collections.abc import Awaitable, Mapping
from typing import Any

import orjson
from starlette.types import Receive, Scope, Send

from scaletrain.serve.api_errors import ApiError

# The HTTP server's way to cut a connection, in the scope's extensions.
ABORT = "scaletrain.abort"
_BODY_TIMEOUT_S = 60.0
_EVENT_HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would hold events back
)


class ClientGoneError(Exception):
    """The client went away before its request was whole."""


class Client:
    """Whoever sent a request; used by one task. `has_begun`: the status has been sent."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        self._path_parameters = scope.get("path_params", {})
        self._abort = scope.get("extensions", {}).get(ABORT, {}).get("call")
        self._receive = receive
        self._send = send
        self.has_begun = False

    def header(self, name: str) -> str:
        """A header of the request, empty where there is none; `name` in lower case."""
        value: str = self._headers.get(name, "")
        return value

    def path_parameter(self, name: str) -> str:
        return str(self._path_parameters[name])

    async def read_json(self, *, limit_bytes: int) -> bytes:
        """The request's body; raises ApiError where it is no JSON, too long, or does not come."""
        kind = self.header("content-type").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise ApiError(
                415, f"the body is {kind or 'of no named type'}; send JSON with content-type: application/json"
            )
        too_large = ApiError(
            413, f"the body is longer than {limit_bytes} bytes, which this server takes at most", code="body_too_large"
        )
        length = self.header("content-length")
        if length.isdecimal() and int(length) > limit_bytes:
            raise too_large
        parts, size = [], 0
        try:
            async with asyncio.timeout(_BODY_TIMEOUT_S):
                while True:
                    message = await self._receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGoneError
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > limit_bytes:
                        raise too_large
                    if not message.get("more_body"):
                        return b"".join(parts)
        except TimeoutError as exc:
            raise ApiError(408, f"the body did not come within {_BODY_TIMEOUT_S:g} s", code="timeout") from exc

    async def send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        """Send a whole answer."""
        head = [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
        head.append((b"content-length", str(len(body)).encode()))
        self.has_begun = True
        await self._send({"type": "http.response.start", "status": status, "headers": head})
        await self._send({"type": "http.response.body", "body": body})

    async def send_json(self, tree: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        await self.send(status, orjson.dumps(tree), {"content-type": "application/json", **(headers or {})})

    async def send_error(self, error: ApiError) -> None:
        await self.send_json(error.body(), status=error.status, headers=error.headers())

    async def begin_stream(self) -> None:
        """Send the status and headers of a stream of events."""
        self.has_begun = True
        await self._send({"type": "http.response.start", "status": 200, "headers": list(_EVENT_HEADERS)})

    async def send_event(self, data: bytes) -> None:
        """Send one event; `data` has no line end."""
        await self._send({"type": "http.response.body", "body": b"data: " + data + b"\n\n", "more_body": True})

    async def end_stream(self) -> None:
        await self._send({"type": "http.response.body", "body": b""})

    def abort(self) -> None:
        """Give up a client that reads nothing, and with it what is still to be sent."""
        if self._abort is not None:
            self._abort()

    async def while_there(self, work: Awaitable[None]) -> bool:
        """Do some work, once the body has been read; where the client goes away it is cancelled, and this is False."""
        task = asyncio.ensure_future(work)
        gone = asyncio.create_task(self._has_gone())
        try:
            await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        if task.cancelled():
            return False
        await task
        return True

    async def _has_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
