"""What reports are made of, as HTML: the page around its sections, a section, a table, a meter, a conversation.

A page is one file that needs nothing else: no network, no script (its own policy forbids both), light and dark.
"""

from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files

from scaletrain.data.report_samples import Sample

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def page(title: str, sections: Iterable[str], *, footer: str) -> bytes:
    """The whole file; the title is text, sections (empty ones are left out) and the footer are HTML already."""
    style = (files("scaletrain.data") / "report.css").read_text("utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(filter(None, sections))
        + f"\n<footer>{footer}</footer>\n</main>\n</body>\n</html>\n"
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


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, texts: Sequence[int] = (0,)) -> str:
    """A table of cells that are HTML already; columns are numbers, but for `texts`."""
    kinds = ["name" if place in texts else "number" for place in range(len(heads))]
    head = "".join(f'<th class="{kind}">{escape(each)}</th>' for kind, each in zip(kinds, heads, strict=True))
    body = "".join(
        "<tr>" + "".join(f'<td class="{kind}">{cell}</td>' for kind, cell in zip(kinds, row, strict=True)) + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def sample_html(sample: Sample) -> str:
    """A conversation: where it is from, and what it says, with what is learned from marked."""
    about = [sample.corpus, sample.source, sample.language, sample.detail]
    if sample.changes:
        about.append(f"changed by {', '.join(sample.changes)}")
    text = "".join(
        f"<mark>{escape(span.text)}</mark>" if span.supervised else escape(span.text) for span in sample.spans
    )
    said = f'<div dir="auto">{text}</div>' if text else ""
    return f'<article class="sample"><header>{escape(" · ".join(filter(None, about)))}</header>{said}</article>'


def share(part: float, whole: float) -> str:
    """A part of a whole in percent."""
    return f"{part / whole:.1%}" if whole else "–"


def meter(part: float, whole: float, *, kind: str = "") -> str:
    """A small bar of a part of a whole, and the percentage beside it; `kind` may be "lost"."""
    percent = f"{100 * part / whole:.1f}%" if whole else "–"
    width = percent if whole else "0"
    return f'<span class="meter {kind}"><i style="width:{width}"></i></span> <span class="dim percent">{percent}</span>'
