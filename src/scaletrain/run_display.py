"""A list of runs, and one run, as a person reads them in a terminal."""

import math
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING

from scaletrain.cost import CostAccount
from scaletrain.goodput import readable, time_table
from scaletrain.layout import RunLayout
from scaletrain.log import visible
from scaletrain.run_history import ENDS, AttemptStory, History
from scaletrain.run_summary import RunSummary
from scaletrain.runs import RunState
from scaletrain.terminal_table import Column, FittingTable

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

_BLOCKS = "▁▂▃▄▅▆▇█"
_SPARKLINE = 60
_BAR = 30
_ATTEMPTS_SHOWN = 12
_STYLES = {"training": "green", "failed": "red", "killed": "red", "unreadable": "red", "stopped": "yellow"}
_SHORT_CONFIG = (
    ("model", ("model.source", "model.init", "model.lora.rank", "model.lora.quantization")),
    ("data", ("data.corpora.0.format", "data.seq_len")),
    ("train", ("train.global_batch_size", "train.learning_rate", "train.schedule", "train.precision")),
    ("run on", ("zero.stage", "scaling.workers", "scaling.workers.min", "scaling.workers.max", "train.device")),
)


def runs_table(runs: Sequence[RunSummary], *, hidden: int, root: str) -> "RenderableType":
    """Runs as a table; `hidden` is how many more there are than are shown."""
    from rich.console import Group
    from rich.text import Text

    if not runs:
        return Text(
            f"no run matches; `scaletrain runs {root}` lists all {hidden}"
            if hidden
            else f"there are no runs below {root}; `scaletrain train CONFIG` makes one in its storage.root"
        )
    told = [f"{hidden} more not shown"] if hidden else []
    if any(run.tokens is None and run.attempts for run in runs):
        told.append("…: --full reads all metrics of long runs for it")
    costs = any(run.cost_usd is not None for run in runs)
    columns = [
        Column("run", folds=True),
        Column("status"),
        Column("step", is_number=True),
        Column("loss", is_number=True),
        Column("val. ppl", is_number=True, leaves=1),
        Column("tokens", is_number=True, leaves=4),
        Column("tokens/s", is_number=True, leaves=2),
        Column("goodput", is_number=True, leaves=3),
        *([Column("cost", is_number=True)] if costs else []),
        Column("workers", is_number=True, leaves=5),
        Column("last step"),
    ]
    table = FittingTable(columns, [_row(run, costs=costs) for run in runs], caption="; ".join(told))
    problems = [f"{run.name}: {run.problem}" for run in runs if run.problem]
    return Group(table, Text(visible("\n".join(problems)), style="red")) if problems else table


def _row(run: RunSummary, *, costs: bool) -> "list[str | Text]":
    from rich.text import Text

    status = Text(run.status, style=_STYLES.get(run.status, ""))
    if run.problem:
        return [run.name, status]
    unread = "…" if run.attempts else "-"
    return [
        run.name,
        status,
        f"{run.last_step:,} of {_number(run.total_steps, ',')}",
        _number(run.loss, ".4f"),
        _number(run.validation_perplexity, ".2f"),
        amount(run.tokens) if run.tokens is not None else unread,
        _number(run.tokens_per_s, ",.0f"),
        _number(run.goodput, ".0%") if run.goodput is not None else unread,
        *([dollars(run.cost_usd)] if costs else []),
        _number(run.workers, "d"),
        ago(run.last_step_at),
    ]


def run_display(state: RunState, history: History) -> "RenderableType":
    """One run: how far, its loss, its figures, its configuration in short, its faults, checkpoints and time."""
    from rich.console import Group
    from rich.text import Text

    found = history.summary
    attempts = f"{state.attempts} attempt{'s' if state.attempts != 1 else ''}"
    lines = [f"{found.name}: {found.status}, step {state.step} committed, {attempts}", found.url]
    lines += [_progress(history), ""]
    if line := sparkline(history.lines["loss"].tolist()):
        losses = [loss for loss in history.lines["loss"].tolist() if math.isfinite(loss)]
        lines += [f"loss {losses[0]:.4f} {line} {losses[-1]:.4f}", ""]
    lines += [f"  {name}: {_figure(value)}" for name, value in state.last_metrics.items()]
    lines += ["", *_in_short(found.config)]
    if history.time.attempts:
        lines.append(_cost_line(history.cost))
    lines += [*_faults(history), ""]
    return Group(
        Text(visible("\n".join(lines))),
        *([_checkpoints(state)] if state.checkpoints else []),
        *([time_table(history.time, history.cost.by_part)] if history.time.attempts else []),
        Text(f"`scaletrain report {_named(history.run)}` draws all of it in a page"),
    )


