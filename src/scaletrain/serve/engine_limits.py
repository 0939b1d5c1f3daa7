"""How much an engine takes on, and which prompts it refuses; the same for every engine."""

from collections.abc import Sequence
from dataclasses import dataclass

from scaletrain.errors import ConfigError, ModelError
from scaletrain.serve.protocol import Sampled


@dataclass(frozen=True)
class EngineLimits:
    """How much an engine takes on; raises ConfigError for values that make no sense.

    max_running: answers in a step; max_waiting: requests in the queue beyond these; prefill_tokens: prompt tokens in a
    step, which the answers that run have to wait for; cache_memory: the share of the memory that is free after loading
    that keys and values may take; cache_tokens: the same in tokens of all answers together, None for the share of the
    memory; context_tokens: the most of a prompt and its answer, None for the model's own.
    """

    max_running: int = 32
    max_waiting: int = 256
    prefill_tokens: int = 256
    cache_memory: float = 0.3
    cache_tokens: int | None = None
    context_tokens: int | None = None

    def __post_init__(self) -> None:
        rules = {
            "max_running": (self.max_running >= 1, "1 or more"),
            "max_waiting": (self.max_waiting >= 0, "0 (nobody waits) or more"),
            "prefill_tokens": (self.prefill_tokens >= 1, "1 or more"),
            "cache_memory": (0 < self.cache_memory <= 1, "above 0, at most 1"),
            "cache_tokens": (self.cache_tokens is None or self.cache_tokens >= 2, "2 or more, or none"),
            "context_tokens": (self.context_tokens is None or self.context_tokens >= 2, "2 or more, or none"),
        }
        problems = [f"{name}={getattr(self, name)}: use {rule}" for name, (good, rule) in rules.items() if not good]
        if problems:
            raise ConfigError(problems)


def check_prompt(prompt: Sequence[int], sampled: Sampled, *, context_tokens: int, vocab_size: int) -> None:
    """Raise ModelError for a prompt that cannot be answered."""
    if not prompt:
        raise ModelError("the prompt has no tokens; an answer needs at least one to follow")
    if len(prompt) >= context_tokens:
        raise ModelError(
            f"the prompt has {len(prompt)} tokens, and the context {context_tokens}, of which the answer needs at "
            "least one; shorten it"
        )
    if unknown := [token for token in prompt if not 0 <= token < vocab_size]:
        raise ModelError(f"the prompt has the token {unknown[0]}, and the model knows those from 0 to {vocab_size - 1}")
    if sampled.max_tokens < 1:
        raise ModelError(f"max_tokens={sampled.max_tokens}: an answer has 1 token or more")
