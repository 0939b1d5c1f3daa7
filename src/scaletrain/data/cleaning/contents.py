"""How steps change what turns say: every turn by one function from text to text, or only what is not code."""

import re
from collections.abc import Callable
from dataclasses import replace

from scaletrain.data.conversation import Conversation, Turn

# Markdown's fences and inline code; a fence without an end goes on to the end of the text.
_CODE = re.compile(r"(```.*?(?:```|\Z)|`[^`\n]+`)", re.DOTALL)
_CODE_STARTS, _CODE_ENDS = "\ue000", "\ue001"  # for private use: no text has them
_HIDDEN_CODE = re.compile(f"{_CODE_STARTS}(\\d+){_CODE_ENDS}")
_SPACES = " \t"


def change_contents(conversation: Conversation, change: Callable[[str], str]) -> Conversation:
    """Return the conversation with every turn's text changed; itself where nothing changes."""
    before = [turn.content for turn in conversation.turns]
    after = [change(text) for text in before]
    if after == before:
        return conversation
    turns = tuple(Turn(turn.role, text) for turn, text in zip(conversation.turns, after, strict=True))
    return replace(conversation, turns=turns)


def change_outside_code(text: str, change: Callable[[str], str]) -> str:
    """Change all but what stands in Markdown's code marks."""
    if "`" not in text:
        return change(text)
    # Split by a pattern with one group, prose and code come in turn.
    return "".join(part if index % 2 else change(part) for index, part in enumerate(_CODE.split(text)))


def change_around_code(text: str, change: Callable[[str], str]) -> str:
    """Change the text as if what stands in code marks were one character each: lines stay whole, unlike in parts."""
    if "`" not in text or _CODE_STARTS in text:
        return change_outside_code(text, change)
    codes: list[str] = []

    def hide(code: re.Match[str]) -> str:
        codes.append(code.group())
        return f"{_CODE_STARTS}{len(codes) - 1}{_CODE_ENDS}"

    return _HIDDEN_CODE.sub(lambda hidden: codes[int(hidden.group(1))], change(_CODE.sub(hide, text)))


def without_code(text: str) -> str:
    """Leave out what stands in Markdown's code marks."""
    return "".join(_CODE.split(text)[::2]) if "`" in text else text


def replace_matches(pattern: re.Pattern[str], text: str, placeholder: str) -> str:
    """Put a placeholder where the pattern matches; where it is empty, the spaces before or after go as well."""
    if placeholder:
        return pattern.sub(lambda _: placeholder, text)
    parts: list[str] = []
    position = 0
    for match in pattern.finditer(text):
        kept = text[position : match.start()]
        position = match.end()
        if position == len(text) or text[position] == "\n":
            kept = kept.rstrip(_SPACES)
        elif not kept or kept[-1].isspace():
            while position < len(text) and text[position] in _SPACES:
                position += 1
        parts.append(kept)
    return "".join(parts) + text[position:] if parts else text


def spoken(conversation: Conversation) -> list[str]:
    """Return what user and assistant say, a text a turn; the system prompt is not what a corpus is judged by."""
    return [turn.content for turn in conversation.turns if turn.role != "system"]
