"""What goes wrong while serving: clients that leave, engines that fail, too much of anything, ends with work left."""

import asyncio
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import orjson
import pytest

from commands import wait_for
from scaletrain.errors import EngineFailedError, ModelError, OverloadedError
from scaletrain.serve.protocol import Piece
from serving import Running, ScriptedEngine, replaceable, said, scripted, served

HELLO: Any = [{"role": "user", "content": "Hello!"}]
CHAT: Any = {"model": "tiny", "messages": HELLO}
ENDLESS = [Piece("word ", 1), 0.02] * 3000


def client_of(server: Running, **settings: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", **{"max_retries": 0, **settings})


def test_a_client_that_goes_away_stops_its_generation() -> None:
    """In the middle of a stream, and while it waits for a whole answer."""
    engine = ScriptedEngine(ENDLESS)
    with served(scripted(engine)) as server, client_of(server) as client:
        stream = client.chat.completions.create(stream=True, **CHAT)
        next(iter(stream))
        assert engine.running == 1
        stream.close()
        wait_for(lambda: engine.running == 0, "the stream's generation ends", limit_s=10)
        with pytest.raises(openai.APITimeoutError):
            client.with_options(timeout=0.5).chat.completions.create(n=3, **CHAT)
        wait_for(lambda: engine.running == 0 and engine.ended == 4, "the choices' generations end", limit_s=10)
        assert 'end="client_gone"' in httpx.get(f"{server.url}/metrics").text


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("error", "status"),
    [(OverloadedError("full"), 429), (EngineFailedError("broken"), 503), (ModelError("no such prompt"), 400)],
)
def test_an_engine_that_refuses_is_a_status_also_for_a_stream(error: Exception, status: int, stream: bool) -> None:
    """The status is not sent before there is something to say; what may pass has a Retry-After."""
    with served(scripted(ScriptedEngine([error]))) as server:
        answer = httpx.post(f"{server.url}/v1/chat/completions", json={**CHAT, "stream": stream})
    assert answer.status_code == status
    assert str(error) in answer.json()["error"]["message"]
    assert ("retry-after" in answer.headers) == (status != 400)


