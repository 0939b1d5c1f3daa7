"""Many streams at once: all of them complete, and memory stays where it was."""

import asyncio
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import orjson
import psutil
import pytest

from commands import wait_for
from serving import Running, served
from tiny import tiny_model_folder

# For `make soak` as the promise is; the long tests see it at a smaller size.
SOAK_STREAMS = int(os.environ.get("SCALETRAIN_LOAD_STREAMS", "500"))
SOAK_SECONDS = float(os.environ.get("SCALETRAIN_LOAD_SECONDS", "120"))
MEMORY_GROWTH_BYTES = 300 * 2**20
BODY = {
    "model": "tiny",
    "messages": [{"role": "user", "content": "Hello! How are you?"}],
    "max_tokens": 64,
    "stream": True,
    "stream_options": {"include_usage": True},
}


@dataclass
class Load:
    """What came of a load."""

    complete: int = 0
    failed: int = 0
    tokens: int = 0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tiny_model_folder(tmp_path_factory.mktemp("served") / "model")
    with served({"tiny": folder}, max_running=64, max_waiting=1000) as running:
        yield running


async def one_stream(client: httpx.AsyncClient, load: Load) -> None:
    """Ask once, and count whether the stream came to its end."""
    async with client.stream("POST", "/v1/chat/completions", json=BODY) as answer:
        last = b""
        async for line in answer.aiter_lines():
            if line.startswith("data: {"):
                last = line.removeprefix("data: ").encode()
            elif line == "data: [DONE]":
                load.complete += 1
                load.tokens += orjson.loads(last)["usage"]["completion_tokens"]
                return
    load.failed += 1


async def hold(url: str, *, streams: int, seconds: float) -> Load:
    """Keep as many streams open for so long, then let them end."""
    load, end = Load(), time.monotonic() + seconds

    async def keep_asking(client: httpx.AsyncClient) -> None:
        while time.monotonic() < end:
            await one_stream(client, load)

    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=600) as client:
        await asyncio.gather(*(keep_asking(client) for _ in range(streams)))
    return load


def check(server: Running, *, streams: int, seconds: float) -> None:
    asyncio.run(hold(server.url, streams=8, seconds=1))
    before = psutil.Process().memory_info().rss
    load = asyncio.run(hold(server.url, streams=streams, seconds=seconds))
    grown = psutil.Process().memory_info().rss - before
    print(f"{load.complete} streams, {load.tokens / seconds:,.0f} tokens/s, {grown / 2**20:,.0f} MiB more memory")
    assert load.failed == 0
    assert load.complete >= streams
    assert grown < MEMORY_GROWTH_BYTES
    # An answer is counted until its handler has returned: a moment after its last byte was read here.
    wait_for(lambda: server.service.running == 0, "every request to have ended")


@pytest.mark.long
def test_a_hundred_streams_at_once_all_complete(server: Running) -> None:
    """For five seconds, with bounded memory and nothing left behind."""
    check(server, streams=100, seconds=5)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_five_hundred_streams_for_two_minutes_all_complete(server: Running) -> None:
    """As the promise is; SCALETRAIN_LOAD_STREAMS and SCALETRAIN_LOAD_SECONDS make it another load."""
    check(server, streams=SOAK_STREAMS, seconds=SOAK_SECONDS)
