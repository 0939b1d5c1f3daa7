"""What a request may say, and that one error names everything that it may not."""

from typing import Any

import orjson
import pytest

from scaletrain.serve.api_errors import ApiError
from scaletrain.serve.api_request import Generation, parse_chat, parse_completion

HELLO = [{"role": "user", "content": "Hello!"}]


def chat(**body: Any) -> Generation:
    return parse_chat(orjson.dumps({"model": "tiny", "messages": HELLO, **body}), max_choices=8)


def completion(**body: Any) -> Generation:
    return parse_completion(orjson.dumps({"model": "tiny", "prompt": "Once", **body}), max_choices=8)


def refusal(**body: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        chat(**body)
    assert caught.value.status == 400
    return caught.value


def test_what_is_not_given_is_as_openai_documents_it() -> None:
    """Temperature and top_p are 1, one choice, no penalties, as many tokens as fit; a completion has 16."""
    sampled = chat().sampled(room=100, choice=0)
    assert (sampled.temperature, sampled.top_p, sampled.max_tokens, sampled.seed) == (1.0, 1.0, 100, None)
    assert completion().sampled(room=100, choice=0).max_tokens == 16


def test_every_parameter_reaches_the_engine() -> None:
    """What a client sets is what the engine is asked for."""
    request = chat(
        temperature=0.5, top_p=0.9, max_completion_tokens=7, seed=3, stop=["a", "b"], presence_penalty=1,
        frequency_penalty=-1, logprobs=True, top_logprobs=2, n=2, stream=True, stream_options={"include_usage": True},
    )  # fmt: skip
    sampled = request.sampled(room=100, choice=1)
    assert (sampled.temperature, sampled.top_p, sampled.max_tokens, sampled.seed) == (0.5, 0.9, 7, 4)
    assert (sampled.stop, sampled.presence_penalty, sampled.frequency_penalty) == (("a", "b"), 1, -1)
    assert (sampled.logprobs, request.choices, request.stream, request.include_usage) == (2, 2, True, True)


def test_null_and_what_changes_nothing_are_taken() -> None:
    """Clients send null for defaults, and parameters that are for OpenAI's own bookkeeping."""
    request = chat(temperature=None, user="u-1", metadata={"a": "b"}, tools=[], response_format={"type": "text"}, n=1)
    assert request.temperature == 1.0


@pytest.mark.parametrize(
    "body",
    [
        {"tools": [{"type": "function"}]},
        {"response_format": {"type": "json_object"}},
        {"logit_bias": {"5": 100}},
        {"frequency_penalty": 3},
        {"temperature": -1},
        {"temperature": True},
        {"top_p": "much"},
        {"n": 0},
        {"n": 9},
        {"max_tokens": 0},
        {"max_tokens": 5, "max_completion_tokens": 6},
        {"stop": ["a", "b", "c", "d", "e"]},
        {"stop": [""]},
        {"top_logprobs": 2},
        {"stream_options": {"include_usage": True}},
        {"seed": 2**63},
        {"temprature": 1},
    ],
    ids=str,
)
def test_what_cannot_be_honoured_is_refused_by_name(body: dict[str, Any]) -> None:
    """The error's `param` is the parameter that is wrong."""
    error = refusal(**body)
    assert str(error.param).partition(".")[0] in body
    assert str(error.param) in error.message


def test_every_problem_is_named_at_once() -> None:
    """Nobody mends one mistake to be told the next."""
    error = refusal(temperature=5, tools=[1], stop=5, colour="red")
    assert "4 problems" in error.message
    for name in ("temperature: got 5; use 2.0 or less", "tools", "stop: got 5; give text, or give a list", "colour"):
        assert name in error.message


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        ({"role": "robot", "content": "x"}, "messages.0.role: got 'robot'"),
        ({"role": "user"}, "messages.0.content: is missing"),
        ({"role": "user", "content": 5}, "messages.0.content: got 5"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, "messages.0.content.0.type"),
        ({"role": "assistant", "content": "x", "tool_calls": [{}]}, "messages.0.tool_calls: tools are not supported"),
    ],
)
def test_a_wrong_message_is_named_by_its_place(message: dict[str, Any], problem: str) -> None:
    """The number of the message is in the error."""
    assert problem in refusal(messages=[message]).message


def test_messages_come_out_as_role_and_text() -> None:
    """Parts of text are put together, a developer is the system, and what clients send along is left out."""
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "name": "ann", "content": parts},
        {"role": "assistant", "content": "Hi", "refusal": None, "annotations": []},
    ]
    assert chat(messages=messages).messages == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi"},
    ]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"text"', b'{"messages": "\\ud800"}', b"[" * 100_000, b"\xff"])
def test_what_is_no_json_object_is_said_to_be_none(body: bytes) -> None:
    """Cut off, of another kind, not UTF-8, half a character, or as deep as a well."""
    with pytest.raises(ApiError) as caught:
        parse_chat(body, max_choices=8)
    assert (caught.value.status, caught.value.code) == (400, "invalid_json")


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [("a", ["a"]), (["a", "b"], ["a", "b"]), ([1, 2], [[1, 2]]), ([[1], [2]], [[1], [2]])],
)
def test_prompts_are_texts_or_tokens_one_or_many(prompt: Any, prompts: Any) -> None:
    """All four forms of OpenAI's completions."""
    assert completion(prompt=prompt).prompts == prompts


@pytest.mark.parametrize("prompt", ["", [], [""], [[]], ["a"] * 9, 5, [1, "a"], [-1]])
def test_a_prompt_without_text_or_of_too_many_is_refused(prompt: Any) -> None:
    """Each with status 400."""
    with pytest.raises(ApiError) as caught:
        completion(prompt=prompt)
    assert caught.value.status == 400
