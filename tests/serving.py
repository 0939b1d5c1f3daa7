"""Servers of `scaletrain serve` for tests: the real HTTP server in a thread, over the real engine or a scripted one."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from scaletrain.config_serve import ServeSection
from scaletrain.listening import bind
from scaletrain.serve.app import Service
from scaletrain.serve.feedback import FeedbackFile
from scaletrain.serve.http_server import ApiServer
from scaletrain.serve.keys import KeyRing
from scaletrain.serve.local import local_models
from scaletrain.serve.models import Models, Origin, ServedModel
from scaletrain.serve.protocol import EngineStatus, Piece, Sampled
from tiny import tiny_tokenizer

_START_S = 120.0


@dataclass
class ScriptedEngine:
    """An engine that does what its script says: yields a Piece, raises an Exception, sleeps for a float of seconds.

    `asked`: the prompts so far. `ended`: how many streams have been closed, by their end or by who read them.
    """

    script: Sequence[Piece | Exception | float]
    context_tokens: int = 200
    asked: list[tuple[list[int], Sampled]] = field(default_factory=list)
    running: int = 0
    ended: int = 0
    is_closed: bool = False

    async def stream(self, prompt: list[int], sampled: Sampled) -> AsyncIterator[Piece]:
        self.asked.append((prompt, sampled))
        self.running += 1
        try:
            for step in self.script:
                assert not self.is_closed, "an engine was closed under a stream"
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, float):
                    await asyncio.sleep(step)
                else:
                    yield step
        finally:
            self.running -= 1
            self.ended += 1

    def status(self) -> EngineStatus:
        return EngineStatus(running=self.running, waiting=0, cached_tokens=0, cache_tokens=1000)

    async def close(self) -> None:
        self.is_closed = True


def said(*texts: str) -> list[Piece | Exception | float]:
    """The script of an answer: one token a text, then its end."""
    return [*(Piece(text, 1) for text in texts), Piece("", 1, finish_reason="stop")]


def scripted(engine: ScriptedEngine) -> Models:
    """Models of one scripted engine, whatever they are called."""
    return replaceable(lambda _version: engine, lambda: "1")


def replaceable(
    make: Callable[[str], ScriptedEngine], version: Callable[[], str | None], *, tokenizer: Any = None
) -> Models:
    """Models whose newest version is what `version` says, each with an engine that `make` makes of it."""

    async def load(origin: Origin) -> ServedModel:
        engine = make(origin.version)
        return ServedModel(origin, {origin.name: engine}, tokenizer or tiny_tokenizer(), close_engine=engine.close)

    async def newest(_source: str) -> str | None:
        return version()

    return Models(load, newest)


@dataclass
class Running:
    """A server in a thread. `stop` begins its drain; `wait` until it has ended."""

    server: ApiServer
    loop: asyncio.AbstractEventLoop
    thread: threading.Thread

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def service(self) -> Service:
        return self.server.service

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.server.stop)

    def call(self, work: Any) -> Any:
        """Await something in the server's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(_START_S)


@contextmanager
def served(
    models: Models | Mapping[str, str | Path],
    *,
    keys: Path | None = None,
    feedback: Path | None = None,
    names: Mapping[str, str | Path] | None = None,
    root: str = "bucket",
    adapters: Mapping[str, str] | None = None,
    **settings: Any,
) -> Iterator[Running]:
    """Serve folders by name with the real engine, or Models with their sources by name, on a free port."""
    section = ServeSection(**{"port": 0, "reload_s": 0, "drain_s": 5, "device": "cpu", **settings})
    if isinstance(models, Models):
        origins = [Origin(name, str(source)) for name, source in (names or {"tiny": "tiny"}).items()]
    else:
        origins = [Origin(name, str(folder), adapters or {}) for name, folder in models.items()]
        models = local_models(section, root=root)
    bound = bind(section.host, section.port)
    is_ready, running, failed = threading.Event(), [], []

    async def main() -> None:
        service = Service(
            section, models, KeyRing(keys) if keys else None, FeedbackFile(feedback) if feedback else None
        )

        def ready(server: ApiServer) -> None:
            running.append(Running(server, asyncio.get_running_loop(), thread))
            is_ready.set()

        await ApiServer(service, bound).run(origins, ready=ready)

    def run() -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(main())
        except Exception as error:  # noqa: BLE001 - raised in the test's own thread below
            failed.append(error)
        finally:
            is_ready.set()

    thread = threading.Thread(target=run, name="server")
    thread.start()
    assert is_ready.wait(_START_S), "the server did not start"
    if failed:
        raise failed[0]
    try:
        yield running[0]
    finally:
        if thread.is_alive():
            running[0].stop()
            running[0].stop()
        thread.join(30)
        assert not thread.is_alive(), "the server did not end"
    if failed:
        raise failed[0]
