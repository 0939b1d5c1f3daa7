"""The pictures of a scaling study's page, as SVG: throughput, efficiency, the parts of a step, and money against hours.

A stage has its colour; weak curves are dashed, with hollow points. Every text is escaped.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from scaletrain.sweep.charts import drawing, text_at
from scaletrain.sweep.scaling_points import counted
from scaletrain.sweep.scaling_results import Curve, PlacedPoint, StudyResults

_WIDTH, _HEIGHT = 960, 330  # the width is that of `drawing`
_LEFT, _RIGHT, _TOP, _FOOT = 76, 30, 16, 46
_COLOURS = ("var(--kept)", "var(--lost)", "var(--first)", "var(--node)")  # by stage
_LEAST_GAP = 26  # between two labels of an axis
_PARTS = (
    ("computing", "kept"),
    ("uneven share of micro batches", "node"),
    ("waiting for data", "first"),
    ("communication and the rest", "lost"),
)


@dataclass(frozen=True)
class _Scale:
    """From a range of values to one of places."""

    low: float
    high: float
    first: float
    last: float
    of: Callable[[float], float] = float

    def __call__(self, value: float) -> float:
        low, high = self.of(self.low), self.of(self.high)
        return self.first + (self.of(value) - low) / (high - low or 1) * (self.last - self.first)


def throughput(curves: Sequence[Curve]) -> str:
    """Draw tokens/s against workers, with the quartiles of the steps, the fitted law, and what would be ideal."""
    workers = _worker_counts(curves)
    pace = max(curve.points[0].measured.tokens_per_s.median / curve.points[0].workers for curve in curves)
    highest = max(each.measured.tokens_per_s.high for curve in curves for each in curve.points)
    x = _Scale(0, max(workers) * 1.03, _LEFT, _WIDTH - _RIGHT)
    y = _Scale(0, 1.06 * max(highest, pace * max(workers)), _HEIGHT - _FOOT, _TOP)
    parts = [*_axes(x, y, workers, unit="tokens/s")]
    parts.append(_line([(0, 0), (max(workers), pace * max(workers))], x, y, colour="var(--dim)", dashes="2 5"))
    parts.append(text_at(x(max(workers)) - 8, y(pace * max(workers)) - 4, "ideal", anchor="end"))
    for curve in curves:
        if curve.law is not None:
            steps = [curve.points[0].workers + n / 60 * (max(workers) - curve.points[0].workers) for n in range(61)]
            fitted = [(each, curve.law.throughput(each)) for each in steps]
            parts.append(_line(fitted, x, y, colour=_colour(curve), dashes="1 4", title=curve.law.name))
        parts += _drawn(curve, x, y, lambda each: each.measured.tokens_per_s.median, spread=True)
    return drawing(_HEIGHT, parts, "throughput against workers") + _legend(curves)


def efficiency(curves: Sequence[Curve]) -> str:
    """Draw the efficiency of each point against the workers, every doubling as far as the one before."""
    workers = _worker_counts(curves)
    highest = max(1.0, *(each.efficiency for curve in curves for each in curve.points))
    x = _Scale(min(workers) / 1.1, max(workers) * 1.1, _LEFT, _WIDTH - _RIGHT, math.log2)
    y = _Scale(0, 1.08 * highest, _HEIGHT - _FOOT, _TOP)
    parts = [*_axes(x, y, workers, percent=True)]
    ends = (min(workers) / 1.1, max(workers) * 1.1)
    parts.append(_line([(each, 1.0) for each in ends], x, y, colour="var(--dim)", dashes="2 5"))
    for curve in curves:
        parts += _drawn(curve, x, y, lambda each: each.efficiency)
    return drawing(_HEIGHT, parts, "efficiency against workers") + _legend(curves)


def step_parts(curves: Sequence[Curve]) -> str:
    """Draw what each point's step is made of, as shares of it."""
    left, right, tall, parts = 190, 110, 26, list[str]()
    rows = [(curve, each) for curve in curves for each in curve.points]
    for place, (curve, each) in enumerate(rows):
        y, x, told = place * tall + 4.0, float(left), each.parts
        label = f"{curve.name}, {counted(each.workers)}"
        parts.append(text_at(left - 10, y + 9, label, anchor="end", middle=True, kind="label small"))
        seconds = (told.computing_s, told.uneven_s, told.data_wait_s, told.rest_s)
        for (name, kind), part_s in zip(_PARTS, seconds, strict=True):
            width = part_s / told.step_s * (_WIDTH - left - right) if told.step_s else 0.0
            title = f"<title>{name}: {part_s:.3g} s, {part_s / told.step_s:.1%}</title>" if told.step_s else ""
            parts.append(f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="18">{title}</rect>')
            x += width
        parts.append(text_at(_WIDTH - right + 10, y + 9, f"{told.step_s:.3g} s a step", anchor="start", middle=True))
    legend = "".join(f'<li><i class="{kind}"></i>{name}</li>' for name, kind in _PARTS)
    return drawing(len(rows) * tall + 8, parts, "parts of a step") + f'<ul class="legend">{legend}</ul>'


def cost_and_hours(results: StudyResults) -> str:
    """Draw what a million tokens cost at each point against the hours of the whole run; down and left is better."""
    unit = "USD per million tokens" if results.has_prices else "hours of workers per million tokens"
    shown = [
        (curve, each, offer.hours, cost)
        for curve in results.curves
        for each in curve.points
        for offer in [results.offer(each.record.point)]
        for cost in [offer.usd_per_million_tokens if results.has_prices else offer.worker_hours_per_million_tokens]
        if cost is not None
    ]
    deadline = results.deadline_hours
    x = _Scale(0, 1.1 * max([each[2] for each in shown] + ([deadline] if deadline else [])), _LEFT, _WIDTH - _RIGHT)
    y = _Scale(0, 1.12 * max(each[3] for each in shown), _HEIGHT - _FOOT, _TOP)
    parts = [*_axes(x, y, _round_numbers(x.high), unit=unit, below="hours of the whole run")]
    if deadline:
        ends = [(deadline, 0), (deadline, y.high)]
        parts.append(_line(ends, x, y, colour="var(--lost)", dashes="6 4", title="deadline"))
        parts.append(text_at(x(deadline) - 6, _TOP + 10, "deadline", anchor="end"))
    for curve, each, hours, cost in shown:
        title = f"{curve.name}, {counted(each.workers)}: {hours:.3g} hours, {cost:.3g} {unit}"
        parts.append(_point(curve, x(hours), y(cost), title))
        is_best = results.best is not None and each.record.point == results.best.point
        label = f"{each.workers}{' (best)' if is_best else ''}"
        parts.append(text_at(x(hours) + 9, y(cost), label, anchor="start", middle=True, kind="label small"))
    return drawing(_HEIGHT, parts, f"{unit} against hours") + _legend(results.curves)


def _worker_counts(curves: Sequence[Curve]) -> list[int]:
    return sorted({each.workers for curve in curves for each in curve.points})


def _axes(
    x: _Scale,
    y: _Scale,
    columns: Sequence[float],
    *,
    unit: str = "",
    percent: bool = False,
    below: str = "workers",
) -> Iterator[str]:
    """Horizontal lines at round numbers, and names below; labels that would touch are left out."""
    for value in _round_numbers(y.high):
        place = f'y1="{y(value):.1f}" y2="{y(value):.1f}"'
        yield f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" {place}/>'
        yield text_at(_LEFT - 8, y(value), f"{value:.0%}" if percent else _number(value), anchor="end", middle=True)
    free_until = math.inf
    for value in reversed(columns):
        if free_until - x(value) >= _LEAST_GAP:
            yield text_at(x(value), _HEIGHT - _FOOT + 16, _number(value))
            free_until = x(value)
    yield text_at(_WIDTH - _RIGHT, _HEIGHT - 10, below, anchor="end")
    if unit:
        yield text_at(_LEFT, _HEIGHT - 10, f"vertical: {unit}", anchor="start")


def _drawn(
    curve: Curve, x: _Scale, y: _Scale, value: Callable[[PlacedPoint], float], *, spread: bool = False
) -> Iterator[str]:
    """A curve with its points, and where `spread` says so the quartiles of the steps' throughputs."""
    points = [(each.workers, value(each)) for each in curve.points]
    yield _line(points, x, y, colour=_colour(curve), dashes="7 4" if curve.mode == "weak" else "", title=curve.name)
    for each in curve.points:
        at = x(each.workers)
        if spread:
            low, high = y(each.measured.tokens_per_s.low), y(each.measured.tokens_per_s.high)
            yield f'<line stroke="{_colour(curve)}" x1="{at:.1f}" x2="{at:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>'
        title = (
            f"{curve.name}, {counted(each.workers)}: {each.measured.tokens_per_s.median:,.0f} tokens/s, efficiency "
            f"{each.efficiency:.0%}"
        )
        yield _point(curve, at, y(value(each)), title)


def _point(curve: Curve, x: float, y: float, title: str) -> str:
    fill = "var(--card)" if curve.mode == "weak" else _colour(curve)
    return (
        f'<circle fill="{fill}" stroke="{_colour(curve)}" stroke-width="2" cx="{x:.1f}" cy="{y:.1f}" r="4.5">'
        f"<title>{escape(title)}</title></circle>"
    )


def _line(
    points: Sequence[tuple[float, float]], x: _Scale, y: _Scale, *, colour: str, dashes: str = "", title: str = ""
) -> str:
    path = " ".join(f"{x(across):.1f},{y(up):.1f}" for across, up in points)
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return (
        f'<polyline fill="none" stroke="{colour}" stroke-width="2"{dashed} points="{path}">'
        f"<title>{escape(title)}</title></polyline>"
    )


def _colour(curve: Curve) -> str:
    return _COLOURS[curve.stage]


def _legend(curves: Sequence[Curve]) -> str:
    def mark(curve: Curve) -> str:
        fill = "transparent" if curve.mode == "weak" else _colour(curve)
        return f'<i style="background: {fill}; box-shadow: inset 0 0 0 2px {_colour(curve)}"></i>'

    return f'<ul class="legend">{"".join(f"<li>{mark(each)}{escape(each.name)}</li>" for each in curves)}</ul>'


def _round_numbers(highest: float) -> list[float]:
    """From 0 up to a number, in at most six round steps."""
    size = 10 ** math.floor(math.log10(highest / 5))
    step = next(size * each for each in (1, 2, 5, 10) if highest / (size * each) <= 6)
    return [round(count * step, 12) for count in range(int(highest / step + 1e-9) + 1)]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
