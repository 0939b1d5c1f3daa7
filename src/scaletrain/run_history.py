"""A run from its first attempt to its last: what each one did, how it ended, and every step's figures."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import Literal

import numpy as np

from scaletrain.attempts import Attempts, Signs, read_attempts, read_signs, shows_life
from scaletrain.cost import CostAccount, cost_account
from scaletrain.goodput import COLUMNS, AttemptTime, TimeAccount, account_of
from scaletrain.layout import RunLayout
from scaletrain.metric_columns import Columns, counting, read_columns
from scaletrain.run_summary import RunSummary, read_config, summary_of, with_time
from scaletrain.runs import check_exists

FIGURES = (
    *(*COLUMNS, "loss", "learning_rate", "grad_norm", "tokens", "tokens_per_s", "world_size", "memory_bytes", "mfu"),
    *("validation_loss", "validation_perplexity", "skipped", "cost_usd"),
)
_RECENT_STEPS = 100

End = Literal["lost", "regrouped", "failed", "killed", "stopped", "finished", "training"]

ENDS: dict[End, str] = {
    "lost": "a worker was lost",
    "regrouped": "went on with other workers",
    "failed": "an error ended it",
    "killed": "was killed",
    "stopped": "was stopped",
    "finished": "came to the end",
    "training": "is training",
}
FAULTS: tuple[End, ...] = ("lost", "failed", "killed")


@dataclass(frozen=True)
class AttemptStory:
    """One attempt: the step that it went on from, on how many workers, its steps, and how it ended.

    Times are in seconds since 1970 UTC. `lost_steps` and `lost_work_s` were trained in vain, at a cost of `lost_usd`;
    None where no price is known. `gap_s` is the time from the last step of the attempt before to its own first one.
    """

    attempt: int
    started: float
    ended: float
    from_step: int | None
    workers: int | None
    steps: int
    lost_steps: int
    lost_work_s: float
    lost_usd: float | None
    gap_s: float | None
    end: End


@dataclass(frozen=True)
class History:
    """All of a run; `lines` has one line for each step that counts, `by_attempt` every line that was written."""

    run: RunLayout
    summary: RunSummary
    lines: Columns
    by_attempt: Mapping[int, Columns]
    attempts: tuple[AttemptStory, ...]
    time: TimeAccount
    cost: CostAccount

    @property
    def began(self) -> float:
        """When the first attempt was claimed, in seconds since 1970 UTC; 0 where there is none."""
        return self.attempts[0].started if self.attempts else 0.0

    @property
    def faults(self) -> tuple[AttemptStory, ...]:
        """The attempts that a fault ended."""
        return tuple(each for each in self.attempts if each.end in FAULTS)

    @property
    def left_s(self) -> float | None:
        """How long the rest takes at the pace of the newest steps; None where it is not known."""
        total, lengths = self.summary.total_steps, self.lines["step_s"][-_RECENT_STEPS:]
        if total is None or not len(lengths):
            return None
        return max(0, total - self.summary.last_step) * float(np.median(lengths))

    def record(self) -> dict[str, object]:
        """What `show` adds to a run's state, as plain data."""
        return {
            **self.summary.record(),
            "left_s": self.left_s,
            "faults": len(self.faults),
            "by_attempt": [asdict(each) for each in self.attempts],
            "time": self.time.record(),
            "cost": self.cost.record(),
        }


def read_history(run: RunLayout) -> History:
    """Read all of a run's metrics and notes; raises NotFoundError where there is no such run, and ScaletrainError."""
    check_exists(run)
    config = read_config(run)
    known = read_attempts(run)
    signs, columns = read_signs(run, known), read_columns(run.metrics, FIGURES)
    lines = counting(columns, known.last_step_of) if columns else _no_lines()
    account = account_of(known, signs, columns)
    cost = cost_account(run, account)
    summary = with_time(summary_of(run, config=config, known=known, signs=signs, lines=lines), columns, account)
    stories = tuple(_stories(known, signs, columns, account, cost, summary))
    return History(run, summary, lines, columns, stories, account, cost)


def _no_lines() -> Columns:
    return Columns(np.empty(0, np.int64), {name: np.empty(0) for name in FIGURES})


def _stories(
    known: Attempts,
    signs: Mapping[int, Signs],
    columns: Mapping[int, Columns],
    account: TimeAccount,
    cost: CostAccount,
    summary: RunSummary,
) -> Iterator[AttemptStory]:
    lines_of = {attempt: own for attempt, own in columns.items() if len(own)}
    numbers = [spent.attempt for spent in account.attempts if spent.attempt in signs]
    times = {spent.attempt: spent for spent in account.attempts}
    before: float | None = None
    for number, following in zip_longest(numbers, numbers[1:]):
        own, later = lines_of.get(number), None if following is None else signs[following]
        end = _end(signs[number], later, is_finished=summary.status == "finished")
        if end == "regrouped" and _workers(own) == _workers(lines_of.get(following or 0)):
            end = "stopped"  # one process called `train` again
        began_from = known.resumed_from.get(number)
        lost_usd = cost.lost_work_by_attempt.get(number)
        yield _story(number, signs[number], own, times[number], lost_usd, before=before, from_step=began_from, end=end)
        before = float(own["time"][-1]) if own is not None else before


def _story(
    number: int,
    signs: Signs,
    own: Columns | None,
    spent: AttemptTime,
    lost_usd: float | None,
    *,
    before: float | None,
    from_step: int | None,
    end: End,
) -> AttemptStory:
    """`before` is when the last step before this attempt ended, in seconds since 1970."""
    moments = [signs.claimed, signs.began, signs.heartbeat, signs.ended]
    moments += [float(own["time"][0] - own["step_s"][0]), float(own["time"][-1])] if own is not None else []
    there = [moment for moment in moments if moment is not None]
    return AttemptStory(
        attempt=number,
        started=min(there),
        ended=max(there),
        from_step=from_step,
        workers=_workers(own),
        steps=spent.steps,
        lost_steps=spent.lost_steps,
        lost_work_s=spent.parts.lost_work_s,
        lost_usd=lost_usd,
        gap_s=None if own is None or before is None else float(own["time"][0] - own["step_s"][0]) - before,
        end=end,
    )


def _end(signs: Signs, following: Signs | None, *, is_finished: bool) -> End:
    if following is None and shows_life(signs, now=time.time()):
        return "training"
    goes_on = following is not None and _process_of(signs) == _process_of(following) is not None
    if goes_on and signs.ended is not None:
        return "lost" if signs.failed else "regrouped"
    if signs.ended is None:
        return "killed"
    if signs.failed:
        return "failed"
    return "finished" if following is None and is_finished else "stopped"


def _process_of(signs: Signs) -> tuple[str, int, int] | None:
    """Which process made an attempt, as far as it says."""
    return None if signs.claim is None else (signs.claim.machine, signs.claim.pid, signs.claim.process_started)


def _workers(own: Columns | None) -> int | None:
    return None if own is None else int(own["world_size"][-1])
