"""A study as a person reads it in the terminal, and as plain data."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from scaletrain.simulate.estimate import Estimate, Range
from scaletrain.simulate.setting import Setting
from scaletrain.simulate.study import Row, Study

if TYPE_CHECKING:
    from rich.console import RenderableType


def study_record(study: Study, *, origins: Mapping[str, str], notes: Sequence[str], seed: int) -> dict[str, Any]:
    """The study as plain data; JSON has no infinity, so an interval that is never needed is null."""
    return {
        "seed": seed,
        "runs": study.recommended.runs,
        "knows_prices": study.knows_prices,
        "deadline_hours": study.deadline_hours,
        "best_interval_s": study.interval_s if study.interval_s != float("inf") else None,
        "inputs": dict(origins),
        "notes": list(notes),
        "alternatives": [
            {
                "name": row.name,
                "workers": {"min": row.estimate.setting.least, "max": row.estimate.setting.most},
                "every_steps": row.estimate.setting.every_steps,
                "spot_share": 1 - row.estimate.setting.on_demand_share,
                **_figures(row.estimate, study.knows_prices),
                "more_hours": asdict(row.more_hours),
                "more_usd": asdict(row.more_usd) if study.knows_prices else None,
            }
            for row in study.rows
        ],
    }


def study_display(study: Study, *, origins: Mapping[str, str], notes: Sequence[str]) -> "RenderableType":
    """The recommendation, the alternatives as a table, and what they rest on."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    for column in ("workers", "save every", "spot", "hours", "USD", "more hours", "more USD", "losses", "again"):
        if study.knows_prices or "USD" not in column:
            table.add_column(column, justify="right")
    for row in study.rows:
        table.add_row(*row_cells(row, study))
    about = "save every, again: steps (those done again); losses: times that machines go; ±: 95% interval"
    lines = (
        [f"  {about}"] + [f"  {name}: {origin}" for name, origin in origins.items()] + [f"  {note}" for note in notes]
    )
    text = "\n".join([f"{study.recommended.runs:,} simulated runs of each, of the same chances", *lines])
    return Group(Text("\n".join(advice(study))), table, Text(f"\n{text}", style="dim"))


def advice(study: Study) -> list[str]:
    """The recommendation in sentences, with the lines of the configuration that it comes to."""
    best, found = study.recommended.setting, study.recommended
    lines = [
        f"Recommended: scaling.workers.min={best.least} scaling.workers.max={best.most} "
        f"checkpoint.every_steps={best.every_steps}, {1 - best.on_demand_share:.0%} of the machines on spot",
        f"  {span(Range.of(found.hours))} hours"
        + (f", {span(Range.of(found.usd))} USD" if study.knows_prices else "")
        + f"; {found.goodput:.1%} of the time goes into steps that count",
    ]
    configured = next((row for row in study.rows if row.name == "as configured"), None)
    if configured is not None and configured.estimate.setting != best:
        saved = [f"{more(configured.more_hours, of=Range.of(found.hours).mean)} hours"]
        saved += [f"{more(configured.more_usd, of=Range.of(found.usd).mean)} USD"] if study.knows_prices else []
        lines.append(f"  as configured: {', '.join(saved)}")
    elif configured is not None:
        lines.append("  that is what is configured")
    if found.unfinished:
        lines.append(f"  {found.unfinished} of {found.runs} runs did not finish in 10 times the undisturbed time")
    if found.commands >= 1.05:
        lines.append(f"  it gives up and is started again {found.commands - 1:.1f} times a run")
    late = found.late(study.deadline_hours)
    if late > 0.1:
        lines.append(
            f"  nothing found keeps the deadline: {late:.0%} of these runs take over {study.deadline_hours:.4g} h"
        )
    return lines


def row_cells(row: Row, study: Study) -> list[str]:
    """One alternative's cells, in the order of the table's columns."""
    setting, found, is_first = row.estimate.setting, row.estimate, row is study.rows[0]
    return [
        row.name,
        workers(setting),
        f"{setting.every_steps:,}",
        f"{1 - setting.on_demand_share:.0%}",
        figure(Range.of(found.hours).mean),
        *([figure(Range.of(found.usd).mean)] if study.knows_prices else []),
        "" if is_first else more(row.more_hours, of=Range.of(found.hours).mean),
        *(["" if is_first else more(row.more_usd, of=Range.of(found.usd).mean)] if study.knows_prices else []),
        f"{found.losses + found.saved_in_time:.3g}",
        f"{found.lost_steps:,.0f}",
    ]


def workers(setting: Setting) -> str:
    """As "2 to 8"."""
    return f"{setting.least} to {setting.most}" if setting.least != setting.most else str(setting.most)


def span(found: Range) -> str:
    """A mean, with what nine of ten runs lie between."""
    return f"{figure(found.mean)} ({figure(found.p5)} to {figure(found.p95)})"


def more(found: Range, *, of: float) -> str:
    """A mean difference, and how far its 95% interval goes on either side; "0" where it is nothing beside `of`."""
    half = (found.high - found.low) / 2
    least = max(0.0005, min(0.005, 0.005 * of))
    if abs(found.mean) < least and half < least:
        return "0"
    sign = "+" if found.mean >= 0 else "-"
    return f"{sign}{figure(abs(found.mean), digits=3)} ±{figure(half, digits=2)}"


def figure(value: float, *, digits: int = 4) -> str:
    """So many digits, but whole numbers from 1,000 on and no powers of ten."""
    if value >= min(1000, 10 ** (digits - 1)):
        return f"{value:,.0f}"
    return f"{value:.3f}" if 0 < value < 0.01 else f"{value:.{digits}g}"


def _figures(found: Estimate, knows_prices: bool) -> dict[str, Any]:
    counts = ("goodput", "attempts", "losses", "saved_in_time", "growths", "lost_steps", "commands", "unfinished")
    return {
        "hours": asdict(Range.of(found.hours)),
        "usd": asdict(Range.of(found.usd)) if knows_prices else None,
        **{name: getattr(found, name) for name in counts},
        "parts": {part.name: getattr(found.parts, part.name) for part in fields(found.parts)},
    }
