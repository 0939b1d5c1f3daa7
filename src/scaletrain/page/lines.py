"""Charts of lines over steps, hours or workers, as SVG in a page; of several runs in each, which a legend may hide.

A run's colour and dashes are classes of the page's style, `run-0` and so on, so they follow its light or dark theme.
The page's script finds each line's values in its data attributes and shows them under the pointer, or the arrow keys.
Every text is escaped.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal, NamedTuple

from scaletrain.page.svg import Scale, axis_line, figure, item, path, shaded, svg, text

MOST_RUNS = 24  # eight colours, each unbroken, dashed and dotted

_CHARACTER = 6.0  # about how wide one is on an axis
_LINE = 16.0  # of text
_ROOM_FOR_LABELS = 1.08
_IN_THOUSANDS = 1e4  # numbers from here on are

Format = Literal["number", "integer", "percent", "dollars", "bytes", "seconds"]
Point = tuple[float, float]


class _Frame(NamedTuple):
    """The size of a chart, what of it is margin, and how many numbers stand along an axis at most."""

    width: float
    height: float
    left: float
    right: float
    top: float
    foot: float
    ticks: int


_NARROW = _Frame(480, 230, 52, 10, 8, 24, 5)  # two of them stand side by side
_WIDE = _Frame(960, 330, 64, 24, 14, 24, 8)


@dataclass(frozen=True)
class Line:
    """Values of one run; NaN breaks the line.

    `kind`: raw is faint, what is steady is drawn over it; ended has a dot at its end; level keeps each value until the
    next one; dots marks each; dot is a thing of its own at a single place; a guide is thin and has no values to show.
    `spread` is a low and a high for each value. A `label` stands beside the last value. With a `rank` from 0 (the best,
    which is thick) to 1 the colour is not the run's.
    """

    run: int
    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    kind: Literal["steady", "raw", "ended", "level", "dots", "dot", "guide"] = "steady"
    spread: Sequence[Point] = ()
    label: str = ""
    rank: float | None = None


@dataclass(frozen=True)
class Mark:
    """Something that happened at one place of a run."""

    run: int
    x: float
    label: str


@dataclass(frozen=True)
class Chart:
    """What is drawn: `unit` names the places along the x axis, and `shown` says how a value is written.

    `log` is of the values, `log_x` of the places. Where there are values at some `places` only, the axis names these,
    and the pointer goes from one to the next. Values above `most` lie at the upper edge.
    """

    title: str
    unit: str
    lines: Sequence[Line]
    shown: Format = "number"
    log: bool = False
    from_zero: bool = False
    marks: Sequence[Mark] = ()
    note: str = ""
    log_x: bool = False
    places: Sequence[float] = ()
    most: float = math.inf
    wide: bool = False


def line_chart(chart: Chart, *, kind: str = "") -> str:
    """Draw a chart; "" where no line has a value. `kind` is one more class of the figure."""
    points = [point for line in chart.lines for point in _points(chart, line)]
    if not points:
        return ""
    frame = _WIDE if chart.wide else _NARROW
    if chart.places:  # their names fill a line of their own
        frame = frame._replace(height=frame.height + _LINE, foot=frame.foot + _LINE)
    xs, ys = _scales(chart, points, frame)
    order = sorted(chart.lines, key=lambda line: (line.kind == "dot", line.kind != "raw", -(line.rank or 0.0)))
    parts = [
        *_axes(chart, xs, ys, frame),
        *_marks(chart.marks, xs, ys),
        *(_line(chart, each, xs, ys) for each in order),
    ]
    values = f' tabindex="0" data-x="{xs.attribute}" data-y="{ys.attribute}"'
    if chart.places:
        values += f' data-places="{" ".join(f"{place:.7g}" for place in chart.places)}"'
    name = f"{chart.title} by {chart.unit}: {_range(chart, points)}"
    return figure(
        svg(frame.width, frame.height, parts, name=name, kind="lines", attributes=values),
        title=chart.title,
        note=chart.note,
        kind=f"wide {kind}".strip() if chart.wide else kind,
        attributes=f' data-unit="{escape(chart.unit)}" data-shown="{chart.shown}"',
    )


def legend(lines: Iterable[tuple[int, str]]) -> str:
    """What runs are called, below a chart that does not let them be hidden."""
    rows = "".join(f'<li><i class="swatch run-{run}"></i>{escape(name)}</li>' for run, name in lines)
    return f'<ul class="legend">{rows}</ul>'


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
    return _with_unit(value, ((1e9, "G"), (1e6, "M"), (_IN_THOUSANDS, "k")), "")


def _with_unit(value: float, units: Iterable[tuple[float, str]], otherwise: str) -> str:
    for bound, unit in units:
        if abs(value) >= bound:
            factor = 1e3 if unit == "k" else bound
            return f"{value / factor:.4g}{unit}"
    return f"{value:.4g}{otherwise}"


def _drawable(chart: Chart, value: float) -> bool:
    return math.isfinite(value) and (value > 0 or not chart.log)


def _points(chart: Chart, line: Line) -> list[Point]:
    """All that has to find room of a line, its spread too."""
    points = [*zip(line.xs, line.ys, strict=True)]
    points += [(x, edge) for x, edges in zip(line.xs, line.spread, strict=False) for edge in edges]
    return [(x, min(y, chart.most)) for x, y in points if _drawable(chart, y)]


def _scales(chart: Chart, points: Sequence[Point], frame: _Frame) -> tuple[Scale, Scale]:
    """The scales of both axes, with room for what is drawn."""
    low_x, high_x = float(min(x for x, _ in points)), float(max(x for x, _ in points))
    low, high = float(min(y for _, y in points)), float(max(y for _, y in points))
    if any(line.kind == "dot" for line in chart.lines):
        low_x, high_x = min(low_x, 0.0), _ROOM_FOR_LABELS * high_x
    if low_x == high_x:
        low_x, high_x = (low_x / 2, high_x * 2) if chart.log_x else (low_x - 0.5, high_x + 0.5)
    if chart.log:
        margin = (high / low) ** 0.05 if high > low else math.exp(abs(math.log(high)) * 0.05 or 1.0)
        low, high = low / margin, high * margin
    else:
        low = min(low, 0.0) if chart.from_zero else low
        margin = 0.05 * (high - low) or abs(high) * 0.05 or 1.0
        low, high = low if chart.from_zero and low == 0 else low - margin, high + margin
    return (
        Scale(low_x, high_x, frame.left, frame.width - frame.right, log=chart.log_x),
        Scale(low, high, frame.height - frame.foot, frame.top, log=chart.log),
    )


def _axes(chart: Chart, xs: Scale, ys: Scale, frame: _Frame) -> Iterable[str]:
    for tick, label in _labelled(ys.ticks(at_most=frame.ticks), chart.shown):
        if chart.shown == "integer" and tick != round(tick):
            continue
        yield axis_line(xs.first, ys(tick), xs.last, ys(tick))
        yield text(frame.left - 8, ys(tick), label, anchor="end", middle=True)
    yield text(xs.last, frame.height - 8, chart.unit, anchor="end")
    free_until = frame.width if chart.places else xs.last - _CHARACTER * (len(chart.unit) + 1)
    for tick, label in reversed(_labelled(sorted(chart.places or xs.ticks(at_most=frame.ticks)), "number")):
        half = _CHARACTER * len(label) / 2
        x = min(xs(tick), frame.width - half) if chart.places else xs(tick)
        if x + half <= free_until:
            yield text(x, frame.height - 8 - (_LINE if chart.places else 0), label)
            free_until = x - half - _CHARACTER


def _labelled(ticks: Sequence[float], shown: Format) -> list[tuple[float, str]]:
    """What stands beside the ticks of one axis, all in thousands where the largest are."""
    in_thousands = shown in ("number", "integer") and max(ticks, default=0.0) >= _IN_THOUSANDS
    return [
        (tick, f"{tick / 1e3:.4g}k" if in_thousands and 1e3 <= tick < _IN_THOUSANDS else written(tick, shown))
        for tick in ticks
    ]


def _line(chart: Chart, line: Line, xs: Scale, ys: Scale) -> str:
    """One line: a path, its values for the script, its dots and its label."""
    points = [(xs(x), ys(y)) if _drawable(chart, y) else None for x, y in zip(line.xs, line.ys, strict=True)]
    there = [point for point in points if point is not None]
    if not there:
        return ""
    (x, y), is_guide = there[-1], line.kind == "guide"
    beside = (x - 6, y - 5, "end", False) if is_guide else (x + 9, y, "start", True)
    label = text(*beside[:2], line.label, anchor=beside[2], middle=beside[3]) if line.label else ""
    if is_guide:
        return f'<g class="guide">{path(there)}{label}</g>'
    dots = there if line.kind in ("dots", "dot") else there[-1:] if line.kind == "ended" or len(there) == 1 else []
    parts = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{4 if line.kind == "dot" else 3}"/>' for x, y in dots]
    if line.kind == "dot":
        value = written(line.ys[-1], chart.shown)
        told = f"{line.name}\n{line.xs[-1]:.3g} {chart.unit}\n{chart.title}: {value}"
        return item([*parts, label], there, told, kind=f"run-{line.run}")
    bars = "".join(
        f"M{xs(x):.1f} {ys(low):.1f}V{ys(high):.1f}" for x, (low, high) in zip(line.xs, line.spread, strict=False)
    )
    parts += [f'<path class="spread" d="{bars}"/>'] if bars else []
    style = "" if line.rank is None else f' style="{shaded(line.rank)}"'
    best = " best" if line.rank == 0 else ""
    return (
        f'<g class="run run-{line.run} {line.kind}{best}"{style} data-name="{escape(line.name)}" '
        f'data-values="{_values(line)}"><path d="{_path(points, is_level=line.kind == "level")}"/>{"".join(parts)}'
        f"{label}</g>"
    )


def _path(points: Sequence[Point | None], *, is_level: bool) -> str:
    """A path through points, which a missing one breaks."""
    drawn, pen_up = [], True
    for point in points:
        if point is not None:
            if is_level and not pen_up:
                drawn.append(f"H{point[0]:.1f}")
            drawn.append(f"{'M' if pen_up else 'L'}{point[0]:.1f} {point[1]:.1f}")
        pen_up = point is None
    return "".join(drawn)


def _values(line: Line) -> str:
    """Places and values for the script; each with the edges of its spread, where it has one."""
    edges = [f",{low:.5g},{high:.5g}" for low, high in line.spread] or [""] * len(line.xs)
    rows = zip(line.xs, line.ys, edges, strict=True)
    return " ".join(f"{x:.7g},{y:.5g}{spread}" for x, y, spread in rows if math.isfinite(y))


def _marks(marks: Sequence[Mark], xs: Scale, ys: Scale) -> Iterable[str]:
    for mark in marks:
        if xs.low <= mark.x <= xs.high:
            x = xs(mark.x)
            yield (
                f'<g class="mark run-{mark.run}" data-x="{mark.x:.7g}" data-label="{escape(mark.label)}">'
                f'<line x1="{x:.1f}" y1="{ys.last:g}" x2="{x:.1f}" y2="{ys.first:g}"/>'
                f'<path d="M{x - 4:.1f} {ys.last:g}h8l-4 7Z"/><title>{escape(mark.label)}</title></g>'
            )


def _range(chart: Chart, points: Sequence[Point]) -> str:
    """What a chart says to those who cannot see it."""
    low, high = (written(edge(y for _, y in points), chart.shown) for edge in (min, max))
    last = "; ".join(
        f"{line.name} ends at {written(ends[-1], chart.shown)}"
        for line in chart.lines[:MOST_RUNS]
        if line.kind not in ("raw", "guide", "dot") and (ends := [y for y in line.ys if math.isfinite(y)])
    )
    return f"between {low} and {high}" + (f"; {last}" if last else "")
