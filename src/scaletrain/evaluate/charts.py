"""The evaluation report's pictures, as SVG in a page: perplexity by group, over steps, and reliability.

Colours come from the page's style (`kept` is the later model, `node` the earlier one), so they follow its light or dark
theme. Every text is escaped.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from scaletrain.evaluate.calibration import BINS, Calibration
from scaletrain.evaluate.curve import Point
from scaletrain.page.svg import Scale, axis_line, log_ticks, short, svg, text

_WIDTH = 960
_ROW = 30
_LEFT, _RIGHT = 190, 200


@dataclass(frozen=True)
class Mark:
    """A figure with its interval; `kind` is a class of the page's style."""

    value: float
    low: float
    high: float
    kind: str


@dataclass(frozen=True)
class Lane:
    """One group: its name, the figures of the models in order, and what is written behind them."""

    name: str
    marks: Sequence[Mark]
    told: str


def lanes(rows: Sequence[Lane], *, name: str) -> str:
    """Draw figures with their intervals on a logarithmic scale, a lane for each group, joined by a line."""
    values = [edge for row in rows for mark in row.marks for edge in (mark.low, mark.high) if 0 < edge < math.inf]
    if not values:
        return ""
    low, high = min(values), max(values)
    margin = max((high / low) ** 0.04, 1.01)
    scale = Scale(low / margin, high * margin, _LEFT, _WIDTH - _RIGHT, log=True)
    height = _ROW * len(rows) + 34
    parts = []
    for tick in log_ticks(scale.low, scale.high):
        parts.append(axis_line(scale(tick), 0, scale(tick), height - 26))
        parts.append(text(scale(tick), height - 8, f"{tick:g}", kind="dim small"))
    for number, row in enumerate(rows):
        y = _ROW * (number + 0.5)
        shown = [mark for mark in row.marks if 0 < mark.value < math.inf]
        places = [scale(mark.value) for mark in shown]
        title = f"<title>{escape(row.name)}</title>"
        parts.append(
            f'<text class="label" x="{_LEFT - 12}" y="{y:.1f}" dy=".35em" text-anchor="end">'
            f"{escape(short(row.name))}{title}</text>"
        )
        if len(places) > 1:
            parts.append(f'<line class="joint" x1="{places[0]:.1f}" y1="{y:.1f}" x2="{places[-1]:.1f}" y2="{y:.1f}"/>')
        for mark, x in zip(shown, places, strict=True):
            left, right = scale(mark.low), scale(mark.high)
            parts.append(
                f'<rect class="{mark.kind} band" x="{left:.1f}" y="{y - 6:.1f}" width="{max(right - left, 1):.1f}" '
                f'height="12" rx="6"/><circle class="{mark.kind}" cx="{x:.1f}" cy="{y:.1f}" r="5"><title>'
                f"{mark.value:.2f} ({mark.low:.2f} to {mark.high:.2f})</title></circle>"
            )
        parts.append(text(_WIDTH - _RIGHT + 14, y, row.told, anchor="start", middle=True, kind="label"))
    return f'<div class="scroll" tabindex="0">{svg(_WIDTH, height, parts, name=name, kind="wide")}</div>'


def reliability(calibration: Calibration, *, name: str, kind: str) -> str:
    """Draw how often the likeliest token came against how likely it was said to be; the diagonal is perfect."""
    size, left, foot = 300, 44, 40
    parts = [f'<line class="axis" x1="{left}" y1="{size}" x2="{left + size}" y2="0" stroke-dasharray="4 4"/>']
    for number in range(BINS):
        if not (count := int(calibration.count[number])):
            continue
        accuracy = calibration.correct[number] / count
        width, tall = size / BINS, accuracy * size
        title = f"said {calibration.confidence[number] / count:.0%}, came {accuracy:.0%}, of {count:,} tokens"
        parts.append(
            f'<rect class="{kind}" x="{left + number * width + 1:.1f}" y="{size - tall:.1f}" width="{width - 2:.1f}" '
            f'height="{tall:.1f}" fill-opacity="{0.35 + 0.65 * min(1, 8 * count / calibration.tokens):.2f}">'
            f"<title>{escape(title)}</title></rect>"
        )
    for share in (0, 0.5, 1):
        x, y = left + share * size, size - share * size
        parts.append(text(left - 6, y, f"{share:.0%}", anchor="end", middle=True, kind="dim small"))
        parts.append(text(x, size + 16, f"{share:.0%}", kind="dim small"))
    parts.append(axis_line(left, size, left + size, size))
    parts.append(text(left + size / 2, size + 34, "how likely the model said the token was", kind="dim small"))
    return svg(left + size + 20, size + foot, parts, name=name, kind="reliability", top=-10)


def curve(points: Sequence[Point], *, name: str) -> str:
    """Draw perplexity over steps with its 95% interval, logarithmic; needs two points."""
    shown = [point for point in points if point.low > 0 and point.high < math.inf]
    if len(shown) < 2:
        return ""
    left, right, height, foot = 60, 20, 260, 30
    xs = Scale(shown[0].step, max(shown[-1].step, 1), left, _WIDTH - right)
    low, high = min(p.low for p in shown), max(p.high for p in shown)
    margin = max((high / low) ** 0.08, 1.01)
    ys = Scale(low / margin, high * margin, height - foot, 8, log=True)
    parts = []
    for tick in log_ticks(ys.low, ys.high):
        parts.append(axis_line(left, ys(tick), _WIDTH - right, ys(tick)))
        parts.append(text(left - 8, ys(tick), f"{tick:g}", anchor="end", middle=True, kind="dim small"))
    top = [f"{xs(p.step):.1f},{ys(p.high):.1f}" for p in shown]
    bottom = [f"{xs(p.step):.1f},{ys(p.low):.1f}" for p in reversed(shown)]
    parts.append(f'<polygon class="kept band" points="{" ".join(top + bottom)}"/>')
    line = " ".join(f"{xs(p.step):.1f},{ys(p.perplexity):.1f}" for p in shown)
    parts.append(f'<polyline class="stroke" points="{line}"/>')
    for point in shown:
        x, y = xs(point.step), ys(point.perplexity)
        title = f"step {point.step}: {point.perplexity:.2f} ({point.low:.2f} to {point.high:.2f})"
        parts.append(f'<circle class="kept" cx="{x:.1f}" cy="{y:.1f}" r="4"><title>{title}</title></circle>')
    for point in dict.fromkeys((shown[0], shown[len(shown) // 2], shown[-1])):
        parts.append(text(xs(point.step), height - 8, f"step {point.step:,}", kind="dim small"))
    return f'<div class="scroll" tabindex="0">{svg(_WIDTH, height, parts, name=name, kind="wide")}</div>'
