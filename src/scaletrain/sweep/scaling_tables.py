"""A scaling study's results as a table for the terminal, and as Markdown."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from scaletrain.log import visible
from scaletrain.sweep.scaling_points import Point
from scaletrain.sweep.scaling_results import Curve, PlacedPoint, StudyResults, verdict
from scaletrain.terminal_table import Column, FittingTable

if TYPE_CHECKING:
    from rich.console import Group

_GB = 1e9
# What a narrow terminal does not show, the first of these first; what a point is the best at is told below as well.
_LEAVES = ("start-up s", "quartiles", "data wait", "step s", "", "batch", "memory GB", "MFU", "not computing")


def study_table(results: StudyResults) -> "Group":
    """The points of each curve, and what follows from them."""
    from rich.console import Group
    from rich.text import Text

    heads, rows = study_rows(results)
    columns = [
        Column(
            "\n".join(head.rsplit(" ", 1)) or "best at",
            is_number=place > 0,
            leaves=len(_LEAVES) - _LEAVES.index(head) if head in _LEAVES else 0,
        )
        for place, head in enumerate(heads)
    ]
    table = FittingTable(columns, [[visible(cell) for cell in row] for row in rows])
    return Group(*([table] if rows else []), *(Text(visible(line)) for line in told(results)))


def study_markdown(results: StudyResults) -> str:
    """The same as Markdown, with what was found below."""
    heads, rows = study_rows(results)
    lines = [f"# Scaling of {results.study}", "", _line(heads), _line(["---"] * len(heads)), *map(_line, rows), ""]
    return "\n".join([*lines, *(f"- {line}" for line in told(results))]) + "\n"


def told(results: StudyResults) -> Iterator[str]:
    """What was found, in sentences: the best points, the laws, and what is missing."""
    for record in results.records:
        if record.state == "failed":
            yield f"failed: {record.point}: {record.reason}"
    yield from verdict(results)
    for curve in results.curves:
        if curve.law is not None:
            yield law_told(curve)
    missing = results.planned - sum(each.state != "running" for each in results.records)
    if missing:
        yield f"{missing} of {results.planned} points are not measured yet"


def law_told(curve: Curve) -> str:
    """What the law says of a curve, with its error."""
    law = curve.law
    assert law is not None
    parts = f"contention {law.contention:.2%}" + (f", coherency {law.coherency:.2g}" if law.coherency else "")
    text = (
        f"{curve.name}: {law.name}, {parts}; it is {law.error:.1%} off the points, and up to "
        f"{law.worst_prediction:.0%} off one that it was not shown"
    )
    forecasts = ", ".join(
        f"{each.tokens_per_s:,.0f} tokens/s at {each.workers} workers (efficiency {each.efficiency:.0%})"
        for each in curve.forecasts
    )
    if forecasts:
        text += f"; it predicts {forecasts}"
    if law.coherency:
        text += f"; beyond some {law.peak_workers:,.0f} workers it gets slower"
    return text


def study_rows(results: StudyResults) -> tuple[list[str], list[list[str]]]:
    """Heads and rows: a row for each point of each curve; MFU and money where they are known."""
    placed = [(curve, each) for curve in results.curves for each in curve.points]
    has_mfu = any(each.measured.mfu is not None for _, each in placed)
    heads = ["scaling", "workers", "batch", "tokens/s", "quartiles", "efficiency", "step s", "not computing"]
    heads += ["data wait", *(["MFU"] if has_mfu else []), "memory GB"]
    heads += ["USD/M tokens"] if results.has_prices else ["worker h/M tokens"]
    heads += ["hours", "start-up s", ""]
    return heads, [[*_cells(results, curve, each, has_mfu=has_mfu)] for curve, each in placed]


def _cells(results: StudyResults, curve: Curve, placed: PlacedPoint, *, has_mfu: bool) -> Iterator[str]:
    measured, offer = placed.measured, results.offer(placed.record.point)
    yield curve.name
    yield str(placed.workers)
    yield str(placed.record.point.global_batch_size)
    yield f"{measured.tokens_per_s.median:,.0f}"
    yield f"{measured.tokens_per_s.low:,.0f}-{measured.tokens_per_s.high:,.0f}"
    yield f"{placed.efficiency:.0%}"
    yield f"{measured.step_s.median:.3g}"
    yield f"{placed.parts.not_computing:.0%}"
    yield f"{placed.parts.data_wait_s / placed.parts.step_s:.0%}"
    if has_mfu:
        yield "-" if measured.mfu is None else f"{measured.mfu:.1%}"
    yield f"{measured.memory_bytes / _GB:.2f}"
    if results.has_prices:
        per_million = offer.usd_per_million_tokens
        yield "-" if per_million is None else f"{per_million:.3g}"
    else:
        yield f"{offer.worker_hours_per_million_tokens:.3g}"
    yield f"{offer.hours:,.3g}"
    yield f"{measured.start_up_s:.1f}"
    yield ", ".join(_names(results, placed.record.point))


def _names(results: StudyResults, point: Point) -> Iterator[str]:
    """What a point is the best at."""
    for name, offer in (("fastest", results.fastest), ("cheapest", results.cheapest), ("best", results.best)):
        if offer is not None and offer.point == point:
            yield name


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
