"""What reports are made of, as HTML: the page around its sections, a section, a table, a meter.

A page is one file that needs nothing else: no network (its own policy forbids it), light and dark. It has no script, or
one that this package brings, which the policy knows by its hash: no other one would run.
"""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from hashlib import sha256
from html import escape
from importlib.resources import files
from itertools import zip_longest

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def page(title: str, sections: Iterable[str], *, footer: str, charts: bool = False) -> bytes:
    """The whole file; the title is text, sections (empty ones are left out) and the footer are HTML already.

    `charts` adds what figures need (`page.lines`, `page.ranges`): their style, and a script that makes them answer to a
    pointer. They can be read without it.
    """
    folder = files("scaletrain.page")
    style = (folder / "page.css").read_text("utf-8")
    policy, script = _POLICY, ""
    if charts:
        style += (folder / "charts.css").read_text("utf-8")
        text = (folder / "charts.js").read_text("utf-8")
        policy += f"; script-src 'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
        script = f"<script>{text}</script>\n"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(filter(None, sections))
        + f"\n<footer>{footer}</footer>\n</main>\n{script}</body>\n</html>\n"
    ).encode("utf-8", "replace")


def tiles(shown: Iterable[tuple[str, str]]) -> str:
    """Numbers, each with what it is a number of; both are text."""
    return "".join(
        f'<div class="tile"><b>{escape(number)}</b><span class="dim">{escape(of)}</span></div>' for number, of in shown
    )


def section(title: str, note: str, content: str) -> str:
    """A card with a heading; all three are HTML already."""
    told = f'<p class="dim">{note}</p>' if note else ""
    return f"<section><h2>{title}</h2>{told}{content}</section>"


def table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], *, texts: Sequence[int] = (0,), kinds: Sequence[str] = ()
) -> str:
    """A table of cells that are HTML already; columns are numbers, but for `texts`; `kinds` has each row's class."""
    sides = ["name" if place in texts else "number" for place in range(len(heads))]
    tags = ["th" if each else "td" for each in heads]  # an empty heading would be read out as a heading of nothing
    head = "".join(
        f'<{tag} class="{side}">{escape(each)}</{tag}>' for tag, side, each in zip(tags, sides, heads, strict=True)
    )
    body = "".join(
        (f'<tr class="{kind}">' if kind else "<tr>")
        + "".join(f'<td class="{side}">{cell}</td>' for side, cell in zip(sides, row, strict=True))
        + "</tr>"
        for row, kind in zip_longest(rows, kinds, fillvalue="")
    )
    return f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def share(part: float, whole: float) -> str:
    """A part of a whole in percent."""
    return f"{part / whole:.1%}" if whole else "–"


def meter(part: float, whole: float, *, kind: str = "") -> str:
    """A small bar of a part of a whole, and the percentage beside it; `kind` may be "lost"."""
    percent = f"{100 * part / whole:.1f}%" if whole else "–"
    width = percent if whole else "0"
    return f'<span class="meter {kind}"><i style="width:{width}"></i></span> <span class="dim percent">{percent}</span>'
