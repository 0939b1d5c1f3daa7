"""The pictures of a scaling study's page: throughput, efficiency, the parts of a step, and money against hours.

A stage has its colour; weak curves are dashed, with hollow points, and laws are dotted.
"""

from collections.abc import Callable, Sequence

from scaletrain.page.bars import Stack, stacks
from scaletrain.page.lines import Chart, Format, Line, legend, line_chart
from scaletrain.sweep.scaling_points import counted
from scaletrain.sweep.scaling_results import Curve, PlacedPoint, StudyResults

_DASHED, _DOTTED = 8, 16  # where the page's styles of runs begin with other strokes, in the same colours
_POINTS_OF_LAW = 60
_PARTS = {
    "kept": "computing",
    "node": "uneven share of micro batches",
    "first": "waiting for data",
    "lost": "communication and the rest",
}


def throughput(curves: Sequence[Curve]) -> str:
    """Draw tokens/s against workers, with the quartiles of the steps, the fitted law, and what would be ideal."""
    workers = _worker_counts(curves)
    pace = max(curve.points[0].measured.tokens_per_s.median / curve.points[0].workers for curve in curves)
    lines = [Line(0, "ideal", [0, workers[-1]], [0, pace * workers[-1]], "guide", label="ideal")]
    for curve in curves:
        if curve.law is not None:
            least = curve.points[0].workers
            between = [least + n / _POINTS_OF_LAW * (workers[-1] - least) for n in range(_POINTS_OF_LAW)]
            xs = sorted({*between, *(each for each in workers if each >= least)})
            name = f"{curve.name}: {curve.law.name}"
            lines.append(Line(_DOTTED + curve.stage, name, xs, [curve.law.throughput(each) for each in xs]))
    for curve in curves:
        spread = [(each.measured.tokens_per_s.low, each.measured.tokens_per_s.high) for each in curve.points]
        lines.append(_line(curve, lambda each: each.measured.tokens_per_s.median, spread=spread))
    return _by_workers("Throughput, tokens/s", curves, lines)


def efficiency(curves: Sequence[Curve]) -> str:
    """Draw the efficiency of each point against the workers, every doubling as far as the one before."""
    ends = [_worker_counts(curves)[place] for place in (0, -1)]
    lines = [Line(0, "ideal", ends, [1.0, 1.0], "guide", label="ideal")]
    lines += [_line(curve, lambda each: each.efficiency) for curve in curves]
    return _by_workers("Efficiency of a worker", curves, lines, shown="percent", log_x=True)


def step_parts(curves: Sequence[Curve]) -> str:
    """Draw what each point's step is made of, as shares of it."""
    rows = []
    for curve in curves:
        for each in curve.points:
            told, whole = each.parts, each.parts.step_s or 1.0
            seconds = (told.computing_s, told.uneven_s, told.data_wait_s, told.rest_s)
            parts = [(kind, part_s / whole) for kind, part_s in zip(_PARTS, seconds, strict=True)]
            rows.append(Stack(f"{curve.name}, {counted(each.workers)}", parts, f"{told.step_s:.3g} s a step"))
    return stacks(rows, _PARTS, show=lambda share: f"{share:.1%}")


def cost_and_hours(results: StudyResults) -> str:
    """Draw what a million tokens cost at each point against the hours of the whole run; down and left is better."""
    lines, most = [], 0.0
    for curve in results.curves:
        for each in curve.points:
            offer = results.offer(each.record.point)
            cost = offer.usd_per_million_tokens if results.has_prices else offer.worker_hours_per_million_tokens
            if cost is None:
                continue
            is_best = results.best is not None and each.record.point == results.best.point
            label, most = f"{each.workers}{' (best)' if is_best else ''}", max(most, cost)
            name = f"{curve.name}, {counted(each.workers)}"
            lines.append(Line(_style(curve), name, [offer.hours], [cost], "dot", label=label))
    if results.deadline_hours:
        lines.append(Line(0, "", [results.deadline_hours] * 2, [0, most], "guide", label="deadline"))
    unit = "USD" if results.has_prices else "Hours of workers"
    return line_chart(
        Chart(
            title=f"{unit} per million tokens",
            unit="hours of the whole run",
            lines=lines,
            shown="dollars" if results.has_prices else "number",
            from_zero=True,
            wide=True,
        )
    ) + _legend(results.curves)


def _by_workers(
    title: str, curves: Sequence[Curve], lines: Sequence[Line], *, shown: Format = "number", log_x: bool = False
) -> str:
    places = _worker_counts(curves)
    chart = Chart(title, "workers", lines, shown, from_zero=True, log_x=log_x, places=places, wide=True)
    return line_chart(chart) + _legend(curves)


def _worker_counts(curves: Sequence[Curve]) -> list[int]:
    return sorted({each.workers for curve in curves for each in curve.points})


def _line(curve: Curve, value: Callable[[PlacedPoint], float], *, spread: Sequence[tuple[float, float]] = ()) -> Line:
    xs, ys = [each.workers for each in curve.points], [value(each) for each in curve.points]
    return Line(_style(curve), curve.name, xs, ys, "dots", spread)


def _style(curve: Curve) -> int:
    return curve.stage + (_DASHED if curve.mode == "weak" else 0)


def _legend(curves: Sequence[Curve]) -> str:
    return legend((_style(curve), curve.name) for curve in curves)
