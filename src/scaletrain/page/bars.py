"""Bars of parts of a whole, and several of them stacked against one another, each with a legend.

Colours are classes of the page's style, so they follow its light or dark theme. Every text is escaped.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from scaletrain.page.svg import svg


@dataclass(frozen=True)
class Bar:
    """A part of a bar of shares; `kind` is a class of the page's style."""

    label: str
    count: int
    kind: str


def shares(bars: Sequence[Bar], *, name: str) -> str:
    """Draw one bar of parts, with a legend that has their counts and shares."""
    total = sum(bar.count for bar in bars) or 1
    width, x, parts = 900.0, 0.0, []
    for bar in bars:
        size = bar.count / total * width
        title = f"<title>{escape(bar.label)}: {bar.count:,}</title>"
        parts.append(f'<rect class="{bar.kind}" x="{x:.1f}" y="0" width="{size:.1f}" height="22">{title}</rect>')
        x += size
    legend = "".join(
        f'<li><i class="{bar.kind}"></i>{escape(bar.label)} <span class="dim">{bar.count:,} · '
        f"{bar.count / total:.1%}</span></li>"
        for bar in bars
    )
    return f'{svg(width, 22, parts, name=name, kind="shares", ratio="none")}<ul class="legend">{legend}</ul>'


@dataclass(frozen=True)
class Stack:
    """One of several bars of parts; `parts` are (kind, amount), and `told` is what is written behind it."""

    name: str
    parts: Sequence[tuple[str, float]]
    told: str


def stacks(rows: Sequence[Stack], labels: Mapping[str, str], *, show: Callable[[float], str]) -> str:
    """Draw bars of which the longest fills the width; `labels` names each kind, and `show` an amount.

    A kind that no bar has is not in the legend.
    """
    longest = max((sum(amount for _, amount in row.parts) for row in rows), default=0) or 1
    drawn = []
    for row in rows:
        there = [(kind, amount) for kind, amount in row.parts if amount > 0]
        told = ", ".join(f"{labels[kind]} {show(amount)}" for kind, amount in there) or "nothing"
        parts = "".join(
            f'<i class="{kind}" style="width:{amount / longest:.3%}" title="{escape(labels[kind])} {show(amount)}"></i>'
            for kind, amount in there
        )
        drawn.append(
            f'<li><span class="name">{escape(row.name)}</span>'
            f'<span class="parts" role="img" aria-label="{escape(f"{row.name}: {told}")}">{parts}</span>'
            f'<span class="told">{escape(row.told)}</span></li>'
        )
    used = {kind for row in rows for kind, amount in row.parts if amount > 0}
    legend = "".join(
        f'<li><i class="{kind}"></i>{escape(label)}</li>' for kind, label in labels.items() if kind in used
    )
    return f'<ul class="stacks">{"".join(drawn)}</ul><ul class="legend">{legend}</ul>'
