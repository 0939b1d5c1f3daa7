"""sweeps/<name>/report.html, results.md, results.json and best.yaml: the sweep for people and for programs.

The page is one file that needs nothing else (see scaletrain.page).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape
from typing import Any

import orjson

from scaletrain import storage
from scaletrain.config import Config
from scaletrain.config_sweep import SweepSection
from scaletrain.page import meter, page, section, table, tiles
from scaletrain.sweep import charts
from scaletrain.sweep.charts import Axis, Curve
from scaletrain.sweep.checking import shown
from scaletrain.sweep.machines import Watched
from scaletrain.sweep.machines_account import account_of
from scaletrain.sweep.machines_report import machines_section
from scaletrain.sweep.records import SweepLayout, TrialRecord
from scaletrain.sweep.results import (
    Results,
    best_config,
    parameter_names,
    results_markdown,
    results_of,
    value_text,
)


def publish(
    layout: SweepLayout,
    config: Config,
    sweep_section: SweepSection,
    trials: Mapping[int, TrialRecord],
    watched: Sequence[Watched] = (),
) -> Results:
    """Write all that the sweep has found so far; `watched` is what was seen of machines. Raises StorageError."""
    results = replace(results_of(config, sweep_section, trials), machines=account_of(watched))
    storage.write_bytes(layout.results("json"), orjson.dumps(results.record(), option=orjson.OPT_INDENT_2))
    storage.write_text(layout.results("md"), results_markdown(results))
    storage.write_bytes(layout.report, report_html(results, sweep_section, watched))
    best = best_config(config, results)
    if best is not None:
        storage.write_text(layout.best, best)
    return results


def report_html(results: Results, sweep_section: SweepSection, watched: Sequence[Watched] = ()) -> bytes:
    """The page."""
    measured = [each for each in results.ranked if each.curve]
    trials = [
        Curve(f"trial {each.number}", _in_short(each.parameters), place / max(1, len(measured) - 1), each.curve)
        for place, each in enumerate(measured)
    ]
    curves = charts.curves(trials, metric=results.metric)
    axes = [
        Axis(name, [each.parameters.get(name) for each in measured], _is_logarithmic(sweep_section, name))
        for name in parameter_names(results)
    ]
    axes.append(Axis(results.metric, [each.value for each in measured]))
    parallel = charts.parallel(axes, trials)
    legend = (
        "From the best trial (green, thick) to the worst (orange). Point at the lines to see which trials they are."
    )
    sections = [
        _head(results),
        section("Learning curves", legend, curves) if curves else "",
        section("Values", f"Each line is a trial, through its values to its {escape(results.metric)}.", parallel)
        if parallel
        else "",
        _importance(results),
        section("Trials", "Best first; those that did not run to their end follow those that did.", _table(results)),
        _clones(measured),
        machines_section(watched),
    ]
    footer = "Written by <code>scaletrain sweep</code>. The same numbers are in results.json beside this page."
    return page(f"sweep {results.sweep}", sections, footer=footer, charts=True)


def _in_short(values: Mapping[str, Any]) -> str:
    """Values with their fields' own names."""
    return " ".join(f"{name.rpartition('.')[2]}={value_text(value)}" for name, value in values.items())


def _head(results: Results) -> str:
    of_state = [each.state for each in results.ranked]
    best = next((each for each in results.ranked if each.number == results.best), None)
    numbers = [(f"{len(of_state)} of {results.planned}", "trials begun")]
    numbers += [
        (str(of_state.count(state)), told)
        for state, told in (("finished", "finished"), ("stopped", "stopped early"), ("failed", "failed"))
        if state in of_state
    ]
    if best is not None:
        numbers.insert(0, (f"{best.value:.5g}", f"best {results.metric}, trial {best.number}"))
    costs = [each.cost_usd for each in results.ranked if each.cost_usd is not None]
    if costs:
        numbers.append((f"{sum(costs):,.2f}", "USD"))
    told = f"<p>Best: <code>{escape(shown(best.parameters))}</code></p>" if best is not None else ""
    return f'<h1>Sweep <code>{escape(results.sweep)}</code></h1>{told}<div class="tiles">{tiles(numbers)}</div>'


def _importance(results: Results) -> str:
    if not results.importance:
        return ""
    rows = [(escape(name), meter(share, 1)) for name, share in results.importance.items()]
    note = (
        "How much each parameter decides whether a trial is among the best third (PED-ANOVA). Few trials tell little; "
        "trials that were stopped early count with the value they had then."
    )
    return section("What matters", note, table(("parameter", "importance"), rows))


def _table(results: Results) -> str:
    names = parameter_names(results)
    heads = ("trial", results.metric, "step", "state", *names, "why")
    rows = [
        (
            escape(each.run),
            "–" if each.value is None else f"{each.value:.5g}",
            f"{each.curve[-1][0] if each.curve else each.facts.step}/{each.facts.total_steps}",
            each.state,
            *(escape(value_text(each.parameters[name])) if name in each.parameters else "–" for name in names),
            escape(each.reason) if each.state in ("stopped", "failed") else "",
        )
        for each in results.ranked
    ]
    return table(heads, rows, texts=(0, 3, len(heads) - 1))


def _clones(trials: Sequence[TrialRecord]) -> str:
    """Who became whose clone, and with what values it went on."""
    rows = [
        (
            f"trial {each.number}",
            escape(one.donor),
            f"{one.step}",
            escape(shown(one.parameters)),
            f"<code>{escape(one.manifest_hash[:16])}</code>",
        )
        for each in sorted(trials, key=lambda record: record.number)
        for one in each.stretches[1:]
    ]
    if not rows:
        return ""
    note = "A clone begins with another trial's committed state, byte for byte; the hash covers all its files."
    return section(
        "Clones", note, table(("trial", "clone of", "at step", "goes on with", "hash"), rows, texts=(0, 1, 3))
    )


def _is_logarithmic(sweep_section: SweepSection, name: str) -> bool:
    return name in sweep_section.parameters and sweep_section.parameters[name].log is not None