def sparkline(values: Sequence[float], *, width: int = _SPARKLINE) -> str:
    """Values as a line of blocks, each the mean of its share of them; "" for fewer than two that are finite."""
    finite = [value for value in values if math.isfinite(value)]
    if len(finite) < 2:
        return ""
    width = min(width, len(finite))
    edges = [round(place * len(finite) / width) for place in range(width + 1)]
    means = [sum(finite[low:high]) / (high - low) for low, high in pairwise(edges)]
    low, high = min(means), max(means)
    scale = (len(_BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BLOCKS[round((mean - low) * scale)] for mean in means)


def amount(number: float) -> str:
    """A count in a few characters: 950, 12.3k, 4.1M, 2.1G."""
    for bound, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= bound:
            return f"{number / bound:.3g}{unit}"
    return f"{number:g}"


def dollars(usd: float | None) -> str:
    """Money as one reads it; with more digits below a dollar."""
    if usd is None:
        return "-"
    return f"${usd:,.2f}" if usd >= 0.1 or usd == 0 else f"${usd:.2g}"


def when(iso: str | None) -> str:
    """A time in UTC, to the second."""
    return "-" if iso is None else datetime.fromisoformat(iso).strftime("%Y-%m-%d %H:%M:%S")


def ago(iso: str | None) -> str:
    """How long ago something was."""
    return "-" if iso is None else f"{duration(max(0.0, time.time() - datetime.fromisoformat(iso).timestamp()))} ago"


def duration(seconds: float) -> str:
    """As `3 h 05 min`, and below a minute as `12 s`."""
    return readable(seconds) or f"{seconds:.0f} s"


def attempt_line(story: AttemptStory) -> str:
    """What one attempt did, and how it ended, in a sentence."""
    begin = f"from step {story.from_step}" if story.from_step is not None else "came to no step"
    workers = f" on {story.workers} worker{'s' if story.workers != 1 else ''}" if story.workers else ""
    lost = f"; {story.lost_steps} steps lost" if story.lost_steps else ""
    back = f"; back after {duration(story.gap_s)}" if story.gap_s is not None else ""
    return f"attempt {story.attempt}: {begin}{workers}, {story.steps} steps{back}; {ENDS[story.end]}{lost}"


def _cost_line(cost: CostAccount) -> str:
    if cost.usd is None:
        return "cost: unknown, as a machine's price is (docs/money.md: budget.usd_per_machine_hour, budget.prices)"
    return f"cost: {dollars(cost.usd)}, of which {dollars(cost.lost_work_usd)} for work that was lost"


def _progress(history: History) -> str:
    found = history.summary
    if not found.total_steps:
        return f"step {found.last_step:,}; its last step is not known yet"
    share = min(found.last_step / found.total_steps, 1.0)
    bar = "━" * round(_BAR * share)
    left = ""
    if found.status != "finished" and history.left_s is not None:
        left = f", about {duration(history.left_s)} left" + ("" if found.status == "training" else " once it goes on")
    return f"{bar:╌<{_BAR}} step {found.last_step:,} of {found.total_steps:,}, {share:.0%}{left}"


def _in_short(config: Mapping[str, object]) -> list[str]:
    lines = []
    for name, wanted in _SHORT_CONFIG:
        told = [f"{each.partition('.')[2]}={config[each]}" for each in wanted if config.get(each) is not None]
        if told:
            lines.append(f"{name}: {', '.join(told)}")
    return lines


def _faults(history: History) -> list[str]:
    if len(history.attempts) < 2 and not history.faults:
        return []
    shown = history.attempts[-_ATTEMPTS_SHOWN:]
    earlier = len(history.attempts) - len(shown)
    return [
        f"{len(history.faults)} fault{'s' if len(history.faults) != 1 else ''}:",
        *([f"  {earlier} earlier attempts, of which `--json` tells"] if earlier else []),
        *(f"  {attempt_line(each)}" for each in shown),
    ]


def _checkpoints(state: RunState) -> "Table":
    from rich.table import Table

    table = Table("checkpoint", "size", "workers", "ZeRO", "committed at", "problem")
    for one in state.checkpoints:
        size = f"{one.size_bytes / 1e6:,.1f} MB"
        table.add_row(str(one.step), size, str(one.world_size), str(one.zero_stage), one.created, one.problem)
    return table


def _named(run: RunLayout) -> str:
    """How to name a run on the command line."""
    return run.name if run.root == "bucket" else run.url


def _figure(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
