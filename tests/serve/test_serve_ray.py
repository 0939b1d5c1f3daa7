"""Models on Ray Serve: the same server in front of replicas, and what is lost when one of them is killed."""

import asyncio
import os
import signal
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from commands import descendants, wait_for
from scaletrain.config import StorageSection
from scaletrain.config_serve import ServeSection
from scaletrain.model.generate import Sampling, reply
from serving import Running, served
from tiny import tiny_model, tiny_model_folder, tiny_tokenizer

pytestmark = pytest.mark.long

HELLO: Any = [{"role": "user", "content": "Hello!"}]
LONG: Any = {"model": "tiny", "messages": HELLO, "max_tokens": 400, "stream": True, "seed": 1}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    from scaletrain.serve.deployment import ray_models, ray_serve

    folder = tiny_model_folder(tmp_path_factory.mktemp("served") / "model")
    store = StorageSection(root=str(folder.parent))
    settings: Any = {"device": "cpu", "replicas": 2, "cpus_per_replica": 0.1, "max_running": 4, "max_waiting": 8}
    section = ServeSection(**settings)
    with ray_serve():
        models = ray_models(section, store=store, root=store.root)
        with served(models, names={"tiny": folder}, **settings) as running:
            yield running


def test_an_answer_through_a_replica_is_the_models_own(server: Running) -> None:
    """Whole and streamed, as from an engine in this process."""
    expected = reply(tiny_model(), tiny_tokenizer(), HELLO, Sampling(temperature=0, max_new_tokens=12))
    settings: Any = {"model": "tiny", "messages": HELLO, "temperature": 0, "max_tokens": 12}
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
        assert client.chat.completions.create(**settings).choices[0].message.content == expected
        stream = client.chat.completions.create(stream=True, **settings)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == expected


def test_more_than_all_replicas_hold_is_refused_with_a_retry(server: Running) -> None:
    """429 for what is too much, an answer for all the rest."""

    async def ask_all() -> list[int]:
        async with httpx.AsyncClient(base_url=server.url, timeout=120) as client:
            body = {**LONG, "stream": False}
            asked = (client.post("/v1/chat/completions", json=body) for _ in range(80))
            return [answer.status_code for answer in await asyncio.gather(*asked)]

    statuses = asyncio.run(ask_all())
    assert set(statuses) == {200, 429}


def replicas() -> list[int]:
    """The processes of the engines."""
    return [each.pid for each in descendants(os.getpid(), "^ray::ServeReplica")]


def test_a_killed_replica_ends_only_its_own_streams(server: Running) -> None:
    """Each ends with an error that says to ask again; the others are whole, and so is every request after."""
    before = wait_for(lambda: len(found := replicas()) == 2 and found, "both replicas run")

    async def ask(client: openai.AsyncOpenAI) -> str:
        text = ""
        try:
            async for chunk in await client.chat.completions.create(**LONG):
                text += chunk.choices[0].delta.content or ""
        except openai.APIError as error:
            assert "ask again" in str(error)
            return "failed"
        return text

    async def kill_in_mid_load() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
            whole = await ask(client)
            asking = [asyncio.create_task(ask(client)) for _ in range(8)]
            await asyncio.sleep(0.3)
            os.kill(before[0], signal.SIGKILL)
            texts = await asyncio.gather(*asking)
            assert set(texts) == {"failed", whole}
            return await asyncio.gather(*(ask(client) for _ in range(4)))

    after = asyncio.run(kill_in_mid_load())
    assert "failed" not in after
    wait_for(lambda: len(replicas()) == 2, "the killed one is replaced", limit_s=60)
