"""Samples: the same answers every time, under the system prompt that training used."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from scaletrain.errors import ConfigError
from scaletrain.evaluate.samples import Sample, greedy_samples, read_prompts
from scaletrain.model.generate import Sampling, reply
from tiny import tiny_model, tiny_tokenizer


def _ask(prompts: Sequence[str], *, system_prompt: str | None = None, max_new_tokens: int = 8) -> tuple[Sample, ...]:
    return greedy_samples(
        tiny_model(),
        tiny_tokenizer(),
        prompts,
        max_new_tokens=max_new_tokens,
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


def test_a_sample_is_what_chat_answers_at_temperature_0() -> None:
    """What is compared here is what a user would see, and its tokens are counted."""
    (sample,) = _ask(["Hello!"], max_new_tokens=12)
    sampling = Sampling(temperature=0.0, max_new_tokens=12)
    assert (
        sample.reply == reply(tiny_model(), tiny_tokenizer(), [{"role": "user", "content": "Hello!"}], sampling).strip()
    )
    assert sample.tokens == 12 or sample.ended


def test_an_answer_that_is_cut_off_has_not_ended() -> None:
    """Only the token that ends a turn ends an answer; it is no part of it."""
    model, words = tiny_model(), tiny_tokenizer()
    settings = {"max_new_tokens": 4, "system_prompt": None, "on_sample": lambda: None}
    assert not greedy_samples(model, words, ["Hello!"], **settings)[0].ended
    with torch.no_grad():  # a model that says nothing but the end of its turn
        model.get_output_embeddings().weight.zero_()
        model.lm_head.register_forward_hook(
            lambda *call: call[2].index_fill(-1, torch.tensor([words.eos_token_id]), 9.0)
        )
    assert greedy_samples(model, words, ["Hello!"], **settings)[0] == Sample("Hello!", "", tokens=0, ended=True)


def test_prompts_are_read_from_a_file(tmp_path: Path) -> None:
    """One a line as text, or as JSON; every line that is no prompt is named."""
    (tmp_path / "prompts.txt").write_text("Hello!\n\n  你好  \n")
    assert read_prompts(str(tmp_path / "prompts.txt")) == ("Hello!", "你好")
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "Hello!\\nHow are you?"}\n')
    assert read_prompts(str(tmp_path / "prompts.jsonl")) == ("Hello!\nHow are you?",)
    (tmp_path / "lines.jsonl").write_text('{"prompt": "One\u2028two"}\n', encoding="utf-8")
    assert read_prompts(str(tmp_path / "lines.jsonl")) == ("One\u2028two",)
    (tmp_path / "bad.jsonl").write_text('{"prompt": "Hi"}\n{"text": "Hi"}\nnonsense\n')
    with pytest.raises(ConfigError) as error:
        read_prompts(str(tmp_path / "bad.jsonl"))
    assert [problem.rpartition("bad.jsonl:")[2][0] for problem in error.value.problems] == ["2", "3"]
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(ConfigError, match="has no prompts"):
        read_prompts(str(tmp_path / "empty.txt"))
