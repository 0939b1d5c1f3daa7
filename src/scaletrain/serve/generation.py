"""One request from its JSON to its answer: prompt, room, limits, the choices side by side, whole or as a stream.

Everything is stopped where its client goes away or its time is over, and what was set aside of its key's tokens is
given back.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import orjson

from scaletrain.errors import EngineFailedError, ScaletrainError
from scaletrain.log import get_logger
from scaletrain.serve.api_errors import ApiError, draining, from_engine, timed_out, too_long
from scaletrain.serve.api_request import Generation
from scaletrain.serve.api_response import Answer, Writer
from scaletrain.serve.keys import Key
from scaletrain.serve.limits import Charge, Limits
from scaletrain.serve.models import Offer
from scaletrain.serve.protocol import Engine, Piece, Sampled
from scaletrain.serve.service_metrics import ServiceMetrics
from scaletrain.serve.wire import Client

_LAST_WORDS_S = 2.0
_SHORTEST_ANSWER_TOKENS = 64  # a key that has less left is told to wait

log = get_logger(__name__)


class Deadlines:
    """The time that each request has, and their common end where the server stops."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._timeouts: set[asyncio.Timeout] = set()
        self._is_over = False

    @asynccontextmanager
    async def limit(self) -> AsyncIterator[None]:
        """Cancel what takes too long, as an ApiError."""
        try:
            async with asyncio.timeout(0 if self._is_over else self._timeout_s) as timeout:
                self._timeouts.add(timeout)
                try:
                    yield
                finally:
                    self._timeouts.discard(timeout)
        except TimeoutError as exc:
            raise (draining() if self._is_over else timed_out(self._timeout_s)) from exc

    def end_now(self) -> None:
        """The time of all requests is over, also of those that come."""
        self._is_over = True
        for timeout in self._timeouts:
            timeout.reschedule(asyncio.get_running_loop().time())


@dataclass(frozen=True)
class Choice:
    """One answer to make."""

    prompt: list[int]
    sampled: Sampled


async def answer(
    request: Generation,
    offer: Offer,
    client: Client,
    *,
    key: Key | None,
    limits: Limits,
    metrics: ServiceMetrics,
    deadlines: Deadlines,
) -> None:
    """Answer a request; raises ApiError where it is refused or fails."""
    watch = _Watch(offer, metrics)
    try:
        prompts = await _prompts(request, offer)
        choices = _choices(request, prompts, context_tokens=offer.engine.context_tokens, tokens_left=limits.left(key))
        reserved = sum(len(each) for each in prompts) + sum(each.sampled.max_tokens for each in choices)
        with limits.charged(key, tokens=reserved) as charge:
            charge.used_tokens = prompt_tokens = sum(len(each) for each in prompts)
            metrics.prompt_tokens.labels(watch.model).inc(prompt_tokens)
            pieces = watch.seen(_side_by_side(offer.engine, choices), charge)
            writer = Writer(request, watch.model)
            respond = _respond_in_stream if request.stream else _respond_whole
            async with aclosing(pieces):
                await respond(
                    request,
                    writer,
                    pieces,
                    client,
                    choices=len(choices),
                    prompt_tokens=prompt_tokens,
                    deadlines=deadlines,
                )
        watch.end = "done"
    except asyncio.CancelledError:
        watch.end = "client_gone"
        raise
    finally:
        watch.stop()


async def _prompts(request: Generation, offer: Offer) -> list[list[int]]:
    """The tokens of every prompt; raises ApiError where one leaves no room for an answer."""
    if request.is_chat:
        prompts = [await offer.model.chat_tokens(request.messages)]
    else:
        prompts = [await offer.model.text_tokens(prompt) for prompt in request.prompts]
    context = offer.engine.context_tokens
    for prompt in prompts:
        if len(prompt) >= context:
            raise too_long(len(prompt), context, param="messages" if request.is_chat else "prompt")
        if not prompt:
            raise ApiError(400, "the prompt has no tokens; give some text", param="prompt", code="invalid_value")
    return prompts


