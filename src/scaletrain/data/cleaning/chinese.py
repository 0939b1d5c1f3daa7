"""The step on Chinese characters: simplified or traditional, by OpenCC's dictionaries of phrases."""

import functools
import re
from typing import TYPE_CHECKING, Literal

from scaletrain.data.cleaning.contents import change_contents
from scaletrain.data.conversation import Conversation

if TYPE_CHECKING:
    from opencc import OpenCC

_CONFIGURATIONS = {"simplified": "t2s", "traditional": "s2t", "taiwan": "s2tw", "hong_kong": "s2hk"}
_HAN = re.compile("[\u3400-\u9fff\uf900-\ufaff\U00020000-\U000323af]")
_KANA = re.compile("[\u3040-\u30ff\uff66-\uff9d]")


def convert_chinese(
    conversation: Conversation, *, to: Literal["simplified", "traditional", "taiwan", "hong_kong"]
) -> Conversation:
    """Write Chinese characters in one script; a conversation in Japanese, which has characters of its own, stays."""
    is_japanese = conversation.language == "ja" or any(_KANA.search(turn.content) for turn in conversation.turns)
    if is_japanese:
        return conversation
    converter = load_converter(to)
    return change_contents(conversation, lambda text: converter.convert(text) if _HAN.search(text) else text)


@functools.cache
def load_converter(to: str) -> "OpenCC":
    """Load OpenCC's dictionaries for a script."""
    import opencc

    return opencc.OpenCC(_CONFIGURATIONS[to])
