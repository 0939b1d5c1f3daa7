"""What a list of runs says of each: its status, how far it is, its figures, time and cost; from the bucket alone.

Small files and the newest metrics tell most. Tokens and goodput take every line of a run, so a run of more than
`_FILES_READ` files of metrics (an hour and a half of training) goes without them unless they are asked for.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np

from scaletrain import checkpoint, storage, yaml_text
from scaletrain.attempts import Attempts, Signs, read_attempts, read_signs, shows_life
from scaletrain.checkpoint import Manifest
from scaletrain.data.shards import load_index
from scaletrain.errors import ConfigError, ScaletrainError
from scaletrain.goodput import COLUMNS, TimeAccount, account_of
from scaletrain.layout import RunLayout
from scaletrain.metric_columns import Columns, columns_of, counting, list_parts
from scaletrain.run_inputs import inputs_of
from scaletrain.storage.parallel import in_parallel

STATUSES = ("new", "training", "finished", "stopped", "failed", "killed", "unreadable")
Status = Literal["new", "training", "finished", "stopped", "failed", "killed", "unreadable"]

_RUNS_AT_ONCE = 16
_FILES_READ = 500
_NEWEST_FILES = 12
_READ = (*COLUMNS, "loss", "validation_perplexity", "tokens", "tokens_per_s", "world_size", "cost_usd")


@dataclass(frozen=True)
class RunSummary:
    """One run; None stands for what is not known.

    `status`: new (nothing trained yet), training, finished, stopped (asked to), failed (an error ended it, or a worker
    was lost and no other has come yet), killed (its process is gone and never said so), unreadable (`problem` says
    why). `step` is the newest committed one, `last_step` the newest trained one. `config` is the stored configuration
    by dotted field.
    """

    name: str
    url: str
    status: Status
    problem: str = ""
    step: int = 0
    last_step: int = 0
    total_steps: int | None = None
    loss: float | None = None
    validation_perplexity: float | None = None
    tokens: int | None = None
    tokens_per_s: float | None = None
    goodput: float | None = None
    cost_usd: float | None = None
    workers: int | None = None
    attempts: int = 0
    last_step_at: str | None = None
    config: Mapping[str, object] = field(default_factory=dict, repr=False)

    def record(self) -> dict[str, object]:
        """The summary as plain data, without the configuration."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name != "config"}


def list_summaries(root: str, *, full: bool = False) -> list[RunSummary]:
    """Every run below a storage root, by name; `full` reads every line of long runs too."""
    names = storage.list_folders(storage.join(root, "runs"))
    return in_parallel(
        lambda name: _summary_or_problem(RunLayout(root, name), full=full), names, max_workers=_RUNS_AT_ONCE
    )


def summarise(run: RunLayout, *, full: bool) -> RunSummary:
    """Read what there is to say of one run; raises ScaletrainError."""
    config = read_config(run)
    known = read_attempts(run)
    parts = list_parts(run.metrics)
    is_whole = full or len(parts.each) <= _FILES_READ
    if not is_whole:
        parts = parts.newest(_NEWEST_FILES)
    signs = read_signs(run, known if is_whole else replace(known, claimed=known.claimed[-1:]))
    columns = columns_of(parts, _READ)
    found = summary_of(run, config=config, known=known, signs=signs, lines=counting(columns, known.last_step_of))
    return with_time(found, columns, account_of(known, signs, columns)) if is_whole else found


def summary_of(
    run: RunLayout, *, config: Mapping[str, object], known: Attempts, signs: Mapping[int, Signs], lines: Columns
) -> RunSummary:
    """The same, of what was read already; `lines` are those of the newest steps at least, or of none."""
    newest = checkpoint.newest_whole(run)
    total, step = _total_steps(run, config, newest), newest.step if newest else 0
    return RunSummary(
        name=run.name,
        url=run.url,
        status=_status(signs.get(known.newest), is_at_end=total is not None and step >= total),
        step=step,
        last_step=int(lines.steps[-1]) if len(lines) else step,
        total_steps=total,
        loss=_last(lines, "loss"),
        validation_perplexity=_newest(lines, "validation_perplexity"),
        tokens_per_s=_last(lines, "tokens_per_s"),
        cost_usd=_newest(lines, "cost_usd"),
        workers=_whole(_last(lines, "world_size")),
        attempts=len(known.claimed),
        last_step_at=_iso(_last(lines, "time")),
        config=config,
    )


def with_time(summary: RunSummary, columns: Mapping[int, Columns], time_account: TimeAccount) -> RunSummary:
    """Add what takes every line: the tokens of all steps, also of those that were trained in vain, and goodput."""
    tokens = sum(float(own["tokens"][own["tokens"] > 0].sum()) for own in columns.values())
    return replace(summary, tokens=int(tokens), goodput=time_account.goodput if time_account.attempts else None)


def read_config(run: RunLayout) -> dict[str, object]:
    """The stored configuration by dotted field, whatever version of scaletrain wrote it; raises ScaletrainError."""
    tree, _ = yaml_text.parse(storage.read_text(run.config), source=run.config)
    if not isinstance(tree, dict):
        raise ConfigError(f"{run.config}: has no keys; it was not written by scaletrain")
    return flattened(tree)


def flattened(tree: Mapping[str, Any], *, before: str = "") -> dict[str, object]:
    """The leaves of nested sections and lists by dotted path, as `data.corpora.0.format`."""
    found: dict[str, object] = {}
    for key, value in tree.items():
        inside = dict(enumerate(value)) if isinstance(value, list) else value
        if isinstance(inside, dict) and inside:
            found |= flattened({str(name): each for name, each in inside.items()}, before=f"{before}{key}.")
        else:
            found[f"{before}{key}"] = value
    return found


def _summary_or_problem(run: RunLayout, *, full: bool) -> RunSummary:
    try:
        return summarise(run, full=full)
    except ScaletrainError as error:  # one damaged run must not hide the others
        return RunSummary(run.name, run.url, "unreadable", problem=str(error))
    except (ValueError, KeyError, TypeError) as error:  # nor one that another version wrote
        return RunSummary(run.name, run.url, "unreadable", problem=f"{type(error).__name__}: {error}")


def _status(newest: Signs | None, *, is_at_end: bool) -> Status:
    if newest is None:
        return "new"
    if shows_life(newest, now=time.time()):
        return "training"
    if is_at_end:
        return "finished"
    if newest.ended is None:
        return "killed"
    return "failed" if newest.failed else "stopped"


def _total_steps(run: RunLayout, config: Mapping[str, object], newest: Manifest | None) -> int | None:
    """Where a run ends; of epochs only once it has a commit, which names the dataset."""
    steps, epochs, batch = (config.get(f"train.{name}") for name in ("steps", "epochs", "global_batch_size"))
    if isinstance(steps, int):
        return steps
    if newest is None or not isinstance(epochs, (int, float)) or not isinstance(batch, int):
        return None
    try:
        rows = load_index(inputs_of(run, newest).dataset_url).splits["train"].rows
    except ScaletrainError:  # the dataset was removed, or lies where this machine may not read
        return None
    return math.ceil(epochs * rows / batch)


def _last(lines: Columns, name: str) -> float | None:
    value = float(lines[name][-1]) if len(lines) else math.nan
    return None if math.isnan(value) else value


def _newest(lines: Columns, name: str) -> float | None:
    """The last value that any line has."""
    if not len(lines):
        return None
    there = lines[name][~np.isnan(lines[name])]
    return float(there[-1]) if len(there) else None


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _iso(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
