"""What a chat template writes of conversations, and the form in which turns are found in it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from scaletrain.data.conversation import Drop
from scaletrain.errors import DataError
from scaletrain.template_dates import with_fixed_date

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Messages = Sequence[dict[str, str]]
REMEDY = "give another with data.chat_template"
_NOT_SAID = 0xF0000  # and on: for private use
CHANGED = "changed_by_chat_template"  # why a conversation is dropped that it does not write as it does others


@dataclass(frozen=True, slots=True)
class TurnSpan:
    """Where a turn stands in the rendered text; `spoken` is where an assistant's own text begins, after the header."""

    start: int
    spoken: int
    stop: int


@dataclass(frozen=True, slots=True)
class Rendered:
    """A conversation's text, and its turns in it (a system turn counted with the user's after it)."""

    text: str
    spans: Sequence[TurnSpan]


def begins_with_system(messages: Messages) -> bool:
    """Whether a conversation begins with a system turn."""
    return messages[0]["role"] == "system"


def unsaid(exchanges: int, *, has_system: bool) -> list[dict[str, str]]:
    """A conversation of characters that no text has, to learn from what a template puts around them."""
    roles = ["system"] * has_system + ["user", "assistant"] * exchanges
    return [{"role": role, "content": chr(_NOT_SAID + number)} for number, role in enumerate(roles)]


def apply(
    tokenizer: "PreTrainedTokenizerBase", conversations: Sequence[Messages], *, add_generation_prompt: bool
) -> list[str]:
    """Render conversations with the tokenizer's template; Drop where the template refuses one."""
    from jinja2 import TemplateError, TemplateSyntaxError

    if not conversations:
        return []
    if not tokenizer.chat_template:
        raise DataError("the tokenizer has no chat template; give one with data.chat_template")
    try:
        texts = tokenizer.apply_chat_template(
            [list(each) for each in conversations],
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            **with_fixed_date(tokenizer.chat_template),
        )
    except TemplateSyntaxError as exc:
        raise DataError(f"the chat template is not valid Jinja: line {exc.lineno}: {exc.message}; {REMEDY}") from exc
    except TemplateError as exc:
        raise Drop("refused_by_chat_template", str(exc)) from exc
    return cast("list[str]", texts)


def apply_to_one(tokenizer: "PreTrainedTokenizerBase", messages: Messages) -> str | Drop:
    """Render one conversation; a Drop where the template refuses it."""
    try:
        return apply(tokenizer, [messages], add_generation_prompt=False)[0]
    except Drop as drop:
        return drop
