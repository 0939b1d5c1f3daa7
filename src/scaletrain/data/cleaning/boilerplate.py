"""Steps against what nobody said: boilerplate and bots."""

import functools
from fnmatch import fnmatchcase

from scaletrain.data.cleaning.contents import change_contents, replace_matches, spoken
from scaletrain.data.cleaning.phrases import compile_phrases
from scaletrain.data.conversation import Conversation, Drop


def remove_phrases(conversation: Conversation, *, phrases: tuple[str, ...]) -> Conversation:
    """Cut the phrases out of all turns, whatever their case and white space."""
    pattern = compile_phrases(phrases)
    return change_contents(conversation, lambda text: replace_matches(pattern, text, ""))


def drop_bots(conversation: Conversation, *, authors: tuple[str, ...], phrases: tuple[str, ...]) -> Conversation:
    """Drop what a bot takes part in: by the authors' names, where the dump knows them, or by what only bots say."""
    for author in conversation.authors:
        if _is_bot(author, authors):
            raise Drop("bot", "by its name")  # which is not kept: it may be a person's
    if phrases:
        pattern = compile_phrases(phrases)
        if any(pattern.search(text) for text in spoken(conversation)):
            raise Drop("bot", "what only bots say")
    return conversation


@functools.lru_cache(maxsize=2**14)
def _is_bot(author: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(author, pattern) for pattern in patterns)
