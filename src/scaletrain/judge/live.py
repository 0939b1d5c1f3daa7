"""Answers taken live: a judge asks, and two models of OpenAI-compatible servers answer side by side as they go.

Which two, and on which side each one stands, is drawn anew for every question. The question is kept with both answers
when both are whole, and can be voted on from then on; whoever closes the page stops the models.
"""

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import orjson

from scaletrain.errors import ModelError
from scaletrain.event_stream import DONE, EventStream
from scaletrain.judge.contenders import Contender, server_and_model
from scaletrain.judge.items import Item, LivePair

if TYPE_CHECKING:
    from httpx import AsyncClient

Side = Literal["left", "right"]

_TIMEOUT_S = 120.0  # until the next piece of an answer
_SHOWN_CHARACTERS = 300


@dataclass(frozen=True)
class LiveSetting:
    """Whom to ask, and how; `key` is sent as the bearer token."""

    contenders: tuple[Contender, ...]
    temperature: float = 0.7
    max_tokens: int = 512
    system_prompt: str | None = None
    key: str | None = None


@dataclass(frozen=True)
class Duel:
    """A question to two models, on their sides."""

    setting: LiveSetting
    judge: str
    question: str
    left: Contender
    right: Contender

    @property
    def messages(self) -> tuple[dict[str, str], ...]:
        """What both are asked."""
        system = self.setting.system_prompt
        first = () if system is None else ({"role": "system", "content": system},)
        return (*first, {"role": "user", "content": self.question})

    async def pieces(self) -> AsyncGenerator[tuple[Side, str], None]:
        """Yield the text of both answers as it comes; raises ModelError where one of the servers fails."""
        import httpx

        key = self.setting.key
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        queue: asyncio.Queue[tuple[Side, str | BaseException | None]] = asyncio.Queue()
        async with httpx.AsyncClient(headers=headers, timeout=_TIMEOUT_S) as client:
            sides: tuple[tuple[Side, Contender], ...] = (("left", self.left), ("right", self.right))
            tasks = [asyncio.create_task(self._read(client, side, model, queue)) for side, model in sides]
            try:
                unfinished = len(tasks)
                while unfinished:
                    side, text = await queue.get()
                    if isinstance(text, BaseException):
                        raise text
                    if text is None:
                        unfinished -= 1
                    else:
                        yield side, text
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    def asked(self, answers: dict[Side, str]) -> LivePair | None:
        """The pair to vote on, or None where both answers are the same."""
        item = Item(self.messages, {self.left.name: answers["left"], self.right.name: answers["right"]})
        return LivePair(item.pairs[0], self.judge, self.left.name, self.right.name) if item.pairs else None

    async def _read(
        self,
        client: "AsyncClient",
        side: Side,
        contender: Contender,
        queue: "asyncio.Queue[tuple[Side, str | BaseException | None]]",
    ) -> None:
        """Put an answer's pieces into the queue, then None; or what went wrong."""
        import httpx

        try:
            async with aclosing(_stream(client, contender.model, self.messages, self.setting)) as pieces:
                async for text in pieces:
                    await queue.put((side, text))
            await queue.put((side, None))
        except ModelError as exc:
            await queue.put((side, exc))
        except httpx.HTTPError as exc:
            url, _ = server_and_model(contender.model)
            await queue.put((side, ModelError(f"{url} does not answer ({exc or type(exc).__name__})")))


def draw(setting: LiveSetting, judge: str, question: str) -> Duel:
    """Two of the models by chance, on sides by chance."""
    left, right = secrets.SystemRandom().sample(setting.contenders, 2)
    return Duel(setting, judge, question, left, right)


async def _stream(
    client: "AsyncClient", address: str, messages: Sequence[dict[str, str]], setting: LiveSetting
) -> AsyncGenerator[str, None]:
    """Yield the pieces of one streamed chat completion."""
    url, model = server_and_model(address)
    body = {
        "model": model,
        "messages": list(messages),
        "temperature": setting.temperature,
        "max_tokens": setting.max_tokens,
        "stream": True,
    }
    whole = False
    async with client.stream("POST", url, json=body) as response:
        if response.status_code != 200:
            said = (await response.aread())[:_SHOWN_CHARACTERS].decode(errors="replace")
            raise ModelError(f"{url} answered {response.status_code}: {said}")
        async for data in _events(response.aiter_bytes()):
            if data == DONE:
                whole = True
                break
            text, ended = _piece(url, data)
            whole = whole or ended
            if text:
                yield text
    if not whole:
        raise ModelError(f"{url} broke off in the middle of an answer")


async def _events(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    stream = EventStream()
    async for chunk in chunks:
        for data in stream.feed(chunk):
            yield data
    for data in stream.end():
        yield data


def _piece(url: str, data: bytes) -> tuple[str, bool]:
    """The text of one event, and whether it is the last one with any."""
    try:
        record: Any = orjson.loads(data)
        if record.get("error"):
            raise ModelError(f"{url} failed in the middle of an answer: {record['error']}")
        if not record["choices"]:
            return "", False
        choice = record["choices"][0]
        return choice["delta"].get("content") or "", choice.get("finish_reason") is not None
    except (orjson.JSONDecodeError, AttributeError, KeyError, IndexError, TypeError) as exc:
        raise ModelError(f"{url} is no OpenAI-compatible server: it sent {data[:_SHOWN_CHARACTERS]!r}") from exc
