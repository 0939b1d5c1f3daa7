"""Answers to fixed prompts, always the most likely token, so that two models can be read side by side."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scaletrain.model.generate import Sampling, reply

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Sample:
    """One prompt and the model's answer to it."""

    prompt: str
    reply: str


def greedy_samples(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    system_prompt: str | None,
    on_sample: Callable[[], None],
) -> tuple[Sample, ...]:
    """Ask each prompt in a conversation of its own, after the system prompt that training used, if any."""
    sampling = Sampling(temperature=0.0, max_new_tokens=max_new_tokens)
    system = [] if system_prompt is None else [{"role": "system", "content": system_prompt}]
    samples = []
    for prompt in prompts:
        answer = reply(model, tokenizer, [*system, {"role": "user", "content": prompt}], sampling)
        samples.append(Sample(prompt, answer.strip()))
        on_sample()
    return tuple(samples)
