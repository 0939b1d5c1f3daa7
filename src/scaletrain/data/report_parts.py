"""What the sections of a report are made of, as HTML: a section, a table, a meter, a conversation."""

from collections.abc import Iterable, Sequence
from html import escape

from scaletrain.data.report_samples import Sample


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