def _choices(
    request: Generation, prompts: Sequence[list[int]], *, context_tokens: int, tokens_left: int | None
) -> list[Choice]:
    """The answers to make. Where none says how long one may be, they may take what the key has left, not a context."""
    longest = context_tokens
    if request.max_tokens is None and tokens_left is not None:
        answers = len(prompts) * request.choices
        longest = max(_SHORTEST_ANSWER_TOKENS, (tokens_left - sum(map(len, prompts))) // answers)
    return [
        Choice(prompt, request.sampled(room=min(longest, context_tokens - len(prompt)), choice=choice))
        for prompt in prompts
        for choice in range(request.choices)
    ]


async def _respond_whole(
    request: Generation,
    writer: Writer,
    pieces: AsyncGenerator[tuple[int, Piece], None],
    client: Client,
    *,
    choices: int,
    prompt_tokens: int,
    deadlines: Deadlines,
) -> None:
    answers = [Answer() for _ in range(choices)]
    async with deadlines.limit():
        async for index, piece in pieces:
            answers[index].add(piece)
    await client.send_json(writer.whole(answers, prompt_tokens=prompt_tokens))


async def _respond_in_stream(
    request: Generation,
    writer: Writer,
    pieces: AsyncGenerator[tuple[int, Piece], None],
    client: Client,
    *,
    choices: int,
    prompt_tokens: int,
    deadlines: Deadlines,
) -> None:
    """Send events. The first piece is waited for before the status is sent, so that a full queue is still a 429."""
    tokens = 0
    failed: ApiError | None = None
    try:
        async with deadlines.limit():
            async for index, piece in pieces:
                if not client.has_begun:
                    await client.begin_stream()
                    for each in range(choices) if request.is_chat else ():
                        await client.send_event(orjson.dumps(writer.opening(each)))
                tokens += piece.tokens
                if piece.text or piece.logprobs or piece.finish_reason:
                    await client.send_event(orjson.dumps(writer.piece(index, piece)))
            if request.include_usage:
                usage = writer.usage(prompt_tokens=prompt_tokens, completion_tokens=tokens)
                await client.send_event(orjson.dumps(usage))
            await client.send_event(b"[DONE]")
    except ApiError as error:
        failed = error
    if failed is not None:
        if not client.has_begun:
            raise failed
        log.warning("a stream of %s ended early: %s", writer.id, failed.message)
        try:
            async with asyncio.timeout(_LAST_WORDS_S):
                await client.send_event(orjson.dumps(failed.body()))
                await client.end_stream()
        except TimeoutError:
            client.abort()
        raise failed
    await client.end_stream()


class _Watch:
    """Times one generation, counts its tokens, and takes note of an engine that failed."""

    def __init__(self, offer: Offer, metrics: ServiceMetrics) -> None:
        self.model = offer.name
        self._offer = offer
        self.end = "error"
        self._metrics = metrics
        self._started = time.perf_counter()

    async def seen(
        self, pieces: AsyncGenerator[tuple[int, Piece], None], charge: Charge
    ) -> AsyncGenerator[tuple[int, Piece], None]:
        """Hand on the pieces; what an engine raises becomes an ApiError."""
        first, tokens = True, self._metrics.completion_tokens.labels(self.model)
        try:
            async with aclosing(pieces):
                async for index, piece in pieces:
                    if first and piece.text:
                        self._metrics.first_token_s.labels(self.model).observe(time.perf_counter() - self._started)
                        first = False
                    charge.used_tokens += piece.tokens
                    tokens.inc(piece.tokens)
                    yield index, piece
        except ScaletrainError as error:
            if isinstance(error, EngineFailedError):
                self._offer.model.note_failure()
            raise from_engine(error) from error

    def stop(self) -> None:
        self._metrics.generation_s.labels(self.model).observe(time.perf_counter() - self._started)
        self._metrics.ended.labels(self.model, self.end).inc()


async def _side_by_side(engine: Engine, choices: Sequence[Choice]) -> AsyncGenerator[tuple[int, Piece], None]:
    """Yield the pieces of all choices as they come, each with the number of its choice."""
    if len(choices) == 1:
        async with aclosing(engine.stream(choices[0].prompt, choices[0].sampled)) as pieces:  # type: ignore[type-var]
            async for piece in pieces:
                yield 0, piece
        return
    arrived: asyncio.Queue[tuple[int, Piece] | Exception | None] = asyncio.Queue()

    async def make(index: int, choice: Choice) -> None:
        try:
            async with aclosing(engine.stream(choice.prompt, choice.sampled)) as pieces:  # type: ignore[type-var]
                async for piece in pieces:
                    arrived.put_nowait((index, piece))
        except Exception as error:  # noqa: BLE001 - raised again below, where the others are stopped
            arrived.put_nowait(error)
        arrived.put_nowait(None)

    tasks: list[asyncio.Task[Any]] = [asyncio.create_task(make(*each)) for each in enumerate(choices)]
    left = len(tasks)
    try:
        while left:
            item = await arrived.get()
            if isinstance(item, Exception):
                raise item
            if item is None:
                left -= 1
            else:
                yield item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
