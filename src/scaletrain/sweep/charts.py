"""The pictures of a sweep's page: learning curves, and parallel coordinates.

A trial's colour goes from the page's best to its worst by its rank. Every text is escaped.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scaletrain.page.lines import Chart, Line, line_chart
from scaletrain.page.svg import Scale, axis_line, figure, item, path, shaded, svg, text

_WIDTH, _HEIGHT, _SIDE, _TOP, _FOOT = 960.0, 320.0, 12.0, 36.0, 30.0
_SHOWN = 0.98  # of all values: a curve that begins far above the rest does not squeeze the others


@dataclass(frozen=True)
class Curve:
    """One trial: its name, its parameters as text, its rank from 0 (the best) to 1, and its points."""

    name: str
    told: str
    rank: float
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Axis:
    """One vertical of the parallel coordinates: each trial's value on it, None where it has none."""

    name: str
    values: Sequence[Any]
    is_logarithmic: bool = False


def curves(trials: Sequence[Curve], *, metric: str) -> str:
    """Draw the metric over steps."""
    values = sorted(value for trial in trials for _, value in trial.points)
    if not values:
        return ""
    lines = []
    for trial in trials:
        steps, found = [step for step, _ in trial.points], [value for _, value in trial.points]
        lines.append(Line(0, f"{trial.name}: {trial.told}", steps, found, "ended", rank=trial.rank))
    most = values[min(len(values) - 1, math.ceil(_SHOWN * len(values)))]
    return line_chart(Chart(metric, "step", lines, most=most, wide=True))


def parallel(axes: Sequence[Axis], trials: Sequence[Curve]) -> str:
    """Draw each trial as a line through its values; `trials` give name and rank, in the order of the axes' values."""
    if len(axes) < 2 or not trials:
        return ""
    parts, places = list[str](), list[list[float | None]]()
    up = Scale(0, 1, _HEIGHT - _FOOT, _TOP)
    across = Scale(0, len(axes) - 1, _SIDE, _WIDTH - _SIDE)
    for number, axis in enumerate(axes):
        x = across(number)
        low, high, shares = _shares(axis)
        places.append([None if share is None else up(share) for share in shares])
        anchor = "start" if number == 0 else "end" if number == len(axes) - 1 else "middle"
        parts.append(axis_line(x, up.last, x, up.first))
        for y, content, kind in ((14, axis.name, "head"), (30, high, "dim tick"), (_HEIGHT - 12, low, "dim tick")):
            parts.append(text(x, y, content, anchor=anchor, kind=kind))
    for number, trial in reversed(list(enumerate(trials))):
        through = [(across(place), at) for place, column in enumerate(places) if (at := column[number]) is not None]
        values = [f"{axis.name} {_told(axis.values[number])}" for axis in axes if axis.values[number] is not None]
        label, best = "\n".join([trial.name, *values]), "best" if trial.rank == 0 else ""
        parts.append(item([path(through)], through, label, kind=best, style=shaded(trial.rank)))
    picture = svg(_WIDTH, _HEIGHT, parts, name="values of each trial", kind="lines", attributes=' tabindex="0"')
    return figure(picture, kind="wide")


def _told(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _shares(axis: Axis) -> tuple[str, str, list[float | None]]:
    """What stands at both ends of an axis, and where on it each value is, from 0 to 1; no numbers go by name."""
    there = [value for value in axis.values if value is not None]
    are_numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in there)
    if not there or not are_numbers:
        names = sorted({str(value) for value in there}) or [""]
        most = max(1, len(names) - 1)
        return names[0], names[-1], [None if each is None else names.index(str(each)) / most for each in axis.values]
    low, high = min(there), max(there)
    scale = Scale(low, high, 0, 1, log=axis.is_logarithmic and low > 0)
    shares = [None if each is None else 0.5 if low == high else scale(each) for each in axis.values]
    return f"{low:.4g}", f"{high:.4g}", shares
