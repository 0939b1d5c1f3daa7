"""The chat template's text of conversations, and where in it each turn stands.

The template renders a conversation as a whole, and its beginnings with and without the generation prompt; what each
adds to the one before is a turn. Rendering every beginning takes quadratic time. Nearly every template renders a turn
without regard to how many came before, so each turn is first rendered after the opening exchange alone; only where
these do not add up to the whole text are the true beginnings rendered.

Even that is most of the time that preparing data takes. Nearly every template puts the same around every turn, so this
is learned once, from a conversation of four turns. Where it and what is said add up to the whole text, the turns are
found. A template that does nothing with contents but print them (as ChatML does) need not be asked for the text at all.

A template that writes an answer otherwise once more turns follow has no such turns; asked_turns.py puts them together.
"""

import functools
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from scaletrain.data.asked_turns import as_asked
from scaletrain.data.conversation import Conversation, Drop
from scaletrain.data.frame import Around, Frame
from scaletrain.data.rendering import (
    CHANGED,
    REMEDY,
    Messages,
    Rendered,
    TurnSpan,
    apply,
    apply_to_one,
    begins_with_system,
    unsaid,
)
from scaletrain.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_LEARNED_TURNS = 4


def render_all(conversations: Sequence[Conversation], tokenizer: "PreTrainedTokenizerBase") -> list[Rendered | Drop]:
    """Render conversations that meet the rules of `check_validity`, and find their turns.

    A Drop stands for one that the template refuses; DataError where turns cannot be told from one another exactly.
    """
    all_messages = [conversation.messages() for conversation in conversations]
    frames = [_frame(tokenizer, tokenizer.chat_template, has_system=begins_with_system(each)) for each in all_messages]
    if all(frame is not None and frame.is_certain for frame in frames):
        return [frame.around(each) for frame, each in zip(frames, all_messages, strict=True) if frame is not None]
    try:
        texts: Sequence[str | Drop] = apply(tokenizer, all_messages, add_generation_prompt=False)
    except Drop:  # of one of them
        texts = [apply_to_one(tokenizer, each) for each in all_messages]
    return [
        text if isinstance(text, Drop) else _find_spans(text, each, frame, tokenizer)
        for text, each, frame in zip(texts, all_messages, frames, strict=True)
    ]


def _find_spans(
    text: str, messages: Messages, frame: "Frame | None", tokenizer: "PreTrainedTokenizerBase"
) -> Rendered | Drop:
    in_frame = as_asked(messages, text, tokenizer) if frame is None else frame.around(messages)
    if isinstance(in_frame, Rendered) and (frame is None or in_frame.text == text):
        return in_frame
    try:
        spans = _spans_of_beginnings(text, messages, tokenizer)
    except Drop as drop:
        return drop
    except DataError as exc:
        if in_frame is None:
            raise
        return Drop(CHANGED, str(exc))
    return Rendered(text, spans) if _says_it_all(text, spans, messages) else Drop(CHANGED, "it leaves out what is said")


def _says_it_all(text: str, spans: Sequence[TurnSpan], messages: Messages) -> bool:
    """Whether what is said is there: a template for images and text in parts prints nothing of a plain text."""
    first = int(begins_with_system(messages))
    return all(
        message["content"].strip() in text[span.start : span.stop]
        for span, message in zip([*spans[:first], *spans], messages, strict=True)
    )


# --- What a template puts around turns ----------------------------------------------------------------------------


