"""The page of a simulation: what is recommended, against what else, how the interval matters, where time would go.

One file that needs nothing else; pictures are SVG, in the style of the other reports.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from html import escape

from scaletrain.page import page, section, table, tiles
from scaletrain.page.bars import Bar, shares
from scaletrain.page.lines import Chart, Line, Mark, line_chart
from scaletrain.page.ranges import Ranged, ranges
from scaletrain.simulate.display import advice, figure, row_cells, workers
from scaletrain.simulate.estimate import Estimate, Range
from scaletrain.simulate.study import Row, Study

_KINDS = {
    "productive": "kept",
    "lost_work": "lost",
    "recovery": "first",
    "waiting": "second",
    "checkpoint_stall": "node",
}


def report_html(study: Study, *, name: str, origins: Mapping[str, str], notes: Sequence[str]) -> bytes:
    """The whole page; `name` is the run's."""
    sections = (_head(study, name), _alternatives(study), _intervals(study), _time(study), _inputs(origins, notes))
    return page(f"simulation of {name}", sections, footer="Written by <code>scaletrain simulate</code>.", charts=True)


def _head(study: Study, name: str) -> str:
    best, found = study.recommended.setting, study.recommended
    shown = [
        (workers(best), "workers"),
        (f"{best.every_steps:,}", "steps between saves"),
        (f"{1 - best.on_demand_share:.0%}", "of the machines on spot"),
        (figure(Range.of(found.hours).mean), "hours on the mean"),
    ]
    if study.knows_prices:
        shown.append((figure(Range.of(found.usd).mean), "USD on the mean"))
    told = "".join(f'<p class="dim small">{escape(line)}</p>' for line in advice(study)[1:])
    return f'<h1>Simulation of <code>{escape(name)}</code></h1><div class="tiles">{tiles(shown)}</div><br>{told}'


def _alternatives(study: Study) -> str:
    heads = ["", "workers", "steps between saves", "spot", "hours"]
    heads += ["USD"] if study.knows_prices else []
    heads += ["more hours"] + (["more USD"] if study.knows_prices else []) + ["losses", "steps done again"]
    rows = [[escape(cell) for cell in row_cells(row, study)] for row in study.rows]
    unit = _unit(study)
    note = (
        f"{study.recommended.runs:,} runs of each. Thin lines: nine of ten runs; thick: the 95% interval of the mean. "
        "“More” is against the first row, run by run with the same chances, ± its 95% interval."
    )
    drawn = ranges(
        [_ranged(row, study) for row in study.rows], name=f"{unit} of the alternatives", unit=unit, from_zero=True
    )
    return section("Alternatives", note, drawn + table(heads, rows))


def _ranged(row: Row, study: Study) -> Ranged:
    found = Range.of(row.estimate.usd if study.knows_prices else row.estimate.hours)
    told = f"{row.name}: {figure(found.mean)} {_unit(study)}\n95% interval of the mean: {figure(found.low)} to "
    told += f"{figure(found.high)}\nnine of ten runs: {figure(found.p5)} to {figure(found.p95)}"
    return Ranged(row.name, found.mean, (found.low, found.high), (found.p5, found.p95), told)


def _intervals(study: Study) -> str:
    """What the recommended setting comes to with other intervals between saves."""
    unit, steps = _unit(study), [each.setting.every_steps for each in study.intervals]
    found = [Range.of(each.usd if study.knows_prices else each.hours) for each in study.intervals]
    line = Line(
        0,
        "mean (nine of ten runs)",
        steps,
        [each.mean for each in found],
        "dots",
        [(each.p5, each.p95) for each in found],
    )
    chart = Chart(
        title=f"{unit} of the whole run",
        unit="steps between saves",
        lines=[line],
        shown="dollars" if study.knows_prices else "number",
        marks=[Mark(0, study.recommended.setting.every_steps, "recommended")],
        note="the triangle is what is recommended",
        log_x=True,
        places=steps,
        wide=True,
    )
    by_formula = (
        f"By the formula (Daly 2006) one save every {study.interval_s:,.0f} s of training is best, if every loss came "
        "without notice."
        if study.interval_s < float("inf")
        else "Nothing is ever lost here: only the last save counts."
    )
    return section("Steps between saves", by_formula, line_chart(chart))


def _unit(study: Study) -> str:
    return "USD" if study.knows_prices else "hours"


def _time(study: Study) -> str:
    """Where the time of the recommended setting goes."""
    return section("Where the time goes", "The mean of all runs as recommended.", _shares(study.recommended))


def _shares(found: Estimate) -> str:
    bars = [
        Bar(f"{part.name.removesuffix('_s').replace('_', ' ')} (s)", round(seconds), _kind(part.name))
        for part in fields(found.parts)
        if (seconds := getattr(found.parts, part.name)) >= 0.5
    ]
    return shares(bars, name="where the time goes")


def _kind(part: str) -> str:
    return _KINDS.get(part.removesuffix("_s"), "third")


def _inputs(origins: Mapping[str, str], notes: Sequence[str]) -> str:
    rows = [(escape(name), escape(origin)) for name, origin in origins.items()]
    told = "".join(f'<p class="small">{escape(note)}</p>' for note in notes)
    return section("What this rests on", "", table(("", "and where it is from"), rows, texts=(0, 1)) + told)
