"""Steps that drop what is no good to learn from, by rules that need no model.

They follow the rules of MassiveText (Rae et al. 2021, arXiv:2112.11446, appendix A1.1), which were made for documents
of the web. A turn is short, and so: no rule judges less text than it can (min_words, min_chars); turns take the place
of paragraphs; a word is a character in scripts without spaces, and takes two to say what a word does elsewhere; what
stands in Markdown's code marks is not judged as prose.
"""

import re
from collections.abc import Sequence

from scaletrain.data.cleaning.contents import spoken, without_code
from scaletrain.data.conversation import Conversation, Drop
from scaletrain.data.ngrams import MARKS, UNSPACED, count_unspaced, units

_RUN_WORDS = 5
_FEWEST_LINES = 4
_FEWEST_CHARS = 20
_CHARACTERS_A_WORD = 2  # in scripts without spaces
_LETTERS = re.compile(f"[^\\W\\d_]+|[{MARKS}]+|[{UNSPACED}]+")
_SPACE = re.compile(r"\s+")
# What prose has little of: ASCII's symbols, arrows, mathematics, boxes, private and replacement characters.
_SYMBOLS = re.compile("[#$%&*+/<=>@\\[\\\\\\]^_`{|}~¦¨¬¯±´¶¸\u2190-\u25ff\ue000-\uf8ff\ufffd]+")


def check_repetition(
    conversation: Conversation,
    *,
    max_repeated_turns: float,
    max_repeated_lines: float,
    max_repeated_words: float,
    min_words: int,
) -> Conversation:
    """Drop what says the same again: whole turns, lines of a turn, or runs of five words in a turn."""
    texts = [without_code(text) for text in spoken(conversation)]
    if _repeated_turns(texts) > max_repeated_turns:
        raise Drop("repeated_turns")
    for text in texts:
        if text.count("\n") >= _FEWEST_LINES - 1 and _repeated_lines(text) > max_repeated_lines:
            raise Drop("repeated_lines")
        if len(text) >= min_words and _repeated_words(text, min_words) > max_repeated_words:
            raise Drop("repeated_words")
    return conversation


def check_characters(
    conversation: Conversation, *, max_symbols: float, min_letters: float, max_upper: float, min_chars: int
) -> Conversation:
    """Drop what is symbols, hardly has letters, or is written in capitals."""
    text = _SPACE.sub("", _prose(conversation))
    if len(text) < min_chars:
        return conversation
    if _count(_SYMBOLS, text) > max_symbols * len(text):
        raise Drop("too_many_symbols")
    if _count(_LETTERS, text) < min_letters * len(text):
        raise Drop("too_few_letters")
    if not text.islower():
        upper, lower = sum(map(str.isupper, text)), sum(map(str.islower, text))
        if upper + lower >= min_chars and upper > max_upper * (upper + lower):
            raise Drop("all_caps")
    return conversation


def check_words(
    conversation: Conversation, *, min_mean_length: float, max_mean_length: float, min_words: int
) -> Conversation:
    """Drop what has words of an unlikely mean length; not in scripts without spaces."""
    words = units(_prose(conversation))
    spaced = len(words) - count_unspaced(words)
    if spaced < max(min_words, len(words) / 2):
        return conversation
    mean_length = sum(map(len, words)) / len(words)
    if not min_mean_length <= mean_length <= max_mean_length:
        raise Drop("odd_word_length", f"{mean_length:.1f} characters a word")
    return conversation


def check_balance(conversation: Conversation, *, max_ratio: float) -> Conversation:
    """Drop what one side says nearly alone; a side of a few words counts as one of 20 characters."""
    sides = [
        sum(len(turn.content) for turn in conversation.turns if turn.role == role) for role in ("user", "assistant")
    ]
    if min(sides) and max(sides) > max_ratio * max(min(sides), _FEWEST_CHARS):
        raise Drop("one_sided", f"{sides[0]} characters of the user, {sides[1]} of the assistant")
    return conversation


def _repeated_turns(texts: Sequence[str]) -> float:
    """Share of the characters that stand in turns said before."""
    before: set[str] = set()
    repeated = total = 0
    for text in texts:
        text = text.strip().lower()
        total += len(text)
        repeated += len(text) if text in before else 0
        before.add(text)
    return repeated / total if total else 0.0


def _repeated_lines(text: str) -> float:
    """Share of the lines that stood before; of a text with fewer than four lines none."""
    lines = [line.strip().lower() for line in text.splitlines() if line.strip()]
    return 1 - len(set(lines)) / len(lines) if len(lines) >= _FEWEST_LINES else 0.0


def _repeated_words(text: str, min_words: int) -> float:
    """Share of the words that are in a run of five that was there before; ten characters in scripts without spaces."""
    words = units(text)
    scale = _CHARACTERS_A_WORD if 2 * count_unspaced(words) > len(words) else 1
    length = scale * _RUN_WORDS
    if len(words) < scale * min_words:
        return 0.0
    seen: set[tuple[str, ...]] = set()
    repeated = covered_to = 0
    for start in range(len(words) - length + 1):
        run = tuple(words[start : start + length])
        if run in seen:
            repeated += start + length - max(start, covered_to)
            covered_to = start + length
        seen.add(run)
    return repeated / len(words)


def _prose(conversation: Conversation) -> str:
    return "\n".join(map(without_code, spoken(conversation)))


def _count(pattern: re.Pattern[str], text: str) -> int:
    """Count the characters that a pattern matches."""
    return len(text) - len(pattern.sub("", text))
