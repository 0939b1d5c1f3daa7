"""The HTTP server: uvicorn with bounds on connections, a drain on SIGTERM, and a look for newer models on SIGHUP."""

import asyncio
import contextlib
import resource
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from scaletrain.log import get_logger
from scaletrain.serve.app import Service, make_app
from scaletrain.serve.models import Origin
from scaletrain.serve.wire import ABORT

_REQUEST_HEAD_TIMEOUT_S = 30.0
_LARGEST_HEAD_BYTES = 2**16
_KEEP_ALIVE_S = 75  # longer than the usual proxy's, which would else send into a closing connection
_LAST_TASKS_S = 6
_BACKLOG = 2048
_LOOK_EVERY_S = 0.1
_REFUSAL_BODY = (
    b'{"error":{"message":"the server has as many connections as it takes; ask again",'
    b'"type":"server_error","param":null,"code":"too_many_connections"}}'
)
_REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%b" % (len(_REFUSAL_BODY), _REFUSAL_BODY)
)

log = get_logger(__name__)


class ApiServer:
    """A running server; its methods are called in its own event loop."""

    def __init__(self, service: Service, bound: socket.socket) -> None:
        self.service = service
        self._bound = bound
        self._drain: asyncio.Task[None] | None = None
        config = uvicorn.Config(
            make_app(service),
            http=_protocol(service.section.max_connections),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            backlog=_BACKLOG,
            timeout_graceful_shutdown=_LAST_TASKS_S,
        )
        self._uvicorn = _Uvicorn(config)

    @property
    def url(self) -> str:
        """Where it answers."""
        host, port = self._bound.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def run(self, origins: Sequence[Origin], *, ready: Callable[["ApiServer"], None]) -> None:
        """Load the models, tell that it is ready, and serve until `stop`."""
        service = self.service
        watching: asyncio.Task[None] | None = None
        _allow_many_files()
        try:
            for origin in origins:
                await service.models.add(origin)
            self._handle_signals()
            if service.section.reload_s:
                watching = asyncio.create_task(service.models.watch(every_s=service.section.reload_s))
            serving = asyncio.create_task(self._uvicorn.serve(sockets=[self._bound]))
            while not self._uvicorn.started and not serving.done():
                await asyncio.sleep(_LOOK_EVERY_S)
            if self._uvicorn.started:
                ready(self)
            await serving
        finally:
            if watching is not None:
                watching.cancel()
            await service.models.close()
            self._bound.close()

    def stop(self) -> None:
        """Refuse new requests, let those that run end in time, then end; called again: end at once."""
        if self._drain is None:
            self._drain = asyncio.create_task(self._drained())
        else:
            self.service.deadlines.end_now()
            self._uvicorn.should_exit = True

    async def _drained(self) -> None:
        service = self.service
        service.is_draining = True
        if service.running:
            log.info("ending: requests that run have %g s (%d of them)", service.section.drain_s, service.running)
        with suppress(TimeoutError):
            async with asyncio.timeout(service.section.drain_s):
                while service.running:
                    await asyncio.sleep(_LOOK_EVERY_S)
        if service.running:
            log.warning("requests did not end in time and are cut short (%d of them)", service.running)
        service.deadlines.end_now()
        self._uvicorn.should_exit = True

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()

        def reload() -> None:
            task = loop.create_task(self.service.models.reload())
            task.add_done_callback(lambda done: done.exception())

        with suppress(RuntimeError, ValueError):  # not the main thread, as in tests
            loop.add_signal_handler(signal.SIGTERM, self.stop)
            loop.add_signal_handler(signal.SIGINT, self.stop)
            loop.add_signal_handler(signal.SIGHUP, reload)


class _Uvicorn(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the ApiServer's."""
        yield


def _protocol(max_connections: int) -> type[HttpToolsProtocol]:
    class Bounded(HttpToolsProtocol):
        """One connection: refused where there are too many, closed where a request's head never ends."""

        _head_timer: asyncio.TimerHandle | None = None
        _head_bytes = 0

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > max_connections:
                transport.write(_REFUSAL)
                transport.close()
                return
            self._await_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._head_is_there()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._head_bytes = 0 if self._head_timer is None else self._head_bytes + len(data)
            if self._head_bytes > _LARGEST_HEAD_BYTES:
                self.transport.abort()

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self.scope["extensions"] = {ABORT: {"call": self.transport.abort}}
            self._head_is_there()
            self._await_head()

        def on_headers_complete(self) -> None:
            self._head_is_there()
            super().on_headers_complete()

        def _await_head(self) -> None:
            self._head_timer = self.loop.call_later(_REQUEST_HEAD_TIMEOUT_S, self.transport.close)

        def _head_is_there(self) -> None:
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None

    return Bounded


def _allow_many_files() -> None:
    """Every connection is an open file; the soft limit is often 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
