"""What the HTTP layer and an engine say to each other: a request in tokens, and pieces of its answer as they are made.

An engine runs many requests at once (continuous batching: Yu et al. 2022, Orca, OSDI). It knows tokens and sampling;
chat templates, roles, keys, limits and JSON are the HTTP layer's.
"""

# Changes (engine owner): EngineFailedError, a ModelError, where the engine failed or was closed (HTTP 503), so that a
# plain ModelError is always the prompt's fault (HTTP 400). Errors come when the first piece is asked for; before that,
# nothing was submitted. Piece.tokens counts the end token, which has no entry in logprobs.
# To get an engine: engine_choice.choose_engine(folder: Path, *, device="auto", kind="auto" | "batch" | "vllm",
# limits=engine_limits.EngineLimits(max_running, max_waiting, ...), adapters={name: folder}) -> Engine; it takes
# seconds: call it in a thread. BatchEngine.adapter(name) -> Engine of one LoRA adapter.

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal, Protocol

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class Sampled:
    """How the tokens of one request are chosen, in the words of the OpenAI API.

    temperature 0: always the likeliest token; top_p: nucleus (Holtzman et al. 2020, arXiv:1904.09751); penalties are
    subtracted from the logits of tokens of the answer so far (presence: once; frequency: per occurrence). seed: the
    same answer for the same request whatever else runs beside it; None: a new one. logprobs: how many likeliest
    tokens to report beside each chosen one, 0 for the chosen alone, None for no report. stop: texts that end the
    answer and are not part of it.
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logprobs: int | None = None


@dataclass(frozen=True)
class TokenLogprob:
    """A token of the answer: its text and bytes, its log-probability in nats, and the likeliest tokens in its place."""

    token: int
    text: str
    utf8: bytes
    logprob: float
    top: tuple["TokenLogprob", ...] = ()


@dataclass(frozen=True)
class Piece:
    """New text of an answer; `finish_reason` is set on the last piece only.

    tokens: how many were made for it, the end token among them. logprobs: of the tokens whose text is in the answer.
    """

    text: str
    tokens: int
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None


@dataclass(frozen=True)
class EngineStatus:
    """What an engine does now: requests in the batch and in the queue, and tokens in its key-value cache and room."""

    running: int
    waiting: int
    cached_tokens: int
    cache_tokens: int


class Engine(Protocol):
    """Generates for many requests at once. `context_tokens`: the most tokens of prompt and answer together."""

    context_tokens: int

    def stream(self, prompt: list[int], sampled: Sampled) -> AsyncIterator[Piece]:
        """Yield the answer in pieces; closing the iterator ends its generation and frees its place within a step.

        Nothing is submitted before the first piece is asked for. Raises, from there, OverloadedError (the queue is
        full), ModelError (a prompt that does not fit), EngineFailedError (the engine failed or was closed).
        """
        ...

    def status(self) -> EngineStatus:
        """What it does now."""
        ...

    async def close(self) -> None:
        """Stop generating and free the model."""
        ...
