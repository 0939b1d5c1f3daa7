"""The page of a simulation: what is recommended, against what else, how the interval matters, where time would go.

One file that needs nothing else; pictures are SVG, in the style of the other reports.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from html import escape

from scaletrain.page import page, section, table, tiles
from scaletrain.page.bars import Bar, shares
from scaletrain.simulate.display import advice, figure, row_cells, span, workers
from scaletrain.simulate.estimate import Estimate, Range
from scaletrain.simulate.study import Study

_WIDTH, _LEFT, _RIGHT, _ROW = 900, 240, 30, 30
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
    return page(f"simulation of {name}", sections, footer="Written by <code>scaletrain simulate</code>.")


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
    found = {row.name: Range.of(row.estimate.usd if study.knows_prices else row.estimate.hours) for row in study.rows}
    unit = "USD" if study.knows_prices else "hours"
    note = (
        f"{study.recommended.runs:,} runs of each. Thin lines: nine of ten runs; thick: the 95% interval of the mean. "
        "“More” is against the first row, run by run with the same chances, ± its 95% interval."
    )
    return section("Alternatives", note, ranges(found, unit=unit) + table(heads, rows))


def ranges(found: Mapping[str, Range], *, unit: str) -> str:
    """Draw each range as a line from p5 to p95 with its mean, one below the other, from 0 on."""
    most = max(each.p95 for each in found.values()) or 1.0
    height = _ROW * len(found) + 34
    scale = (_WIDTH - _LEFT - _RIGHT) / most
    parts = []
    for tick in range(5):
        x = _LEFT + tick / 4 * most * scale
        parts.append(f'<line class="axis" x1="{x:.1f}" y1="6" x2="{x:.1f}" y2="{height - 24}"/>')
        label = f"{figure(tick / 4 * most)} {unit if tick == 4 else ''}".strip()
        anchor = "end" if tick == 4 else "middle"
        parts.append(f'<text class="dim small" x="{x:.1f}" y="{height - 8}" text-anchor="{anchor}">{label}</text>')
    for place, (name, each) in enumerate(found.items()):
        y = 20 + place * _ROW
        x5, x95, low, high, mean = (_LEFT + v * scale for v in (each.p5, each.p95, each.low, each.high, each.mean))
        parts += [
            f'<text class="label" x="{_LEFT - 12}" y="{y}" dy=".35em" text-anchor="end">{escape(name)}</text>',
            f'<line class="wide" x1="{x5:.1f}" y1="{y}" x2="{x95:.1f}" y2="{y}"/>',
            f'<line class="narrow" x1="{low:.1f}" y1="{y}" x2="{high:.1f}" y2="{y}"/>',
            f'<circle class="dot" cx="{mean:.1f}" cy="{y}" r="5"><title>{escape(name)}: {span(each)}</title></circle>',
        ]
    return _svg(height, parts, f"{unit} of the alternatives")


def _intervals(study: Study) -> str:
    """What the recommended setting comes to with other intervals between saves."""
    unit = "USD" if study.knows_prices else "hours"
    points = [
        (each.setting.every_steps, Range.of(each.usd if study.knows_prices else each.hours)) for each in study.intervals
    ]
    by_formula = (
        f"By the formula (Daly 2006) one save every {study.interval_s:,.0f} s of training is best, if every loss came "
        "without notice."
        if study.interval_s < float("inf")
        else "Nothing is ever lost here: only the last save counts."
    )
    return section("Steps between saves", by_formula, _curve(points, unit, study.recommended.setting.every_steps))


def _curve(points: Sequence[tuple[int, Range]], unit: str, chosen: int) -> str:
    """A line through the means, with nine of ten runs as a band; equal distances between the intervals."""
    height, foot = 280, 40
    low = min(each.p5 for _, each in points)
    spread = (max(each.p95 for _, each in points) - low) or 1.0
    step = (_WIDTH - 110 - _RIGHT) / max(1, len(points) - 1)

    def place(number: int, value: float) -> str:
        return f"{90 + number * step:.1f},{height - foot - (value - low) / spread * (height - foot - 20):.1f}"

    band = [place(n, each.p95) for n, (_, each) in enumerate(points)]
    band += [place(n, each.p5) for n, (_, each) in reversed(list(enumerate(points)))]
    parts = [f'<polygon class="band kept" points="{" ".join(band)}"/>']
    line = " ".join(place(n, each.mean) for n, (_, each) in enumerate(points))
    parts.append(f'<polyline class="stroke" points="{line}"/>')
    for n, (steps, each) in enumerate(points):
        x, y = place(n, each.mean).split(",")
        if steps == chosen:
            parts.append(f'<circle class="dot" cx="{x}" cy="{y}" r="6"><title>{span(each)}</title></circle>')
        parts.append(f'<text class="dim small" x="{x}" y="{height - 20}" text-anchor="middle">{steps:,}</text>')
    for value in (low, low + spread):
        y = place(0, value).split(",")[1]
        parts.append(
            f'<text class="dim small" x="78" y="{y}" dy=".35em" text-anchor="end">{figure(value)} {unit}</text>'
        )
    return _svg(height, parts, "cost by the interval between saves")


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


def _svg(height: float, parts: Sequence[str], name: str) -> str:
    return (
        f'<div class="scroll"><svg class="wide" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(name)}">'
        f"{''.join(parts)}</svg></div>"
    )