@functools.lru_cache(maxsize=8)
def _frame(tokenizer: "PreTrainedTokenizerBase", chat_template: str | None, *, has_system: bool) -> Frame | None:
    """Learn from four turns of characters that no text has; None where the template does not show them as they are."""
    messages = unsaid(_LEARNED_TURNS // 2, has_system=has_system)
    try:
        [text] = apply(tokenizer, [messages], add_generation_prompt=False)
        spans = _spans_of_beginnings(text, messages, tokenizer)
    except (Drop, DataError):  # other conversations may do better, and raise the same where they do not
        return None
    opening = ""
    turns: list[Around] = []
    for span, message in zip(spans, messages[has_system:], strict=True):
        before, found, after = text[span.start : span.stop].partition(message["content"])
        header = span.spoken - span.start
        if has_system and not turns:
            opening, system_found, before = before.partition(messages[0]["content"])
            found = found and system_found
        if not found or header > len(before):
            return None
        turns.append(Around(before, header, after))
    if not turns[-1].after:  # answers would not learn to end; asked_turns.py ends them
        return None
    around = "".join([opening, *(each.before + each.after for each in turns)])
    is_certain = not any(message["content"] in around for message in messages) and _only_prints(chat_template or "")
    return Frame(opening, turns, is_certain)


def _only_prints(chat_template: str) -> bool:
    """Say whether a template prints roles and contents, one message after the other, and looks at nothing but roles.

    What the pattern knows is little, and all that many templates have; a template with more in it is simply asked.
    """
    text = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
    role, content = (rf"(?:\['{name}'\]|\[\"{name}\"\]|\.{name})" for name in ("role", "content"))
    term = rf"(?:{text}|message{role}|message{content}|bos_token|eos_token)"
    test = rf"(?:not )?(?:loop\.first|add_generation_prompt|message(?:s\[0\])?{role} ?[=!]= ?{text})"
    statement = rf"(?:for message in messages|endfor|else|endif|(?:el)?if {test}(?: (?:and|or) {test})*)"
    printed = rf"\{{\{{-? ?{term}(?: ?\+ ?{term})* ?-?\}}\}}"
    template = rf"(?:[^{{]|\{{(?![{{%#])|{printed}|\{{%-? ?{statement} ?-?%\}})*+"
    return chat_template.count("for message in messages") == 1 and re.fullmatch(template, chat_template) is not None


# --- Beginnings, rendered -----------------------------------------------------------------------------------------


def _spans_of_beginnings(text: str, messages: Messages, tokenizer: "PreTrainedTokenizerBase") -> list[TurnSpan]:
    first = 2 if messages[0]["role"] == "system" else 1
    turns = [messages[:first], *([message] for message in messages[first:])]
    for opening in sorted({2, len(turns)}):
        spans = _find_turns(text, turns, tokenizer, opening=opening)
        if spans:
            return spans
    raise DataError(
        "the chat template renders the beginning of a conversation differently once more turns follow, so that the "
        f"assistant's turns cannot be told from the others exactly; {REMEDY}"
    )


def _find_turns(
    text: str, turns: Sequence[Messages], tokenizer: "PreTrainedTokenizerBase", *, opening: int
) -> list[TurnSpan]:
    """Find each turn in the text, rendered after the turns before it, beyond `opening` only an answer's question.

    Returns [] where the turns do not add up to the text.
    """
    beginnings = [_beginning(turns, position, opening) for position in range(len(turns))]
    whole = [[*beginning, *turn] for beginning, turn in zip(beginnings, turns, strict=True)]
    rendered = apply(tokenizer, whole, add_generation_prompt=False)
    prompted = apply(tokenizer, beginnings[1::2], add_generation_prompt=True)

    spans = [TurnSpan(0, 0, len(rendered[0]))]
    for position in range(1, len(turns)):
        is_answer = position % 2 == 1
        before = rendered[position - 1 if is_answer or position <= opening else opening - 1]
        prompt = prompted[position // 2] if is_answer else before
        after = rendered[position]
        start = spans[-1].stop
        stop = start + len(after) - len(before)
        if not (after.startswith(prompt) and prompt.startswith(before) and text[start:stop] == after[len(before) :]):
            return []
        spans.append(TurnSpan(start, start + len(prompt) - len(before), stop))
    if spans[-1].stop != len(text) or not text.startswith(rendered[0]):
        return []
    _check_generation_prompt(text, spans, [turn[-1] for turn in turns])
    return spans


def _beginning(turns: Sequence[Messages], position: int, opening: int) -> list[dict[str, str]]:
    """The messages to render before the turn at `position`."""
    question = [turns[position - 1]] if position > opening and position % 2 else []
    return [message for turn in (*turns[: min(position, opening)], *question) for message in turn]


def _check_generation_prompt(text: str, spans: Sequence[TurnSpan], turns: Messages) -> None:
    """Refuse a template without a generation prompt, unless what the assistant says follows at once anyway."""
    for span, turn in zip(spans, turns, strict=True):
        if turn["role"] == "assistant" and span.spoken == span.start:
            said = text[span.spoken : span.stop].lstrip()
            if not said.startswith(turn["content"].strip()):
                raise DataError(
                    "the chat template ignores add_generation_prompt, so that the assistant's header cannot be told "
                    f"from what it says; {REMEDY}"
                )
