"""Steps on what is written for machines: HTML, Markdown, URLs, handles."""

import html
import re
from typing import Literal

from scaletrain.data.cleaning.contents import change_around_code, change_contents, change_outside_code, replace_matches
from scaletrain.data.conversation import Conversation

_BLOCKS = (
    "address article aside blockquote br dd details div dl dt fieldset figcaption figure footer form h1 h2 h3 h4 h5 h6 "
    "head header hr html body li main nav ol p pre section summary table tbody tfoot thead title tr ul"
)
_INLINE = (
    "a abbr acronym area b base bdi bdo big button canvas caption center cite code col colgroup del dfn em embed font "
    "i iframe img input ins kbd label legend link map mark meta meter noscript object option picture q s samp script "
    "select small source span strike strong style sub sup svg td textarea th time tt u var video wbr"
)
_BLOCK_TAG = re.compile(rf"</?(?:{'|'.join(_BLOCKS.split())})(?:\s[^<>]*)?/?>", re.IGNORECASE)
_INLINE_TAG = re.compile(rf"</?(?:{'|'.join(_INLINE.split())})(?:\s[^<>]*)?/?>", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#x[0-9a-f]{1,6}|[a-z][a-z0-9]{1,31});", re.IGNORECASE)
# What has no text: from where it opens to where it closes.
_HIDDEN = tuple(
    (re.compile(opens, re.IGNORECASE), re.compile(closes, re.IGNORECASE))
    for opens, closes in (
        ("<!--", "-->"),
        (r"<script\b[^<>]*>", r"</script\s*>"),
        (r"<style\b[^<>]*>", r"</style\s*>"),
    )
)

_LINK = re.compile(
    r"!?\[([^\[\]\n]{0,1000})\]"
    r"\([^\S\n]*<?[^\s()<>]{1,2000}(?:\([^\s()]*\)[^\s()<>]*)*>?(?:[^\S\n]+\"[^\"\n]*\")?[^\S\n]*\)"
)
_QUOTE = re.compile(r"^ {0,3}>(?: ?>)?[ \t]*(?:$|(?=[\w\"'“‘「『*\[(\ue000])).*(?:\n|\Z)", re.MULTILINE)
_HEADING = re.compile(r"^#{1,6}[ \t]+", re.MULTILINE)
_STARS = re.compile(r"(?<![\w*\\])(\*{1,3}|~~)(?=[^\s*])([^*\n]{1,1000}?)(?<=[^\s*])\1(?![\w*])")
_UNDERSCORES = re.compile(r"(?<![\w\\])(_{1,3})(?=[^\s_])([^\n]{1,200}?)(?<=[^\s_])\1(?!\w)")

_TOP = "com|org|edu|gov|info"
_MORE = f"{_TOP}|net|io|app|dev|ai|co|me|tv|ly|be|gl|gg|de|fr|uk|es|it|nl|pl|pt|ru|ua|ir|tr|in|jp|kr|cn|tw|hk|br|eu"
# A URL ends where a script without spaces goes on; letters of others (ö, д, ل) are part of it. Parentheses count where
# they close inside it, and the last punctuation is the sentence's.
_LETTER = "a-z0-9_À-\u060b\u060d-\u061a\u0620-\u0dff"
_IN_URL = rf"[!#-&*-;=?-\[\]~{_LETTER}]"
_REST = rf"(?:{_IN_URL}|\({_IN_URL}*\))"
_END = r"(?<![.,;:!?*_~-])"
_HOST = rf"(?<![@.\-{_LETTER}])(?:[a-z0-9](?:[a-z0-9-]{{0,61}}[a-z0-9])?\.){{1,8}}"
_URL = re.compile(
    rf"(?<![{_LETTER}])(?:(?:https?|ftp)://|www\.){_REST}+{_END}"
    rf"|{_HOST}(?:(?:{_MORE})/(?:{_REST}*{_END})?|(?:{_TOP})(?![{_LETTER}-]|\.[{_LETTER}]))",
    re.IGNORECASE,
)

# What goes on with another handle (@a@b, u/a/u/b) is none: with half of it gone, the rest would become one.
_HANDLE = re.compile(
    r"(?<![\w@/.])@(?:[a-z0-9_]{1,50}(?:@[\w-]{1,63}(?:\.[\w-]{1,63})+)?(?![\w@]|/u/)|\w{1,30}(?=[\s:：]|\Z))"
    r"|(?<![\w/])/?u/[\w-]{3,20}(?![\w@]|/u/)",
    re.IGNORECASE,
)


def strip_html(conversation: Conversation) -> Conversation:
    """Turn HTML into text: tags and comments go, entities become characters, blocks end a line.

    Only the tags of HTML count (`a < b` and `<3` stay), and code in Markdown's marks stays. What was escaped twice
    comes out escaped once.
    """
    return change_contents(conversation, lambda text: change_outside_code(text, _without_html))


def strip_markup(
    conversation: Conversation,
    *,
    links: Literal["text", "keep"],
    quotes: Literal["remove", "keep"],
    emphasis: Literal["strip", "keep"],
) -> Conversation:
    """Turn Markdown into plain text; what is inside code stays."""

    def strip(text: str) -> str:
        if links == "text" and "](" in text:
            text = _LINK.sub(r"\1", text)
        if quotes == "remove" and ">" in text:
            text = _QUOTE.sub("", text)
        if emphasis == "strip":
            text = _UNDERSCORES.sub(r"\2", _STARS.sub(r"\2", _HEADING.sub("", text)))
        return text

    return change_contents(conversation, lambda text: change_around_code(text, strip))


def replace_urls(conversation: Conversation, *, placeholder: str) -> Conversation:
    """Put the placeholder where a URL stands (with a scheme, www., a path, or a well-known top-level domain)."""

    def replace(text: str) -> str:
        return replace_matches(_URL, text, placeholder) if _may_have_url(text) else text

    return change_contents(conversation, lambda text: change_outside_code(text, replace))


def replace_handles(conversation: Conversation, *, placeholder: str) -> Conversation:
    """Put the placeholder where someone is called by a handle: @name, @name@server, u/name."""

    def replace(text: str) -> str:
        return replace_matches(_HANDLE, text, placeholder) if "@" in text or "u/" in text else text

    return change_contents(conversation, lambda text: change_outside_code(text, replace))


def _may_have_url(text: str) -> bool:
    """Say no fast, as it is nearly always."""
    if "." not in text and "://" not in text:
        return False
    text = text.lower()
    return "/" in text or "www." in text or any(f".{top}" in text for top in _TOP.split("|"))


def _without_html(text: str) -> str:
    if "<" in text:
        for opens, closes in _HIDDEN:
            text = _cut_between(opens, closes, text)
        text = _INLINE_TAG.sub("", _BLOCK_TAG.sub("\n", text))
    if "&" in text:
        text = _ENTITY.sub(lambda entity: html.unescape(entity.group()), text)
    return text


def _cut_between(opens: re.Pattern[str], closes: re.Pattern[str], text: str) -> str:
    """Leave out what stands between two patterns, and them; one pass, whatever the text."""
    parts: list[str] = []
    position = 0
    while (start := opens.search(text, position)) and (end := closes.search(text, start.end())):
        parts.append(text[position : start.start()])
        position = end.end()
    return "".join(parts) + text[position:] if parts else text
