"""What is worth an alert in a run's metrics: pure judgement, without clocks or messages."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from scaletrain.config_track import AlertKind
from scaletrain.track.feed import Row, step_of

_SMOOTHED_STEPS = 50
_FEWEST_STEPS = 20  # the first steps of a run say little


class Finding(NamedTuple):
    """Something to tell: its kind, and the sentence."""

    kind: AlertKind
    text: str


@dataclass
class LossWatch:
    """Says when a loss is not finite, or its moving average is `factor` times the best that it was.

    The average is exponential, over some 50 steps and without the bias of its start (Kingma & Ba 2015,
    arXiv:1412.6980, section 3). A step that is done again after a loss of workers does not count again.
    """

    factor: float
    steps: int = 0
    newest_step: int = 0
    biased: float = 0.0
    best: float = math.inf

    def look(self, row: Row) -> Iterator[Finding]:
        """Judge the next row."""
        step, loss = step_of(row), row.get("loss")
        if step <= self.newest_step:
            return
        self.newest_step = step
        if not isinstance(loss, int | float) or not math.isfinite(loss):
            yield Finding("diverged", f"step {step}: the loss or a gradient is not finite; the step was skipped")
            return
        kept = 1 - 2 / (_SMOOTHED_STEPS + 1)
        self.steps += 1
        self.biased = kept * self.biased + (1 - kept) * loss
        smoothed = self.biased / (1 - kept**self.steps)
        if self.steps < _FEWEST_STEPS:
            return
        self.best = min(self.best, smoothed)
        if smoothed > self.factor * self.best:
            yield Finding(
                "diverged", f"step {step}: the smoothed loss is {smoothed:.4g}, and was {self.best:.4g} at its best"
            )


@dataclass
class CostWatch:
    """Says when a run will have cost more than it may by its last step, at the pace and the price of now.

    Rows that do not tell what it costs, and a run without a budget, are nothing to tell.
    """

    budget_usd: float | None
    steps: int = 0
    seconds: float = 0.0

    def look(self, row: Row, *, total_steps: int) -> Iterator[Finding]:
        """Judge the next row."""
        cost, rate, step_s = (row.get(name) for name in ("cost_usd", "usd_per_hour", "step_s"))
        if self.budget_usd is None or not (
            isinstance(cost, int | float) and isinstance(rate, int | float) and isinstance(step_s, int | float)
        ):
            return
        self.steps += 1
        self.seconds += step_s
        to_come_s = (total_steps - step_of(row)) * self.seconds / self.steps
        forecast = cost + rate * to_come_s / 3600
        if self.steps >= _FEWEST_STEPS and forecast > self.budget_usd:
            yield Finding(
                "over_budget",
                f"step {step_of(row)}: at this pace it needs {forecast:.2f} USD until step {total_steps}, and may "
                f"cost {self.budget_usd:.2f}; {cost:.2f} are spent",
            )
