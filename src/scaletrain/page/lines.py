"""Charts of lines over steps or hours, as SVG in a page: several runs in each, which a legend shows and hides.

A run's colour and dashes are classes of the page's style, `run-0` and so on, so they follow its light or dark theme.
The page's script finds each line's values in its data attributes and shows them under the pointer, or the arrow keys.
Every text is escaped.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

from scaletrain.page.svg import Scale, linear_ticks, log_ticks, svg

MOST_RUNS = 24  # eight colours, each unbroken, dashed and dotted

_WIDTH, _HEIGHT = 480.0, 230.0
_LEFT, _RIGHT, _TOP, _FOOT = 52.0, 10.0, 8.0, 24.0
_CHARACTER = 6.0  # about how wide one is on an axis

Format = Literal["number", "integer", "percent", "dollars", "bytes", "seconds"]


@dataclass(frozen=True)
class Line:
    """Values of one run; NaN breaks the line.

    `kind`: raw is faint, what is steady is drawn over it; level keeps each value until the next one; dots marks each.
    """

    run: int
    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    kind: Literal["steady", "raw", "level", "dots"] = "steady"


@dataclass(frozen=True)
class Mark:
    """Something that happened at one place of a run."""

    run: int
    x: float
    label: str


@dataclass(frozen=True)
class Chart:
    """What is drawn: `unit` names the places along the x axis, and `shown` says how a value is written."""

    title: str
    unit: str
    lines: Sequence[Line]
    shown: Format = "number"
    log: bool = False
    from_zero: bool = False
    marks: Sequence[Mark] = ()
    note: str = ""


def line_chart(chart: Chart, *, kind: str = "") -> str:
    """Draw a chart; "" where no line has a value. `kind` is one more class of the figure."""
    points = [(x, y) for line in chart.lines for x, y in zip(line.xs, line.ys, strict=True) if _drawable(chart, y)]
    if not points:
        return ""
    xs, ys = _scales(chart, points)
    axes = list(_axes(chart, xs, ys))
    lines = [_line(chart, line, xs, ys) for line in sorted(chart.lines, key=lambda line: line.kind != "raw")]
    name = f"{chart.title} by {chart.unit}: {_range(chart, points)}"
    values = f' tabindex="0" data-from="{xs.low!r} {xs.high!r}" data-to="{xs.first:g} {xs.last:g}"'
    picture = svg(
        _WIDTH, _HEIGHT, [*axes, *_marks(chart.marks, xs), *lines], name=name, kind="lines", attributes=values
    )
    note = f' <span class="dim">{escape(chart.note)}</span>' if chart.note else ""
    return (
        f'<figure class="chart {kind}" data-unit="{escape(chart.unit)}" data-shown="{chart.shown}">'
        f"<figcaption><b>{escape(chart.title)}</b>{note}</figcaption>{picture}</figure>"
    )


def written(value: float, shown: Format) -> str:
    """A value as an axis or a table has it."""
    if shown == "percent":
        return f"{100 * value:.3g}%"
    if shown == "dollars":
        return f"${value:,.2f}" if value >= 1 or value == 0 else f"${value:.2g}"
    if shown == "bytes":
        return _with_unit(value, ((1e12, " TB"), (1e9, " GB"), (1e6, " MB"), (1e3, " kB")), " B")
    if shown == "seconds":
        return f"{value:.3g} s"
    return _with_unit(value, ((1e9, "G"), (1e6, "M"), (1e4, "k")), "")


def _with_unit(value: float, units: Iterable[tuple[float, str]], otherwise: str) -> str:
    for bound, unit in units:
        if abs(value) >= bound:
            factor = 1e3 if unit == "k" else bound
            return f"{value / factor:.4g}{unit}"
    return f"{value:.4g}{otherwise}"


def _drawable(chart: Chart, value: float) -> bool:
    return math.isfinite(value) and (value > 0 or not chart.log)


def _scales(chart: Chart, points: Sequence[tuple[float, float]]) -> tuple[Scale, Scale]:
    """The scales of both axes, with room for what is drawn; that of y is of logarithms where the chart is."""
    low_x, high_x = min(x for x, _ in points), max(x for x, _ in points)
    low, high = min(y for _, y in points), max(y for _, y in points)
    if chart.log:
        low, high = math.log(low), math.log(high)
    elif chart.from_zero:
        low = min(low, 0.0)
    margin = 0.05 * (high - low) or abs(high) * 0.05 or 1.0
    bottom = low if chart.from_zero and low == 0 else low - margin
    if low_x == high_x:
        low_x, high_x = low_x - 0.5, high_x + 0.5
    return Scale(low_x, high_x, _LEFT, _WIDTH - _RIGHT), Scale(bottom, high + margin, _HEIGHT - _FOOT, _TOP)


def _axes(chart: Chart, xs: Scale, ys: Scale) -> Iterable[str]:
    low, high = (math.exp(ys.low), math.exp(ys.high)) if chart.log else (ys.low, ys.high)
    for tick in log_ticks(low, high) if chart.log and high > 4 * low else linear_ticks(low, high):
        if chart.shown == "integer" and tick != round(tick):
            continue
        y = ys(math.log(tick) if chart.log else tick)
        yield f'<line class="axis" x1="{xs.first:g}" y1="{y:.1f}" x2="{xs.last:g}" y2="{y:.1f}"/>'
        yield f'<text class="dim tick" x="{_LEFT - 6:g}" y="{y:.1f}" dy=".35em" text-anchor="end">'
        yield f"{escape(written(tick, chart.shown))}</text>"
    yield f'<text class="dim tick" x="{xs.last:g}" y="{_HEIGHT - 8:g}" text-anchor="end">{escape(chart.unit)}</text>'
    for tick in linear_ticks(xs.low, xs.high):
        if (x := xs(tick)) < xs.last - _CHARACTER * (len(chart.unit) + 4):
            yield f'<text class="dim tick" x="{x:.1f}" y="{_HEIGHT - 8:g}" text-anchor="middle">'
            yield f"{escape(written(tick, 'number'))}</text>"


def _line(chart: Chart, line: Line, xs: Scale, ys: Scale) -> str:
    """One line: a path, its values for the script, and its dots."""
    path, dots, pen_up = [], [], True
    previous: tuple[float, float] | None = None
    for x, y in zip(line.xs, line.ys, strict=True):
        if not _drawable(chart, y):
            pen_up = True
            continue
        place = (xs(x), ys(math.log(y) if chart.log else y))
        if line.kind == "level" and previous is not None and not pen_up:
            path.append(f"H{place[0]:.1f}")
        path.append(f"{'M' if pen_up else 'L'}{place[0]:.1f} {place[1]:.1f}")
        if line.kind == "dots":
            dots.append(f'<circle cx="{place[0]:.1f}" cy="{place[1]:.1f}" r="3"/>')
        previous, pen_up = place, False
    values = " ".join(f"{x:.7g},{y:.5g}" for x, y in zip(line.xs, line.ys, strict=True) if math.isfinite(y))
    return (
        f'<g class="run run-{line.run} {line.kind}" data-name="{escape(line.name)}" data-values="{values}">'
        f'<path d="{"".join(path)}"/>{"".join(dots)}</g>'
    )


def _marks(marks: Sequence[Mark], xs: Scale) -> Iterable[str]:
    for mark in marks:
        if xs.low <= mark.x <= xs.high:
            x = xs(mark.x)
            yield (
                f'<g class="mark run-{mark.run}" data-x="{mark.x:.7g}" data-label="{escape(mark.label)}">'
                f'<line x1="{x:.1f}" y1="{_TOP:g}" x2="{x:.1f}" y2="{_HEIGHT - _FOOT:g}"/>'
                f'<path d="M{x - 4:.1f} {_TOP:g}h8l-4 7Z"/><title>{escape(mark.label)}</title></g>'
            )


def _range(chart: Chart, points: Sequence[tuple[float, float]]) -> str:
    """What a chart says to those who cannot see it."""
    low, high = (written(edge(y for _, y in points), chart.shown) for edge in (min, max))
    last = "; ".join(
        f"{line.name} ends at {written(ends[-1], chart.shown)}"
        for line in chart.lines[:MOST_RUNS]
        if line.kind != "raw" and (ends := [y for y in line.ys if math.isfinite(y)])
    )
    return f"between {low} and {high}" + (f"; {last}" if last else "")
