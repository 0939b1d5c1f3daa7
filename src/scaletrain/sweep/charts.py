"""The pictures of a sweep's page, as SVG: learning curves, and parallel coordinates.

A trial's colour goes from the page's best to its worst by its rank. Every text is escaped.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

_WIDTH, _HEIGHT = 960, 320
_LEFT, _RIGHT, _TOP, _FOOT = 64, 24, 14, 30


@dataclass(frozen=True)
class Line:
    """One trial: its name, its rank from 0 (the best) to 1, and its points; `strong` is drawn thicker."""

    name: str
    rank: float
    points: Sequence[tuple[float, float]]
    strong: bool = False


@dataclass(frozen=True)
class Axis:
    """One vertical of the parallel coordinates: each trial's value on it, None where it has none."""

    name: str
    values: Sequence[Any]
    is_logarithmic: bool = False


def curves(lines: Sequence[Line], *, name: str) -> str:
    """Draw curves over steps; a point that is far above the rest of a curve's end does not squeeze the others."""
    shown = [line for line in lines if line.points]
    if not shown:
        return ""
    last = max(line.points[-1][0] for line in shown)
    values = sorted(value for line in shown for _, value in line.points)
    low, high = values[0], values[min(len(values) - 1, math.ceil(0.98 * len(values)))]
    margin = 0.05 * (high - low) or 0.01
    low, high = low - margin, high + margin
    bottom = _HEIGHT - _FOOT

    def x(step: float) -> float:
        return _LEFT + step / last * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return bottom - (min(max(value, low), high) - low) / (high - low) * (bottom - _TOP)

    parts = []
    for count in range(5):
        value = low + (high - low) * count / 4
        parts.append(
            f'<line class="axis" x1="{_LEFT}" y1="{y(value):.1f}" x2="{_WIDTH - _RIGHT}" y2="{y(value):.1f}"/>'
        )
        parts.append(text_at(_LEFT - 8, y(value), f"{value:.4g}", anchor="end", middle=True))
        parts.append(text_at(x(last * count / 4), _HEIGHT - 8, f"{last * count / 4:,.0f}"))
    for line in reversed(shown):
        path = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in line.points)
        end = line.points[-1]
        parts.append(
            f'<g style="{_colour(line)}"><title>{escape(line.name)}</title><polyline fill="none" stroke="currentColor" '
            f'stroke-width="{3 if line.strong else 1.6}" points="{path}"/>'
            f'<circle fill="currentColor" cx="{x(end[0]):.1f}" cy="{y(end[1]):.1f}" r="3"/></g>'
        )
    return drawing(_HEIGHT, parts, name)


def parallel(axes: Sequence[Axis], lines: Sequence[Line], *, name: str) -> str:
    """Draw each trial as a line through its values; `lines` give name and rank, in the order of the axes' values."""
    if len(axes) < 2 or not lines:
        return ""
    bottom, parts, places = _HEIGHT - _FOOT, list[str](), list[list[float | None]]()
    for number, axis in enumerate(axes):
        x = _at(number, len(axes))
        low_text, high_text, shares = _shares(axis)
        places.append([None if each is None else bottom - each * (bottom - _TOP - 22) for each in shares])
        anchor = "start" if number == 0 else "end" if number == len(axes) - 1 else "middle"
        parts.append(f'<line class="axis" x1="{x:.1f}" y1="{_TOP + 22}" x2="{x:.1f}" y2="{bottom}"/>')
        parts.append(text_at(x, _TOP, axis.name, anchor=anchor, kind="head"))
        parts.append(text_at(x, _TOP + 16, high_text, anchor=anchor))
        parts.append(text_at(x, _HEIGHT - 12, low_text, anchor=anchor))
    for place in reversed(range(len(lines))):
        line = lines[place]
        through = [(_at(number, len(axes)), column[place]) for number, column in enumerate(places)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in through if y is not None)
        parts.append(
            f'<g style="{_colour(line)}"><title>{escape(line.name)}</title><polyline fill="none" stroke="currentColor" '
            f'stroke-opacity="0.85" stroke-width="{3.5 if line.strong else 1.6}" points="{path}"/></g>'
        )
    return drawing(_HEIGHT, parts, name)


def _shares(axis: Axis) -> tuple[str, str, list[float | None]]:
    """Where on its axis each value is, from 0 to 1, and what stands at both ends; what is no number goes by name."""
    there = [value for value in axis.values if value is not None]
    are_numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in there)
    if not there or not are_numbers:
        names = sorted({str(value) for value in there})
        most = max(1, len(names) - 1)
        shares = [None if value is None else names.index(str(value)) / most for value in axis.values]
        return (names[0], names[-1], shares) if names else ("", "", shares)
    low, high = min(there), max(there)
    is_logarithmic = axis.is_logarithmic and low > 0

    def share(value: float) -> float:
        if high == low:
            return 0.5
        if is_logarithmic:
            return math.log(value / low) / math.log(high / low)
        return float((value - low) / (high - low))

    return f"{low:.4g}", f"{high:.4g}", [None if value is None else share(value) for value in axis.values]


def _at(number: int, count: int) -> float:
    return 12 + number * (_WIDTH - 24) / (count - 1)


def _colour(line: Line) -> str:
    return f"color: color-mix(in oklab, var(--lost) {100 * line.rank:.0f}%, var(--kept))"


def text_at(
    x: float, y: float, text: str, *, anchor: str = "middle", middle: bool = False, kind: str = "dim small"
) -> str:
    """A text, which is escaped; `middle` puts its middle at y instead of its foot."""
    shift = ' dy=".35em"' if middle else ""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}"{shift} text-anchor="{anchor}">{escape(text)}</text>'


def drawing(height: float, parts: Sequence[str], name: str) -> str:
    """The parts as one picture, as wide as the page."""
    return (
        f'<div class="scroll"><svg class="wide" viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'aria-label="{escape(name)}">{"".join(parts)}</svg></div>'
    )
