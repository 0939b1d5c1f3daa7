"""Steps on characters: damage, white space, invisible characters, and forms of another width.

What a script needs stays: joiners (Persian, Hindi, emoji), marks of direction, combining marks, spaces without width
between the words of Thai, Khmer and Burmese.
"""

import functools
import re
import unicodedata
from typing import TYPE_CHECKING

from scaletrain.data.cleaning.contents import change_contents, change_outside_code
from scaletrain.data.conversation import Conversation

if TYPE_CHECKING:
    from ftfy import TextFixerConfig

_CONTROL = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"}

_LINE_ENDS = re.compile("\r\n?|[\v\f\x1c-\x1e\x85\u2028\u2029]")
# Soft hyphen, Mongolian vowel separator, word joiner, invisible operators, byte order mark.
_INVISIBLE = re.compile("[\u00ad\u180e\u2060-\u2064\ufeff]")
_ZERO_WIDTH_SPACE = "\u200b"
_BREAKS_WITHOUT_SPACES = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]")
# Each begins where a run of spaces does, so that a long run is looked at once.
_LINE_END_SPACES = re.compile(r"(?<![^\S\n])[^\S\n]++(?=\n)")
_BETWEEN_WORDS = re.compile("(?<=\\S)(?:[^\\S\n]{2,}|[^\\S\n \u3000])(?=\\S)")
_BLANK_LINES = re.compile(r"\n{3,}")
_UNTIDY = re.compile("[^\\S\n ]|[\u00ad\u180e\u200b\u2060-\u2064\ufeff]")

_LETTERS = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F) if chr(code - 0xFEE0).isalnum()}
_PUNCTUATION = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F) if not chr(code - 0xFEE0).isalnum()}
_HALF_WIDTH_KANA = re.compile("[\uff61-\uff9f]+")


def fix_unicode(conversation: Conversation) -> Conversation:
    """Repair text that was decoded wrongly, bring it to NFC, and remove control characters.

    What is a matter of style stays: curly quotes, ligatures, and the full-width punctuation of Chinese and Japanese.
    """
    return change_contents(conversation, _fixed)


def tidy_spaces(conversation: Conversation) -> Conversation:
    """Make one space of several, one blank line of several, and take out what cannot be seen and means nothing.

    The indentation of lines stays, and so does code in Markdown's marks.
    """
    return change_contents(conversation, _tidy)


def fold_width(conversation: Conversation, *, letters: bool, punctuation: bool, kana: bool) -> Conversation:
    """Turn full-width letters and digits (and punctuation, if asked to) into ASCII, half-width kana into full-width."""
    table = (_LETTERS if letters else {}) | (_PUNCTUATION if punctuation else {})

    def fold(text: str) -> str:
        if text.isascii():
            return text
        text = text.translate(table)
        return _HALF_WIDTH_KANA.sub(lambda run: unicodedata.normalize("NFKC", run.group()), text) if kana else text

    return change_contents(conversation, fold)


def _fixed(text: str) -> str:
    import ftfy

    if text.isascii() and text.replace("\n", "").isprintable():
        return text  # as most English is
    text = ftfy.fix_text(text, _ftfy_config())
    return unicodedata.normalize("NFC", text.translate(_CONTROL))


@functools.cache
def _ftfy_config() -> "TextFixerConfig":
    import ftfy

    return ftfy.TextFixerConfig(
        unescape_html=False,  # an answer about HTML means its entities; strip_html reads those of web pages
        fix_latin_ligatures=False,
        fix_character_width=False,
        uncurl_quotes=False,
        normalization="NFC",
        explain=False,
    )


def _tidy(text: str) -> str:
    if not _is_untidy(text):
        return text
    return change_outside_code(_LINE_ENDS.sub("\n", text), _tidy_prose).strip()


def _is_untidy(text: str) -> bool:
    """Say no fast to what is all right."""
    if text != text.strip() or any(each in text for each in ("  ", " \n", "\n\n\n", "\t", "\r", "\v", "\f")):
        return True
    return not text.isascii() and _UNTIDY.search(text) is not None


def _tidy_prose(text: str) -> str:
    text = _INVISIBLE.sub("", text)
    if _ZERO_WIDTH_SPACE in text and not _BREAKS_WITHOUT_SPACES.search(text):
        text = text.replace(_ZERO_WIDTH_SPACE, "")
    text = _BETWEEN_WORDS.sub(" ", text)
    return _BLANK_LINES.sub("\n\n", _LINE_END_SPACES.sub("", text))
