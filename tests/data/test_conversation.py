import pytest

from scaletrain.data.conversation import Conversation, Drop, Turn, check_validity, from_messages
from scaletrain.errors import DataError


def talk(*turns: tuple[str, str]) -> Conversation:
    return Conversation(tuple(Turn(role, content) for role, content in turns))  # type: ignore[arg-type]


def test_openai_messages_become_turns_and_back() -> None:
    """A conversation gives back the messages that it was made of."""
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "你好"},
    ]
    assert from_messages(messages).messages() == messages


def test_sharegpt_names_are_understood() -> None:
    """ShareGPT's system, human and gpt are system, user and assistant."""
    rows = [{"from": "system", "value": "s"}, {"from": "human", "value": "h"}, {"from": "gpt", "value": "g"}]
    assert [turn.role for turn in from_messages(rows).turns] == ["system", "user", "assistant"]
    answers = [{"from": name, "value": "a"} for name in ("chatgpt", "bing", "bard", "model")]
    assert {turn.role for turn in from_messages(answers).turns} == {"assistant"}


def test_text_parts_are_joined() -> None:
    """OpenAI's content parts are one text, as long as all of them are text."""
    parts = [{"type": "text", "text": "Hello, "}, {"type": "text", "text": "world"}]
    assert from_messages([{"role": "user", "content": parts}]).turns[0].content == "Hello, world"


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        (None, "got null"),
        ([], "got a list of 0"),
        (["Hi"], "message 1 is str"),
        ([{"role": "user"}], "message 1 has neither"),
        ([{"role": 3, "content": "x"}], "role is int"),
    ],
)
def test_malformed_messages_are_named(messages: object, problem: str) -> None:
    """What is not a list of messages is a DataError that says which message is wrong, and how."""
    with pytest.raises(DataError, match=problem):
        from_messages(messages)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"role": "tool", "content": "42"}, "unknown_role"),
        ({"role": "assistant", "content": None, "tool_calls": []}, "content_is_not_text"),
        ({"role": "user", "content": [{"type": "image_url"}]}, "content_is_not_text"),
        ({"role": "assistant", "content": "Let me see.", "tool_calls": [{"id": "1"}]}, "tool_calls_not_supported"),
        ({"role": "assistant", "function_call": {"name": "f"}}, "tool_calls_not_supported"),
        ({"role": "assistant", "content": "no", "weight": 0}, "message_weight_not_supported"),
    ],
)
def test_messages_that_are_no_plain_dialogue_are_dropped(message: dict[str, object], reason: str) -> None:
    """Well-formed messages that cannot be trained on drop their conversation under a reason of its own."""
    with pytest.raises(Drop) as drop:
        from_messages([message])
    assert drop.value.reason == reason


@pytest.mark.parametrize(
    ("roles", "reason"),
    [
        ("ua", None),
        ("sua", None),
        ("uau", None),
        ("u", "no_assistant_turn"),
        ("a", "no_user_turn"),
        ("s", "no_user_turn"),
        ("", "no_user_turn"),
        ("au", "starts_with_assistant"),
        ("usa", "system_turn_not_first"),
        ("ssua", "system_turn_not_first"),
        ("uaau", "roles_do_not_alternate"),
    ],
)
def test_validity_rules(roles: str, reason: str | None) -> None:
    """A system turn may come first, then user and assistant alternate, and both are there."""
    names = {"s": "system", "u": "user", "a": "assistant"}
    conversation = talk(*((names[role], "x") for role in roles))
    if reason is None:
        assert check_validity(conversation) is conversation
        return
    with pytest.raises(Drop) as drop:
        check_validity(conversation)
    assert drop.value.reason == reason


def test_an_empty_turn_is_not_valid() -> None:
    """White space alone is no content."""
    with pytest.raises(Drop, match="empty_turn"):
        check_validity(talk(("user", "Hi"), ("assistant", " \n")))