def test_the_official_client_tries_again_after_a_full_queue() -> None:
    """It waits for as long as the server says, and has its answer."""
    engine = ScriptedEngine([OverloadedError("full")])

    def recovered() -> bool:
        if engine.ended:
            engine.script = said("Hi", "!")
        return engine.ended > 0

    with (
        served(scripted(engine)) as server,
        client_of(server, max_retries=2) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        answer = pool.submit(lambda: client.chat.completions.create(**CHAT))
        wait_for(recovered, "the first try is refused", limit_s=10)
        assert answer.result(30).choices[0].message.content == "Hi!"
    assert engine.ended == 2


def test_an_engine_that_failed_is_loaded_again() -> None:
    """Until then the server says that it is not ready; the next look puts a new engine in its place."""
    made: list[ScriptedEngine] = []

    def make(_version: str) -> ScriptedEngine:
        made.append(ScriptedEngine(said("Hi") if made else [EngineFailedError("broken")]))
        return made[-1]

    with served(replaceable(make, lambda: "1")) as server, client_of(server) as client:
        with pytest.raises(openai.InternalServerError, match="broken"):
            client.chat.completions.create(**CHAT)
        assert httpx.get(f"{server.url}/ready").status_code == 503
        assert httpx.post(f"{server.url}/admin/reload").json() == {"replaced": ["tiny"]}
        assert httpx.get(f"{server.url}/ready").status_code == 200
        assert client.chat.completions.create(**CHAT).choices[0].message.content == "Hi"
        wait_for(lambda: made[0].is_closed, "the broken one is closed", limit_s=10)


@pytest.mark.parametrize("choices", [1, 2])
def test_an_engine_that_fails_in_a_stream_ends_it_with_an_error(choices: int) -> None:
    """The official client raises it; the text so far has come; the server goes on."""
    engine = ScriptedEngine([Piece("Once ", 1), EngineFailedError("the model broke")])
    with served(scripted(engine)) as server, client_of(server) as client:
        texts = []
        with pytest.raises(openai.APIError, match="the model broke"):
            for chunk in client.chat.completions.create(stream=True, n=choices, **CHAT):
                texts.append(chunk.choices[0].delta.content)
        assert "Once " in texts
        engine.script = said("Hi")
        assert client.chat.completions.create(**CHAT).choices[0].message.content == "Hi"


def test_an_answer_that_takes_too_long_is_stopped() -> None:
    """504 for a whole answer, an error at the end of a stream; both stop the engine."""
    engine = ScriptedEngine(ENDLESS)
    with served(scripted(engine), timeout_s=0.5) as server, client_of(server) as client:
        with pytest.raises(openai.InternalServerError, match=r"not done within 0\.5 s") as caught:
            client.chat.completions.create(**CHAT)
        assert caught.value.status_code == 504
        with pytest.raises(openai.APIError, match=r"not done within 0\.5 s"):
            list(client.chat.completions.create(stream=True, **CHAT))
        assert engine.running == 0


def connections(server: Running) -> int:
    return len(server.server._uvicorn.server_state.connections)


def test_connections_beyond_the_limit_are_refused_and_the_rest_go_on() -> None:
    """Sixty are held open; the next hears 503 at once; when they are gone there is room again."""
    with served(scripted(ScriptedEngine(said("Hi"))), max_connections=60) as server:
        address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
        held = [socket.create_connection(address) for _ in range(60)]
        wait_for(lambda: connections(server) >= 60, "they are open", limit_s=10)
        with socket.create_connection(address) as refused:
            refused.settimeout(10)
            assert refused.recv(200).startswith(b"HTTP/1.1 503")
        for each in held:
            each.close()
        wait_for(lambda: not connections(server), "they are gone", limit_s=10)
        assert httpx.post(f"{server.url}/v1/chat/completions", json=CHAT).status_code == 200


def test_a_head_without_end_is_cut_off() -> None:
    """Headers of more than 64 KiB end the connection, and cost no more memory than that."""
    with served(scripted(ScriptedEngine(said("Hi")))) as server:
        with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as client:
            client.sendall(b"GET /health HTTP/1.1\r\n")
            with pytest.raises(OSError):
                for number in range(4000):  # the system takes some megabytes before it tells that nobody reads them
                    client.sendall(b"x-more: " + b"y" * 1000 + b"\r\n")
                    time.sleep(0.01 * (number > 1000))
        assert httpx.get(f"{server.url}/health").status_code == 200


def test_a_drain_ends_what_runs_and_refuses_what_comes() -> None:
    """The stream that runs gets all of its text; a new request is told 503 and when to come back; then all is over."""
    engine = ScriptedEngine([*([Piece("word ", 1), 0.05] * 30), *said()])
    with served(scripted(engine), drain_s=30) as server, client_of(server) as client:
        stream = iter(client.chat.completions.create(stream=True, **CHAT))
        next(stream)
        server.stop()
        refused = wait_for(lambda: not_ready(server), "it says that it is not ready", limit_s=10)
        assert refused.headers["retry-after"] == "5"
        assert httpx.post(f"{server.url}/v1/chat/completions", json=CHAT).status_code == 503
        assert httpx.get(f"{server.url}/health").status_code == 200
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "word " * 30
        server.thread.join(10)
        assert not server.thread.is_alive()
    assert engine.is_closed


def not_ready(server: Running) -> httpx.Response | None:
    answer = httpx.get(f"{server.url}/ready")
    return answer if answer.status_code == 503 else None


def test_what_does_not_end_in_time_is_cut_short_with_an_error() -> None:
    """Its client is told to ask again, not left with half an answer that looks whole."""
    engine = ScriptedEngine(ENDLESS)
    with served(scripted(engine), drain_s=0.3) as server, client_of(server) as client:
        stream = iter(client.chat.completions.create(stream=True, **CHAT))
        next(stream)
        server.stop()
        with pytest.raises(openai.APIError, match="shutting down; ask again"):
            list(stream)
        server.thread.join(10)
        assert not server.thread.is_alive()


def test_a_newer_model_takes_over_without_a_request_lost() -> None:
    """Under load: every request is answered by one version, the old engine is closed after its last."""
    engines: dict[str, ScriptedEngine] = {}
    newest = ["1"]

    def make(version: str) -> ScriptedEngine:
        engines[version] = ScriptedEngine([*([Piece(version, 1), 0.01] * 5), *said()])
        return engines[version]

    async def ask(url: str, stop: Callable[[], bool]) -> list[str]:
        texts = []
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            while not stop():
                stream = await client.chat.completions.create(stream=True, **CHAT)
                texts.append("".join([chunk.choices[0].delta.content or "" async for chunk in stream]))
        return texts

    async def load(server: Running) -> list[str]:
        is_over = False
        asking = [asyncio.create_task(ask(server.url, lambda: is_over)) for _ in range(8)]
        for version in "23":
            await asyncio.sleep(0.3)
            newest[0] = version
            replaced = await asyncio.to_thread(httpx.post, f"{server.url}/admin/reload")
            assert replaced.json() == {"replaced": ["tiny"]}
        await asyncio.sleep(0.3)
        is_over = True
        return [text for texts in await asyncio.gather(*asking) for text in texts]

    with served(replaceable(make, lambda: newest[0])) as server:
        texts = asyncio.run(load(server))
        assert set(texts) == {"11111", "22222", "33333"}
        assert [engines[each].is_closed for each in "123"] == [True, True, False]
        assert httpx.get(f"{server.url}/v1/models").json()["data"][0]["version"] == "3"


def test_a_newer_model_that_cannot_be_loaded_leaves_the_old_one() -> None:
    """Also one that is not whole yet, where there is none to be read at the moment."""
    newest: list[str | None] = ["1"]

    def make(version: str) -> ScriptedEngine:
        if version != "1":
            raise ModelError("damaged")
        return ScriptedEngine(said(version))

    with served(replaceable(make, lambda: newest[0])) as server, client_of(server) as client:
        for version in ("2", None):
            newest[0] = version
            assert httpx.post(f"{server.url}/admin/reload").json() == {"replaced": []}
            assert client.chat.completions.create(**CHAT).choices[0].message.content == "1"


def test_a_client_that_reads_nothing_holds_up_nobody() -> None:
    """Its stream ends at the time limit, others are answered meanwhile."""
    engine = ScriptedEngine([Piece("x" * 100_000, 1), 0.001] * 2000)
    with served(scripted(engine), timeout_s=1.0) as server:
        address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
        body = orjson.dumps({**CHAT, "stream": True})
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}"
        )
        with socket.create_connection(address) as silent:
            silent.sendall(head.encode() + b"\r\n\r\n" + body)
            wait_for(lambda: engine.running == 1, "it is being answered", limit_s=10)
            started = time.monotonic()
            assert httpx.get(f"{server.url}/health").status_code == 200
            assert time.monotonic() - started < 30
            wait_for(lambda: engine.running == 0, "its generation ends", limit_s=20)
            wait_for(lambda: not connections(server), "its connection is cut", limit_s=20)
