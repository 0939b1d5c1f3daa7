"""Answers are transformers' own, token for token, and arrive in whole characters."""

import copy
from typing import Any

import pytest
import torch

from scaletrain.errors import ConfigError, ModelError
from scaletrain.model.generate import Sampling, encode_prompt, end_tokens, load_for_chat, reply, text_of
from tiny import smollm2_folder, tiny_model, tiny_tokenizer

GREEDY = Sampling(temperature=0, max_new_tokens=24)
HELLO = [{"role": "user", "content": "Hello! How are you?"}]


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model()


def prompt_ids(messages: list[dict[str, str]]) -> list[int]:
    return encode_prompt(tiny_tokenizer(), messages, context=None, max_new_tokens=1)


def test_the_greedy_answer_is_that_of_transformers(model: Any) -> None:
    """Temperature 0 gives what generate(do_sample=False) gives."""
    ids = torch.tensor([prompt_ids(HELLO)])
    expected = model.generate(ids, do_sample=False, max_new_tokens=24)[0, ids.shape[1] :]
    text = tiny_tokenizer().decode(expected, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert reply(model, tiny_tokenizer(), HELLO, GREEDY) == text
    assert len(expected) == 24


def test_the_repetition_penalty_is_that_of_transformers(model: Any) -> None:
    """The penalty counts the prompt too, as in generate()."""
    ids = torch.tensor([prompt_ids(HELLO)])
    expected = model.generate(ids, do_sample=False, max_new_tokens=24, repetition_penalty=1.5)[0, ids.shape[1] :]
    text = tiny_tokenizer().decode(expected, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    sampling = Sampling(temperature=0, repetition_penalty=1.5, max_new_tokens=24)
    assert reply(model, tiny_tokenizer(), HELLO, sampling) == text != reply(model, tiny_tokenizer(), HELLO, GREEDY)


def test_a_seed_makes_the_answer_repeatable(model: Any) -> None:
    """The same seed gives the same answer, another seed another, and the global generator is not touched."""
    torch.manual_seed(3)
    state = torch.get_rng_state()
    answers = [
        reply(model, tiny_tokenizer(), HELLO, Sampling(temperature=1.0, top_p=1.0, max_new_tokens=24, seed=seed))
        for seed in (1, 1, 2)
    ]
    assert answers[0] == answers[1] != answers[2]
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("narrow", [{"top_k": 1}, {"top_p": 1e-6}])
def test_only_the_likeliest_token_is_left_by_narrow_sampling(narrow: dict[str, Any], model: Any) -> None:
    """top_k and top_p cut the distribution down to the greedy answer."""
    sampling = Sampling(temperature=5.0, max_new_tokens=24, seed=0, **{"top_p": 1.0, **narrow})
    assert reply(model, tiny_tokenizer(), HELLO, sampling) == reply(model, tiny_tokenizer(), HELLO, GREEDY)


def test_an_answer_ends_with_the_turn(model: Any) -> None:
    """The end-of-turn token stops the answer and is no part of it."""
    likeliest_first = int(model(torch.tensor([prompt_ids(HELLO)])).logits[0, -1].argmax())
    stopping = tiny_model()
    stopping.generation_config.eos_token_id = [likeliest_first, 5]
    assert reply(stopping, tiny_tokenizer(), HELLO, GREEDY) == ""


@pytest.mark.parametrize("text", ["naïve café, 你好吗？ 👋🏽 👩‍👩‍👧", "  two  spaces\n\nand lines ", "👋", "x" * 200])
def test_text_arrives_in_whole_characters(text: str) -> None:
    """A character of many tokens is shown once it is complete, and nothing is lost or changed."""
    tokenizer = tiny_tokenizer()
    pieces = list(text_of(tokenizer, tokenizer(text)["input_ids"]))
    assert "".join(pieces) == text
    assert "\ufffd" not in "".join(pieces)


def test_an_unfinished_character_at_the_end_is_shown_as_such() -> None:
    """An answer cut within a character does not hide that there was something."""
    ids = tiny_tokenizer()("漢")["input_ids"]
    assert "".join(text_of(tiny_tokenizer(), ids[:-1])) == "\ufffd"


class CountingTokenizer:
    """Counts how many tokens it is asked to decode."""

    tokens = 0

    def decode(self, tokens: list[int], **settings: Any) -> str:
        self.tokens += len(tokens)
        return str(tiny_tokenizer().decode(tokens, **settings))


def test_bytes_that_are_no_text_are_decoded_in_a_short_window() -> None:
    """However long they go on, nothing is lost, and what is text after them arrives."""
    half, hello = tiny_tokenizer()("漢")["input_ids"][:1], tiny_tokenizer()("漢 Hello")["input_ids"]
    tokenizer: Any = CountingTokenizer()
    pieces = list(text_of(tokenizer, [*half * 500, *hello]))
    assert "".join(pieces) == tiny_tokenizer().decode([*half * 500, *hello])
    assert len(pieces) > 400
    assert tokenizer.tokens < 500 * 50


def test_an_answer_ends_where_the_chat_template_ends_it() -> None:
    """Also where the tokenizer calls another token its end, as that of a base model does."""
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.add_tokens(["<|eot|>"], special_tokens=True)
    tokenizer.chat_template = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|eot|>\n{% endfor %}"
    assert tokenizer.get_vocab()["<|eot|>"] in end_tokens(None, tokenizer)
    assert tokenizer.get_vocab()["<|eot|>"] not in end_tokens(None, tiny_tokenizer())
    tokenizer.chat_template = "{{ raise_exception('only kings') }}"
    assert end_tokens(None, tokenizer) == {tokenizer.eos_token_id}


def test_a_long_conversation_loses_its_oldest_exchanges(caplog: pytest.LogCaptureFixture) -> None:
    """What does not fit goes pair by pair from the front; the system prompt and the last message stay."""
    turns = [
        {"role": role, "content": f"{role} {number} " + "word " * 10}
        for number in range(10)
        for role in ("user", "assistant")
    ]
    messages = [{"role": "system", "content": "Be kind."}, *turns, {"role": "user", "content": "the last"}]
    ids = encode_prompt(tiny_tokenizer(), messages, context=200, max_new_tokens=50)
    text = tiny_tokenizer().decode(ids)
    assert len(ids) <= 150
    assert text.startswith("<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nuser ")
    assert "user 0" not in text
    assert "assistant 9" in text
    assert text.endswith("the last<|im_end|>\n<|im_start|>assistant\n")
    assert "left out" in caplog.text


def test_a_message_longer_than_the_context_is_an_error(model: Any) -> None:
    """The error gives both lengths."""
    messages = [{"role": "user", "content": "word " * 600}]
    with pytest.raises(ModelError, match="context has 512; shorten it"):
        reply(model, tiny_tokenizer(), messages, GREEDY)


def test_the_answer_ends_where_the_context_does() -> None:
    """A prompt that leaves little room gets a short answer instead of positions the model never saw."""
    model = tiny_model(max_position_embeddings=64)
    messages = [{"role": "user", "content": "word " * 6}]
    ids = torch.tensor([prompt_ids(messages)])
    expected = model.generate(ids, do_sample=False, max_length=64)[0, ids.shape[1] :]
    text = tiny_tokenizer().decode(expected, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert reply(model, tiny_tokenizer(), messages, Sampling(temperature=0, max_new_tokens=500)) == text
    assert 0 < len(expected) < 64


def test_impossible_settings_are_all_named() -> None:
    """Every wrong value is reported at once."""
    with pytest.raises(ConfigError) as caught:
        Sampling(temperature=-1, top_p=0, max_new_tokens=0)
    assert len(caught.value.problems) == 3


@pytest.mark.real_model
def test_smollm2_knows_the_capital_of_france() -> None:
    """A real model answers as it should, and as transformers has it."""
    model, tokenizer = load_for_chat(smollm2_folder(), device="cpu")
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    answer = reply(model, tokenizer, messages, GREEDY)
    inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    expected = model.generate(**inputs, do_sample=False, max_new_tokens=24)[0, inputs["input_ids"].shape[1] :]
    assert "Paris" in answer
    assert answer == tokenizer.decode(expected, skip_special_tokens=True)
