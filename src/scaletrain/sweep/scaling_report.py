"""sweeps/<name>/report.html, results.md, results.json and best.yaml of a scaling study.

The page is one file that needs nothing else (see scaletrain.page).
"""

from collections.abc import Mapping
from html import escape

import orjson

from scaletrain import storage
from scaletrain.config import Config
from scaletrain.config_scaling import ScalingStudySection
from scaletrain.page import page, section, table, tiles
from scaletrain.sweep import scaling_charts
from scaletrain.sweep.records import SweepLayout
from scaletrain.sweep.scaling_law import FEWEST_POINTS
from scaletrain.sweep.scaling_points import Point, counted
from scaletrain.sweep.scaling_records import PointRecord
from scaletrain.sweep.scaling_results import StudyResults, best_config, results_of, verdict
from scaletrain.sweep.scaling_tables import law_told, study_markdown, study_rows

_THROUGHPUT = (
    "Medians of the steps, with their quartiles. The dotted straight line is what the quickest smallest point would "
    "give if every worker added as much; a dotted curve is the law that was fitted."
)
_EFFICIENCY = "Throughput of a worker, against that of a worker at the smallest point of the same curve."
_PARTS = (
    "Computing is what the step's micro batches take at the pace of the curve's smallest point, shared out evenly. The "
    "rest was not timed itself: it is what the step takes beyond that, so it holds communication, waiting for one "
    "another, and whatever became slower as workers share a machine. At the smallest point it is 0 by definition."
)


def publish(
    layout: SweepLayout, config: Config, study: ScalingStudySection, records: Mapping[Point, PointRecord]
) -> StudyResults:
    """Write all that the study has found so far; raises StorageError."""
    results = results_of(config, study, records)
    storage.write_bytes(layout.results("json"), orjson.dumps(results.record(), option=orjson.OPT_INDENT_2))
    storage.write_text(layout.results("md"), study_markdown(results))
    storage.write_bytes(layout.report, report_html(results))
    best = best_config(config, results)
    if best is not None:
        storage.write_text(layout.best, best)
    return results


def report_html(results: StudyResults) -> bytes:
    """The page."""
    sections = [_head(results)]
    if results.curves:
        costs = "the hours of workers that" if not results.has_prices else "what"
        sections += [
            section("Throughput", _THROUGHPUT, scaling_charts.throughput(results.curves)),
            section("Efficiency", _EFFICIENCY, scaling_charts.efficiency(results.curves)),
            section("Where a step's time goes", _PARTS, scaling_charts.step_parts(results.curves)),
            section(
                "Money and time",
                f"For each point {costs} a million tokens cost, and how long the whole run takes; the number beside it "
                "is that of its workers. The hours have start-up in them, but no saves and no lost machines.",
                scaling_charts.cost_and_hours(results),
            ),
        ]
        sections += [section("Points", "", _table(results)), _laws(results)]
    sections.append(_failures(results))
    footer = "Written by <code>scaletrain sweep</code>. The same numbers are in results.json beside this page."
    return page(f"scaling of {results.study}", sections, footer=footer, charts=True)


def _head(results: StudyResults) -> str:
    measured = len(results.offers)
    numbers = [(f"{measured} of {results.planned}", "points measured")]
    failed = sum(each.state == "failed" for each in results.records)
    if failed:
        numbers.append((str(failed), "failed"))
    if results.fastest is not None:
        quickest = next(each for each in results.records if each.point == results.fastest.point)
        assert quickest.measured is not None
        told = f"tokens/s at the fastest, {counted(results.fastest.point.workers)}"
        numbers.append((f"{quickest.measured.tokens_per_s.median:,.0f}", told))
    if results.best is not None:
        numbers.append((f"{results.best.hours:,.3g}", f"hours at the best, {counted(results.best.point.workers)}"))
    lines = "".join(
        f"<p>{escape(line[:1].upper() + line[1:])}{'' if line.endswith('?') else '.'}</p>" for line in verdict(results)
    )
    head = f'<h1>Scaling of <code>{escape(results.study)}</code></h1><div class="tiles">{tiles(numbers)}</div>'
    return f'{head}<div style="margin-top: 16px">{lines}</div>'


def _table(results: StudyResults) -> str:
    heads, rows = study_rows(results)
    # One batch for all is told above; a row is one line, but for what it is the best at.
    shown = [place for place, head in enumerate(heads) if head != "batch" or len({row[place] for row in rows}) > 1]
    cells = [
        [escape(row[place].replace(" ", "\N{NO-BREAK SPACE}" if heads[place] else " ")) for place in shown]
        for row in rows
    ]
    return table([heads[place] or "best at" for place in shown], cells, texts=(0, len(shown) - 1))


def _laws(results: StudyResults) -> str:
    fitted = [curve for curve in results.curves if curve.law is not None]
    if not fitted:
        return section("Law", f"A law is fitted to curves of at least {FEWEST_POINTS} points.", "")
    note = (
        "Throughput at N workers is rate N / (1 + contention (N - 1) + coherency N (N - 1)), the Universal Scalability "
        "Law (Gunther 2008, arXiv:0808.1431); without coherency it is Amdahl's."
    )
    return section("Law", note, "".join(f"<p>{escape(law_told(curve))}.</p>" for curve in fitted))


def _failures(results: StudyResults) -> str:
    rows = [(escape(str(each.point)), escape(each.reason)) for each in results.records if each.state == "failed"]
    return section("Failed points", "", table(("point", "why"), rows, texts=(0, 1))) if rows else ""
