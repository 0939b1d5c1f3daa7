"""What a conversation is, how foreign messages become one, and the rules that make it fit for training."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, get_args

from scaletrain.errors import DataError

Role = Literal["system", "user", "assistant"]

# ShareGPT's names (also of the services whose answers were shared), and those of OpenAI's and Google's APIs.
_ROLES: dict[object, Role] = {role: role for role in get_args(Role)} | {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "developer": "system",
}


class Drop(Exception):
    """Raised by cleaning steps and encoders: leave this conversation out, and count it under `reason`.

    `reason` is one of a few fixed words (`too_short`); what is particular to this conversation goes into `detail`.
    Cleaning fills in which `step` raised it, and the `conversation` as that step was given it, if the step does not.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail
        self.step = ""
        self.conversation: Conversation | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """What one speaker says before the other answers."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns in order, and what is known of them.

    corpus: the name of its corpus. source: where it was read (file:line or file:key). id: what the dump calls it.
    authors: who speaks, as the dump names them, in the order of their first turn. language: an ISO 639-1 code.
    licence: an SPDX identifier. changes: the cleaning steps that changed it. annotations: what cleaning steps counted
    in it, as (name, number) by name. What is not known is empty.
    rejected: of a pair, the answer to which the last turn was preferred; None of a plain conversation.
    """

    turns: tuple[Turn, ...]
    corpus: str = ""
    source: str = ""
    id: str = ""
    authors: tuple[str, ...] = ()
    language: str = ""
    licence: str = ""
    changes: tuple[str, ...] = ()
    annotations: tuple[tuple[str, float], ...] = ()
    rejected: str | None = None

    def messages(self) -> list[dict[str, str]]:
        """Return the turns as chat templates and OpenAI's API take them."""
        return [{"role": turn.role, "content": turn.content} for turn in self.turns]

    def annotated(self, counts: Mapping[str, float]) -> "Conversation":
        """Return the same with these annotations, in place of those of the same names."""
        known = {**dict(self.annotations), **counts}
        return replace(self, annotations=tuple(sorted(known.items())))


def from_messages(messages: object, *, corpus: str = "", source: str = "") -> Conversation:
    """Make a conversation of OpenAI's {"role", "content"} or ShareGPT's {"from", "value"} messages.

    Raises DataError for what is not a list of messages, and Drop for messages that are no plain dialogue (tool calls,
    images).
    """
    if not isinstance(messages, list) or not messages:
        raise DataError(f"expected a list of messages, got {_kind(messages)}")
    turns = tuple(_turn(message, position) for position, message in enumerate(messages, start=1))
    return Conversation(turns, corpus, source)


def check_validity(conversation: Conversation) -> Conversation:
    """Return the conversation as it is, or raise Drop where it cannot be trained on.

    A system turn may come first; then user and assistant alternate, beginning with the user; no turn is empty.
    """
    turns = conversation.turns
    if any(not turn.content.strip() for turn in turns):
        raise Drop("empty_turn")
    roles = [turn.role for turn in turns]
    if roles[:1] == ["system"]:
        roles = roles[1:]
    if "system" in roles:
        raise Drop("system_turn_not_first")
    if "user" not in roles:
        raise Drop("no_user_turn")
    if "assistant" not in roles:
        raise Drop("no_assistant_turn")
    if roles[0] != "user":
        raise Drop("starts_with_assistant")
    if any(first == second for first, second in pairwise(roles)):
        raise Drop("roles_do_not_alternate")
    return conversation


def _turn(message: object, position: int) -> Turn:
    if not isinstance(message, dict):
        raise DataError(f"message {position} is {_kind(message)}, not an object")
    if message.get("tool_calls") or message.get("function_call"):  # what it says beside them is half of the turn
        raise Drop("tool_calls_not_supported")
    role_key, content_key = ("role", "content") if "role" in message else ("from", "value")
    if role_key not in message or content_key not in message:
        raise DataError(f"message {position} has neither role and content nor from and value: {_kind(message)}")
    role = message[role_key]
    if not isinstance(role, str):
        raise DataError(f"message {position}: {role_key} is {_kind(role)}, not text")
    if role not in _ROLES:
        raise Drop("unknown_role", role)
    if message.get("weight", 1) not in (1, None):
        raise Drop("message_weight_not_supported")
    return Turn(_ROLES[role], _text(message[content_key]))


def _text(content: object) -> str:
    """Text, or OpenAI's list of parts where all of them are text."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise Drop("content_is_not_text", _kind(content))
    texts = [part.get("text") if isinstance(part, dict) else None for part in content]
    if not all(isinstance(text, str) for text in texts):
        raise Drop("content_is_not_text", "a part that is not text")
    return "".join(str(text) for text in texts)


def _kind(value: object) -> str:
    """Name a JSON value's kind without printing what people said."""
    if isinstance(value, dict):
        return f"an object with {', '.join(sorted(map(str, value))) or 'no keys'}"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return "null" if value is None else type(value).__name__
