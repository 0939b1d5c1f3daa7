"""The engine for transformers' models on a CPU or a GPU: many answers at once, each step one forward pass for all.

Iteration-level scheduling (Yu et al. 2022, Orca, OSDI): answers join and leave between steps. A thread owns the model;
the event loop that asked for an answer gets its pieces. One process, one device; on GPUs vLLM is faster (engine_vllm).

The same request with the same seed gives the same answer whatever runs beside it, as far as the device's arithmetic
does: matrix products of another batch size differ in their last bits, more so in bf16 than in fp32. A greedy answer
changes only where two tokens are that close, a random one where its random number falls that close to a bound.
T: tokens of a step; R: answers that get a token; V: the vocabulary.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from scaletrain.errors import EngineFailedError, ModelError, OverloadedError
from scaletrain.log import get_logger
from scaletrain.model.generate import stop_tokens
from scaletrain.serve import engine_model
from scaletrain.serve.engine_attention import place
from scaletrain.serve.engine_limits import EngineLimits, check_prompt
from scaletrain.serve.engine_sampling import Chooser, Chosen, choose
from scaletrain.serve.engine_schedule import Running, Schedule, Share
from scaletrain.serve.engine_text import AnswerText, TokenBytes
from scaletrain.serve.protocol import EngineStatus, Piece, Sampled

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = get_logger(__name__)


class _Answer(Running):
    """A running answer with all that makes its pieces and brings them to who asked."""

    def __init__(
        self, prompt: list[int], sampled: Sampled, text: AnswerText, *, limit_tokens: int, adapter: str | None
    ) -> None:
        super().__init__(list(prompt), limit_tokens, adapter)
        self.chooser = Chooser(sampled)
        self.text = text
        self.loop = asyncio.get_running_loop()
        self.pieces: asyncio.Queue[Piece | ModelError] = asyncio.Queue()


class BatchEngine:
    """A model that answers many requests at once; see protocol.Engine for its promises. Close it after use."""

    def __init__(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        *,
        limits: EngineLimits | None = None,
        adapters: Mapping[str, Path] | None = None,
    ) -> None:
        """Take over a model. `adapters` are folders of LoRA adapters (PEFT) by their names; see `adapter`.

        Raises ModelError where the model's attention cannot be run for many answers at once.
        """
        limits = limits or EngineLimits()
        self._model: Any = model
        self._tokenizer = tokenizer
        self._adapters = frozenset(adapters or ())
        self._active_adapter: str | None = None
        engine_model.load_adapters(model, adapters or {})
        size = engine_model.prepare(model, limits)
        self.context_tokens = size.context_tokens
        self._schedule: Schedule[_Answer] = Schedule(
            cache_tokens=min(size.cache_tokens, limits.max_running * size.context_tokens),
            longest=size.context_tokens,
            max_running=limits.max_running,
            prefill_tokens=limits.prefill_tokens,
        )
        self._max_answers = limits.max_running + limits.max_waiting
        self._ends = stop_tokens(model, tokenizer)
        self._vocab_size = cast("int", model.get_input_embeddings().num_embeddings)
        self._bytes = TokenBytes(tokenizer)
        self._failure: str | None = None
        self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="scaletrain-engine", daemon=True)
        self._thread.start()

    def stream(self, prompt: list[int], sampled: Sampled) -> AsyncIterator[Piece]:
        """Yield the answer of the model itself in pieces; see protocol.Engine."""
        return self._stream(prompt, sampled, None)

    def adapter(self, name: str) -> "AdapterEngine":
        """The same engine with a LoRA adapter: answers of all adapters share memory, limits and queue.

        The answers of each adapter take a forward pass of their own in a step.
        """
        if name not in self._adapters:
            raise ModelError(f"there is no adapter {name!r}; there is {', '.join(sorted(self._adapters)) or 'none'}")
        return AdapterEngine(self, name)

    def status(self) -> EngineStatus:
        """What it does now."""
        with self._changed:
            schedule = self._schedule
            return EngineStatus(
                len(schedule.running), len(schedule.waiting), schedule.cached_tokens, schedule.cache_tokens
            )

    async def close(self) -> None:
        """Stop generating (what still runs ends with EngineFailedError), end the thread, and free the model."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        await asyncio.to_thread(self._thread.join)
        self._model = None

    async def _stream(self, prompt: list[int], sampled: Sampled, adapter: str | None) -> AsyncIterator[Piece]:
        answer = self._submit(prompt, sampled, adapter)
        try:
            while True:
                piece = await answer.pieces.get()
                if isinstance(piece, ModelError):
                    raise piece
                yield piece
                if piece.finish_reason is not None:
                    return
        finally:
            self._cancel(answer)

    def _submit(self, prompt: list[int], sampled: Sampled, adapter: str | None) -> _Answer:
        check_prompt(prompt, sampled, context_tokens=self.context_tokens, vocab_size=self._vocab_size)
        answer = _Answer(
            prompt,
            sampled,
            AnswerText(self._tokenizer, sampled.stop),
            limit_tokens=min(len(prompt) + sampled.max_tokens, self.context_tokens),
            adapter=adapter,
        )
        with self._changed:
            if self._failure is not None or self._closing:
                raise EngineFailedError(self._failure or "the engine is closed")
            there = len(self._schedule.running) + len(self._schedule.waiting)
            if there >= self._max_answers:
                raise OverloadedError(f"{there} requests are being answered or wait; try again later")
            self._schedule.waiting.append(answer)
            self._changed.notify()
        return answer

    def _cancel(self, answer: _Answer) -> None:
        """Nobody reads an answer any more. One that runs is dropped by the thread, before its next step."""
        with self._changed:
            answer.cancelled = True
            if answer in self._schedule.waiting:
                self._schedule.remove(answer)

    @torch.inference_mode()
    def _run(self) -> None:
        failure = "the engine was closed before the answer was done"
        try:
            while shares := self._next_shares():
                self._deliver([result for group in _by_adapter(shares) for result in self._step(group)])
        except Exception as exc:  # whatever the model raises: every request must hear of it, here and later
            log.exception("the engine failed; every request that it has ends with an error")
            failure = f"the engine failed: {type(exc).__name__}: {exc}"
        with self._changed:
            self._failure = failure
            answers = self._schedule.clear()
        self._deliver([(answer, EngineFailedError(failure)) for answer in answers])

    def _next_shares(self) -> list[Share[_Answer]]:
        """Wait for work; nothing where the engine is to close."""
        with self._changed:
            while not self._closing:
                if shares := self._schedule.plan():
                    return shares
                self._changed.wait()
        return []

    def _step(self, shares: Sequence[Share[_Answer]]) -> list[tuple[_Answer, Piece | ModelError]]:
        """One forward pass over answers of one adapter; returns what is new of each."""
        tokens: list[int] = []
        positions: list[int] = []
        last: list[int] = []
        shares = sorted(shares, key=lambda share: place(share.answer.cache, share.count))
        for share in shares:
            cache = share.answer.cache
            tokens += share.answer.tokens[cache.length : cache.length + share.count]
            positions += range(cache.length, cache.length + share.count)
            if share.chooses:
                last.append(len(tokens) - 1)
        choosing = [share.answer for share in shares if share.chooses]
        if (adapter := shares[0].answer.adapter) != self._active_adapter:
            engine_model.use_adapter(self._model, adapter)
            self._active_adapter = adapter
        answers = [(share.answer.cache, share.count) for share in shares]
        logits_RV = engine_model.forward(self._model, tokens, positions, answers, last)
        for share in shares:
            share.answer.cache.length += share.count
        if not choosing:
            return []
        chosen = choose(logits_RV, [answer.chooser for answer in choosing])
        results = [(answer, self._accept(answer, one)) for answer, one in zip(choosing, chosen, strict=True)]
        return [(answer, piece) for answer, piece in results if piece is not None]

    def _accept(self, answer: _Answer, chosen: Chosen | None) -> Piece | ModelError | None:
        if chosen is None:
            return EngineFailedError("the model's output is not a number (NaN); its weights may be damaged")
        answer.tokens.append(chosen.token)
        answer.chooser.count(chosen.token)
        if chosen.token in self._ends:
            return answer.text.end("stop", tokens=1)
        last = len(answer.tokens) >= answer.limit_tokens
        return answer.text.push(chosen.token, self._bytes.report(chosen), last=last)

    def _deliver(self, results: Sequence[tuple[_Answer, Piece | ModelError]]) -> None:
        """Hand pieces to the event loops that wait for them, each loop woken once, and drop answers that are done."""
        with self._changed:
            for answer, piece in results:
                if isinstance(piece, ModelError) or piece.finish_reason is not None:
                    self._schedule.remove(answer)
        loops: dict[asyncio.AbstractEventLoop, list[Callable[[], None]]] = {}
        for answer, piece in results:
            loops.setdefault(answer.loop, []).append(partial(answer.pieces.put_nowait, piece))
        for loop, puts in loops.items():
            try:
                loop.call_soon_threadsafe(_call_all, puts)
            except RuntimeError:  # the loop was closed with answers under way: nobody can read them any more
                for answer, _ in results:
                    if answer.loop is loop:
                        self._cancel(answer)


class AdapterEngine:
    """One LoRA adapter of a BatchEngine, to be used as an engine; closing it leaves the others at work."""

    def __init__(self, engine: BatchEngine, name: str) -> None:
        self._engine = engine
        self._name = name
        self.context_tokens = engine.context_tokens

    def stream(self, prompt: list[int], sampled: Sampled) -> AsyncIterator[Piece]:
        """Yield the answer of the adapted model in pieces; see protocol.Engine."""
        return self._engine._stream(prompt, sampled, self._name)

    def status(self) -> EngineStatus:
        """What the whole engine does now."""
        return self._engine.status()

    async def close(self) -> None:
        """Nothing: the engine that it belongs to has the model."""


def _by_adapter(shares: Sequence[Share[_Answer]]) -> list[list[Share[_Answer]]]:
    def name(share: Share[_Answer]) -> str:
        return share.answer.adapter or ""

    return [list(group) for _, group in groupby(sorted(shares, key=name), key=name)]


def _call_all(actions: Sequence[Callable[[], None]]) -> None:
    for action in actions:
        action()
