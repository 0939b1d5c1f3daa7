"""Figures with how sure they are, one below the other: a dot on a thick line, and a thin one, as SVG in a page.

Every text is escaped.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from scaletrain.page.svg import Scale, axis_line, figure, item, linear_ticks, short, svg, text

_WIDTH, _LEFT, _RIGHT, _ROW, _TOP, _FOOT = 960.0, 200.0, 30.0, 34.0, 6.0, 30.0


@dataclass(frozen=True)
class Ranged:
    """One figure: the thick line is its narrow range, the thin one its wide; `told` is what the pointer shows."""

    name: str
    value: float
    narrow: tuple[float, float]
    wide: tuple[float, float] | None
    told: str


def ranges(rows: Sequence[Ranged], *, name: str, unit: str = "", from_zero: bool = False) -> str:
    """Draw figures on one scale; "" where there are none."""
    if not rows:
        return ""
    edges = [edge for row in rows for edge in (*row.narrow, *(row.wide or ()))]
    low, high = 0.0 if from_zero else min(edges), max(edges)
    margin = 0.05 * (high - low) or abs(high) * 0.05 or 1.0
    xs = Scale(low if from_zero else low - margin, high + margin, _LEFT, _WIDTH - _RIGHT)
    height = _TOP + _ROW * len(rows) + _FOOT
    parts = []
    for tick in linear_ticks(xs.low, xs.high, at_most=8):
        parts.append(axis_line(xs(tick), _TOP, xs(tick), height - _FOOT))
        parts.append(text(xs(tick), height - 10, f"{tick:,.6g}"))
    parts.append(text(_LEFT - 12, height - 10, unit, anchor="end"))
    parts += [_row(row, _TOP + _ROW * (place + 0.5), xs) for place, row in enumerate(rows)]
    return figure(svg(_WIDTH, height, parts, name=name, kind="lines", attributes=' tabindex="0"'), kind="wide")


def _row(row: Ranged, y: float, xs: Scale) -> str:
    drawn = [text(_LEFT - 12, y, short(row.name), anchor="end", middle=True, kind="label")]
    for kind, edges in (("wide", row.wide), ("narrow", row.narrow)):
        if edges is not None:
            x1, x2 = (xs(edge) for edge in edges)
            drawn.append(f'<line class="{kind}" x1="{x1:.1f}" y1="{y:.1f}" x2="{x2:.1f}" y2="{y:.1f}"/>')
    drawn.append(f'<circle class="dot" cx="{xs(row.value):.1f}" cy="{y:.1f}" r="6"/>')
    return item(drawn, [(xs.first, y), (xs.last, y)], row.told)
