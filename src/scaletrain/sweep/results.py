"""What a sweep has found: the trials, best first, how much each parameter matters, and the best configuration."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from scaletrain import yaml_text
from scaletrain.config import Config
from scaletrain.config_file import dump_config
from scaletrain.config_sweep import SweepSection
from scaletrain.log import visible
from scaletrain.sweep import space
from scaletrain.sweep.checking import trial_config
from scaletrain.sweep.machines_account import MachineAccount
from scaletrain.sweep.records import TrialRecord
from scaletrain.terminal_table import Column, FittingTable

if TYPE_CHECKING:
    from rich.console import Group

_FEWEST_FOR_IMPORTANCE = 6
_HEAD_WIDTH = 10
_RANK = {"finished": 0, "stopped": 1, "running": 1, "waiting": 1, "failed": 2}


@dataclass(frozen=True)
class Results:
    """A sweep's trials with the best first; `importance` adds up to 1, and is empty where too few trials tell.

    `machines` is None where no autoscaler brought any.
    """

    sweep: str
    metric: str
    planned: int
    ranked: tuple[TrialRecord, ...]
    best: int | None
    importance: Mapping[str, float]
    machines: MachineAccount | None = None

    def record(self) -> dict[str, Any]:
        """The results as plain data."""
        trials = [
            {**asdict(each), "run": each.run, "parameters": dict(each.parameters), "value": each.value}
            for each in self.ranked
        ]
        head = {"sweep": self.sweep, "metric": self.metric, "planned": self.planned, "best": self.best}
        machines = None if self.machines is None else self.machines.record()
        return {**head, "importance": dict(self.importance), "machines": machines, "trials": trials}


def results_of(config: Config, section: SweepSection, trials: Mapping[int, TrialRecord]) -> Results:
    """Rank the trials: those that have finished first, by their last value; then the others, and those that failed."""
    sign = 1.0 if space.lower_is_better(section) else -1.0

    def key(record: TrialRecord) -> tuple[int, bool, float, int]:
        value = record.value
        return _RANK[record.state], value is None, sign * (value or 0.0), record.number

    ranked = tuple(sorted(trials.values(), key=key))
    good = [each.number for each in ranked if each.value is not None and each.state in ("finished", "stopped")]
    return Results(
        sweep=config.name,
        metric=section.metric,
        planned=space.number_of_trials(section),
        ranked=ranked,
        best=good[0] if good else None,
        importance=importance_of(section, trials),
    )


def importance_of(section: SweepSection, trials: Mapping[int, TrialRecord]) -> dict[str, float]:
    """How much each parameter decides whether a trial is among the best third, as shares of 1, the largest first.

    PED-ANOVA (Watanabe et al. 2023, arXiv:2304.10255), Optuna's; parameters that not all trials have are left out, and
    without Optuna it is not told.
    """
    done = {n: each for n, each in trials.items() if each.value is not None and each.state in ("finished", "stopped")}
    if len(done) < _FEWEST_FOR_IMPORTANCE or len({each.value for each in done.values()}) == 1:
        return {}
    if find_spec("optuna") is None:
        return {}
    import optuna

    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=1 / 3)
    return dict(
        optuna.importance.get_param_importances(space.study_of(section, done, with_grids=True), evaluator=evaluator)
    )


def best_config(config: Config, results: Results) -> str | None:
    """The best trial's configuration as YAML that `train` takes, under a name of its own; None where there is none."""
    found = next((each for each in results.ranked if each.number == results.best), None)
    if found is None:
        return None
    text = dump_config(trial_config(config, f"{config.name}.best", found.parameters))
    cloned = " It became this through clones: its last values are here." if len(found.stretches) > 1 else ""
    return (
        f"# Trial {found.number} of the sweep {config.name}: {results.metric} {found.value:.6g} at step "
        f"{found.curve[-1][0]}, {found.state}.{cloned} Its run is {found.run}.\n{text}"
    )


def results_table(results: Results) -> "Group":
    """The trials as a table for the terminal, with what matters most and why trials failed below."""
    from rich.console import Group
    from rich.text import Text

    heads, rows = _rows(results)
    columns = [Column(_on_lines(head), is_number=head != "state", leaves=head == "hours") for head in heads[:-1]]
    table = FittingTable(columns, [[visible(cell) for cell in row[:-1]] for row in rows])
    notes = [f"trial {each.number} failed: {each.reason}" for each in results.ranked if each.state == "failed"]
    return Group(table, *(Text(visible(note)) for note in [*notes, *_importance_told(results)]))


def results_markdown(results: Results) -> str:
    """The same as Markdown, with what matters most below."""
    heads, rows = _rows(results)
    lines = [f"# Sweep {results.sweep}", "", _line(heads), _line(["---"] * len(heads)), *map(_line, rows)]
    lines += [line for told in _importance_told(results) for line in ("", f"{told[:1].upper()}{told[1:]}.")]
    return "\n".join(lines) + "\n"


def parameter_names(results: Results) -> list[str]:
    """Every parameter that some trial has, in the order of the configuration."""
    return list(dict.fromkeys(name for each in results.ranked for name in each.parameters))


def value_text(value: Any) -> str:
    """A parameter's value in few characters."""
    return f"{value:.4g}" if isinstance(value, float) else str(yaml_text.dump_value(value))


def _importance_told(results: Results) -> list[str]:
    shares = ", ".join(f"{name} {share:.0%}" for name, share in results.importance.items())
    return [f"importance: {shares}"] if shares else []


def _on_lines(name: str) -> str:
    """A field's name in lines of a word or two, as columns are narrow."""
    lines = [""]
    for word in name.rpartition(".")[2].split("_"):
        joined = f"{lines[-1]} {word}".strip()
        lines[-1:] = [joined] if len(joined) <= _HEAD_WIDTH else [*filter(None, lines[-1:]), word]
    return "\n".join(lines)


def _rows(results: Results) -> tuple[list[str], list[list[str]]]:
    names, has_cost = parameter_names(results), any(each.cost_usd is not None for each in results.ranked)
    heads = ["trial", results.metric, "step", "state", *names, *(["USD"] if has_cost else []), "hours", "why"]
    return heads, [list(_cells(each, names, has_cost=has_cost)) for each in results.ranked]


def _cells(record: TrialRecord, names: Sequence[str], *, has_cost: bool) -> Iterator[str]:
    yield str(record.number)
    yield "-" if record.value is None else f"{record.value:.5g}"
    yield f"{max(record.facts.step, record.curve[-1][0] if record.curve else 0)}/{record.facts.total_steps}"
    yield record.state + (f", {len(record.stretches) - 1} clones" if len(record.stretches) > 1 else "")
    yield from (value_text(record.parameters[name]) if name in record.parameters else "-" for name in names)
    if has_cost:
        yield "-" if record.cost_usd is None else f"{record.cost_usd:.2f}"
    yield f"{record.seconds / 3600:.2f}"
    yield record.reason.splitlines()[0] if record.reason and record.state in ("stopped", "failed") else ""


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
