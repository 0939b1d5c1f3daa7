"""Finding listed words and phrases in a text: whole words where a script has spaces, anywhere where it has none.

The list becomes one regular expression in the form of a trie, so that a place in the text is looked at once, however
long the list.
"""

import functools
import re
from collections import defaultdict
from typing import Any

from scaletrain.data.ngrams import MARKS, UNSPACED

# A letter, digit or mark that goes on with a word; \u200c joins the parts of a Persian word.
_IN_WORD = f"(?:[^\\W{UNSPACED}]|[{MARKS}\u200c])"
_WORD_CHARACTER = re.compile(_IN_WORD)
_END = ""


@functools.lru_cache(maxsize=16)
def compile_phrases(phrases: tuple[str, ...]) -> re.Pattern[str]:
    """Return a pattern of any of the phrases; case does not matter, nor how much space is between words."""
    tries: dict[tuple[bool, bool], dict[str, Any]] = defaultdict(dict)
    for phrase in {" ".join(phrase.lower().split()) for phrase in phrases if phrase.strip()}:
        bounded = (bool(_WORD_CHARACTER.match(phrase[0])), bool(_WORD_CHARACTER.match(phrase[-1])))
        node = tries[bounded]
        for character in phrase:
            node = node.setdefault(character, {})
        node[_END] = {}
    patterns = [
        f"{f'(?<!{_IN_WORD})' if begins else ''}{_pattern(trie)}{f'(?!{_IN_WORD})' if ends else ''}"
        for (begins, ends), trie in sorted(tries.items(), reverse=True)
    ]
    return re.compile("|".join(patterns), re.IGNORECASE)


def _pattern(node: dict[str, Any]) -> str:
    """What may follow in a trie, the longest first."""
    chain = ""
    while len(node) == 1 and _END not in node:
        ((character, node),) = node.items()
        chain += _escaped(character)
    branches = [_escaped(character) + _pattern(child) for character, child in sorted(node.items()) if character]
    if not branches:
        return chain
    return f"{chain}(?:{'|'.join(branches)}){'?' if _END in node else ''}"


def _escaped(character: str) -> str:
    return r"\s+" if character == " " else re.escape(character)
