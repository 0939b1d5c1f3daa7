"""What the tests of the engine share: an answer put together, and the answer that transformers gives to one prompt."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from scaletrain.model.generate import stop_tokens
from scaletrain.serve.engine import BatchEngine
from scaletrain.serve.engine_limits import EngineLimits
from scaletrain.serve.protocol import Engine, FinishReason, Piece, Sampled, TokenLogprob
from tiny import VOCAB_SIZE, tiny_model, tiny_tokenizer


@dataclass(frozen=True)
class Answer:
    """All pieces of an answer."""

    text: str
    tokens: int
    logprobs: tuple[TokenLogprob, ...]
    finish_reason: FinishReason | None


@asynccontextmanager
async def fresh(model: Any = None, **limits: Any) -> AsyncIterator[BatchEngine]:
    """An engine of a test's own."""
    engine = BatchEngine(model if model is not None else tiny_model(), tiny_tokenizer(), limits=EngineLimits(**limits))
    try:
        yield engine
    finally:
        await engine.close()


async def answer(engine: Engine, prompt: list[int], **sampled: Any) -> Answer:
    """Ask and wait for the whole answer; greedy where nothing else is said."""
    settings = Sampled(**{"max_tokens": 20, "temperature": 0.0, **sampled})
    return joined([piece async for piece in engine.stream(prompt, settings)])


async def answers(engine: Engine, requests: Sequence[tuple[list[int], dict[str, Any]]]) -> list[Answer]:
    """Ask all at once."""
    return await asyncio.gather(*(answer(engine, prompt, **sampled) for prompt, sampled in requests))


def joined(pieces: Sequence[Piece]) -> Answer:
    """Pieces put together; the last one, and only that, says why the answer ended."""
    assert [piece.finish_reason for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
    return Answer(
        "".join(piece.text for piece in pieces),
        sum(piece.tokens for piece in pieces),
        tuple(report for piece in pieces for report in piece.logprobs),
        pieces[-1].finish_reason,
    )


def random_prompt(generator: random.Random, length: int) -> list[int]:
    """A prompt of ordinary tokens."""
    return [generator.randrange(3, VOCAB_SIZE) for _ in range(length)]


def alone(model: Any, prompt: list[int], *, max_tokens: int) -> str:
    """The greedy answer of transformers' own generate()."""
    import torch

    ends = stop_tokens(model, tiny_tokenizer())
    ids = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        max_new_tokens=max_tokens,
        do_sample=False,
        eos_token_id=sorted(ends),
    )
    new = [token for token in ids[0, len(prompt) :].tolist() if token not in ends]
    return str(tiny_tokenizer().decode(new, skip_special_tokens=True))
