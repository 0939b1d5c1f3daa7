"""The step that looks for the words of lists: profanity, slurs, or whatever else a list holds."""

import functools
import re
from typing import Literal

from scaletrain import storage
from scaletrain.data.cleaning.contents import change_contents, spoken
from scaletrain.data.cleaning.phrases import compile_phrases
from scaletrain.data.conversation import Conversation, Drop
from scaletrain.errors import ConfigError, NotFoundError


def check_profanity(
    conversation: Conversation,
    *,
    words: tuple[str, ...],
    lists: tuple[str, ...],
    action: Literal["drop", "mask"],
    max_words: int,
) -> Conversation:
    """Drop a conversation with more than `max_words` listed words, or mask them: every character becomes *."""
    pattern = _compiled(words, lists)
    if action == "mask":
        return change_contents(conversation, lambda text: pattern.sub(lambda word: "*" * len(word.group()), text))
    found = sum(len(pattern.findall(text)) for text in spoken(conversation))
    if found > max_words:
        raise Drop("profanity", f"{found} listed {'word' if found == 1 else 'words'}")
    return conversation


@functools.cache
def read_lists(lists: tuple[str, ...]) -> tuple[str, ...]:
    """Return the words of files or URLs, a line each; ConfigError where one is not there or empty.

    Read once in a process: what its steps use is what `determined_by` told.
    """
    words: list[str] = []
    for url in lists:
        try:
            lines = storage.read_text(url).splitlines()
        except NotFoundError as exc:
            raise ConfigError(f"data.cleaning: check_profanity: {exc}; name a file of words, a line each") from exc
        of_list = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
        if not of_list:
            raise ConfigError(f"data.cleaning: check_profanity: {url}: holds no words; write one a line")
        words += of_list
    return tuple(words)


@functools.lru_cache(maxsize=4)
def _compiled(words: tuple[str, ...], lists: tuple[str, ...]) -> re.Pattern[str]:
    return compile_phrases((*words, *read_lists(lists)))
