"""What many simulated runs of one setting say: means with their intervals, and how far runs lie apart."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from scaletrain.simulate.engine import play
from scaletrain.simulate.setting import Outcome, Parts, Pool, Setting

_HOUR_S = 3600.0
_FIRST_RUNS = 5
_95 = 1.96  # standard errors on either side of a mean, of as many runs as here


@dataclass(frozen=True)
class Range:
    """One figure's mean with the 95% interval of that (`low` to `high`), and the `p5` and `p95` of single runs."""

    mean: float
    low: float
    high: float
    p5: float
    p95: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Range":
        """Sum up values, one a run."""
        array = np.asarray(values, dtype=np.float64)
        mean = float(array.mean())
        error = _95 * float(array.std(ddof=1)) / len(array) ** 0.5 if len(array) > 1 else 0.0
        p5, p95 = (float(each) for each in np.percentile(array, (5, 95)))
        return cls(mean, mean - error, mean + error, p5, p95)


@dataclass(frozen=True)
class Estimate:
    """Many runs of one setting; `hours` and `usd` have one value a run. Counts and `parts` are means of one run."""

    setting: Setting
    hours: tuple[float, ...]
    usd: tuple[float, ...]
    parts: Parts
    goodput: float
    attempts: float
    losses: float
    saved_in_time: float
    growths: float
    lost_steps: float
    commands: float
    unfinished: int

    @property
    def runs(self) -> int:
        return len(self.hours)

    def done_by(self, share: float) -> float:
        """The hours after which that share of the runs is done."""
        return float(np.percentile(self.hours, 100 * share))

    def late(self, deadline_hours: float) -> float:
        """The share of runs that take longer."""
        return sum(each > deadline_hours for each in self.hours) / self.runs


def estimate(setting: Setting, pools: Sequence[Pool], *, runs: int, seed: int) -> Estimate:
    """Simulate a setting so many times; run i of one setting meets the same chance as run i of another.

    Where none of the first few runs comes to its end, the others are not tried.
    """
    outcomes = [play(setting, pools, seed=seed, index=index) for index in range(min(runs, _FIRST_RUNS))]
    if any(each.finished for each in outcomes):
        outcomes += [play(setting, pools, seed=seed, index=index) for index in range(len(outcomes), runs)]
    runs = len(outcomes)

    def mean(figures: Sequence[float]) -> float:
        return sum(figures) / runs

    return Estimate(
        setting=setting,
        hours=tuple(each.wall_s / _HOUR_S for each in outcomes),
        usd=tuple(each.usd for each in outcomes),
        parts=_mean_parts(outcomes),
        goodput=mean([each.goodput for each in outcomes]),
        attempts=mean([len(each.attempts) for each in outcomes]),
        losses=mean([each.losses for each in outcomes]),
        saved_in_time=mean([each.saved_in_time for each in outcomes]),
        growths=mean([each.growths for each in outcomes]),
        lost_steps=mean([each.lost_steps for each in outcomes]),
        commands=mean([each.commands for each in outcomes]),
        unfinished=sum(not each.finished for each in outcomes),
    )


def difference(one: Sequence[float], other: Sequence[float]) -> Range:
    """How much more `one` is than `other`, run by run, as far as both go."""
    return Range.of([first - second for first, second in zip(one, other, strict=False)])


def _mean_parts(outcomes: Sequence[Outcome]) -> Parts:
    names = [part.name for part in fields(Parts)]
    return Parts(**{name: sum(getattr(each.parts, name) for each in outcomes) / len(outcomes) for name in names})
