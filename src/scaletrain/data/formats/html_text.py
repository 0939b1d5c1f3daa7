"""HTML as Markdown: paragraphs, lists, quotes, links, and code as it stands, with its language."""

import html as html_escapes
from functools import lru_cache
from typing import TYPE_CHECKING

from scaletrain.errors import DataError

if TYPE_CHECKING:
    from bs4 import Tag
    from markdownify import MarkdownConverter

_MAX_CHARS = 65_536  # parsing what is never closed takes quadratic time; a post has 30,000 characters at most


def to_markdown(html: str) -> str:
    """Convert a fragment of HTML; DataError where it is absurdly long, or nested too deeply to be read."""
    if "<" not in html:
        return html_escapes.unescape(html).strip()
    if len(html) > _MAX_CHARS:
        raise DataError(f"more than {_MAX_CHARS:,} characters of HTML")
    try:
        return str(_converter().convert(html)).strip()
    except RecursionError as exc:
        raise DataError("HTML that is nested too deeply") from exc


@lru_cache(maxsize=1)
def _converter() -> "MarkdownConverter":
    from markdownify import MarkdownConverter

    return MarkdownConverter(
        heading_style="ATX",
        bullets="-",
        escape_asterisks=False,  # a_b is read by people and models, not by a renderer
        escape_underscores=False,
        code_language_callback=_language,
    )


def _language(element: "Tag") -> str:
    """Stack Exchange's <pre class="lang-py prettyprint-override">."""
    classes: list[str] = list(element.get("class") or [])
    return next((each.removeprefix("lang-") for each in classes if each.startswith("lang-")), "")
