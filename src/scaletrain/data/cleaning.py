"""Cleaning steps: plain callables that take a conversation and return it changed, or raise Drop("reason").

A user's own step is such a function, named in data.cleaning as my_package.module:function.
"""

import difflib
import functools
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING

from scaletrain.config import DataSection
from scaletrain.data.conversation import Conversation, Drop, Turn, check_validity
from scaletrain.data.user_function import load_function
from scaletrain.errors import ConfigError, DataError, ScaletrainError

if TYPE_CHECKING:
    from ftfy import TextFixerConfig

Step = Callable[[Conversation], Conversation]
_CONTROL = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"}


def clean(conversation: Conversation, steps: Sequence[Step]) -> Conversation:
    """Apply the steps in order, noting those that change it, and then the rules of a conversation; raises Drop."""
    for step in steps:
        before = conversation
        try:
            conversation = step(conversation)
        except (Drop, ScaletrainError):
            raise
        except Exception as exc:
            raise DataError(
                f"data.cleaning: {_name(step)} failed on {conversation.source}: {type(exc).__name__}: {exc}; "
                'to leave a conversation out, raise Drop("reason")'
            ) from exc
        if not isinstance(conversation, Conversation):
            raise ConfigError(f"data.cleaning: {_name(step)} returned {type(conversation).__name__}, no Conversation")
        if conversation.turns != before.turns:
            conversation = replace(conversation, changes=(*conversation.changes, _name(step)))
    return check_validity(conversation)


def load_steps(section: DataSection) -> list[Step]:
    """Return the steps that data.cleaning names, with their limits set; ConfigError for an unknown name."""
    known: dict[str, Step] = {
        "fix_unicode": fix_unicode,
        "drop_empty_turns": drop_empty_turns,
        "merge_turns": merge_turns,
        "check_length": functools.partial(
            check_length, min_turns=section.min_turns, min_chars=section.min_chars, max_chars=section.max_chars
        ),
    }
    steps: list[Step] = []
    for name in section.cleaning:
        if ":" in name:
            steps.append(load_function(name, setting="data.cleaning"))  # type: ignore[arg-type]
        elif name in known:
            steps.append(known[name])
        else:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
            raise ConfigError(f"data.cleaning: unknown step {name}; {hint} (your own: my_package.module:function)")
    if section.system_prompt is not None:
        steps.append(functools.partial(add_system_prompt, prompt=section.system_prompt))
    return steps


def fix_unicode(conversation: Conversation) -> Conversation:
    """Repair text that was decoded wrongly, bring it to NFC, and remove control characters.

    What is a matter of style stays: curly quotes, ligatures, and the full-width punctuation of Chinese and Japanese.
    """
    return _with_contents(conversation, _fixed)


def drop_empty_turns(conversation: Conversation) -> Conversation:
    """Leave out turns of nothing but white space."""
    return replace(conversation, turns=tuple(turn for turn in conversation.turns if turn.content.strip()))


def merge_turns(conversation: Conversation) -> Conversation:
    """Join consecutive turns of one role, a line each."""
    turns = tuple(
        Turn(role, "\n".join(turn.content for turn in run))
        for role, run in groupby(conversation.turns, key=lambda turn: turn.role)
    )
    return replace(conversation, turns=turns)


def check_length(conversation: Conversation, *, min_turns: int, min_chars: int, max_chars: int) -> Conversation:
    """Drop what is too short or too long; a system turn does not count as a turn, nor its text."""
    spoken = [turn for turn in conversation.turns if turn.role != "system"]
    num_chars = sum(len(turn.content) for turn in spoken)
    if len(spoken) < min_turns:
        raise Drop("too_few_turns")
    if num_chars < min_chars:
        raise Drop("too_short")
    if num_chars > max_chars:
        raise Drop("too_long")
    return conversation


def add_system_prompt(conversation: Conversation, *, prompt: str) -> Conversation:
    """Put a system turn before a conversation that has none."""
    if any(turn.role == "system" for turn in conversation.turns):
        return conversation
    return replace(conversation, turns=(Turn("system", prompt), *conversation.turns))


def _fixed(text: str) -> str:
    import ftfy

    if text.isascii() and text.replace("\n", "").isprintable() and "&" not in text:
        return text  # as most English is
    text = ftfy.fix_text(text, _ftfy_config())
    return unicodedata.normalize("NFC", text.translate(_CONTROL))


@functools.cache
def _ftfy_config() -> "TextFixerConfig":
    import ftfy

    return ftfy.TextFixerConfig(
        fix_latin_ligatures=False, fix_character_width=False, uncurl_quotes=False, normalization="NFC", explain=False
    )


def _with_contents(conversation: Conversation, change: Callable[[str], str]) -> Conversation:
    return replace(conversation, turns=tuple(Turn(turn.role, change(turn.content)) for turn in conversation.turns))


def _name(step: Step) -> str:
    function = step.func if isinstance(step, functools.partial) else step
    return getattr(function, "__qualname__", repr(function))
