"""Samples: the same answers every time, under the system prompt that training used."""

from collections.abc import Sequence

import torch

from scaletrain.evaluate.samples import Sample, greedy_samples
from tiny import tiny_model, tiny_tokenizer


def _ask(prompts: Sequence[str], *, system_prompt: str | None = None) -> tuple[Sample, ...]:
    return greedy_samples(
        tiny_model(),
        tiny_tokenizer(),
        prompts,
        max_new_tokens=8,
        system_prompt=system_prompt,
        on_sample=lambda: None,
    )


def test_samples_do_not_depend_on_the_generators_state() -> None:
    """Whatever random numbers were drawn before, the answers are the same."""
    first = _ask(["Hello!", "Goodbye!"])
    torch.manual_seed(7)
    assert _ask(["Hello!", "Goodbye!"]) == first
    assert [sample.prompt for sample in first] == ["Hello!", "Goodbye!"]


def test_every_prompt_is_a_conversation_of_its_own() -> None:
    """An answer does not depend on the prompts before it."""
    assert _ask(["Hello!", "Goodbye!"])[1] == _ask(["Goodbye!"])[0]


def test_the_system_prompt_is_heard() -> None:
    """A model trained under a system prompt is asked under it."""
    assert _ask(["Hello!"], system_prompt="Answer like a pirate.") != _ask(["Hello!"])
