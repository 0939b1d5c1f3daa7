"""Who is given up early, and who goes on as whose clone: functions of the trials' curves alone.

ASHA, the variant that stops and never pauses (Li et al. 2018, arXiv:1810.05934); the median rule (Golovin et al. 2017,
Google Vizier, section 3.2.2); population based training with truncation (Jaderberg et al. 2017, arXiv:1711.09846).
Ray Tune's own schedulers keep what they have seen in memory, pause trials that have to load a model again, and take a
clone's state from Tune's checkpoints; these read the records, which outlive the head, and use the runs' own commits.
"""

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from scaletrain.config_sweep import Parameter, StoppingSection, SweepSection
from scaletrain.sweep import space
from scaletrain.sweep.records import TrialRecord

Curve = tuple[tuple[int, float], ...]
_FEWEST_FOR_A_MEDIAN = 3


@dataclass(frozen=True)
class Exploit:
    """A trial goes on as a clone of another one, with new values; `reason` is for people."""

    number: int
    donor: int
    parameters: Mapping[str, Any]
    reason: str


def reason_to_stop(section: SweepSection, trials: Mapping[int, TrialRecord], number: int, before: int) -> str:
    """Why a trial is given up, or "" where it goes on; its curve has grown since step `before`."""
    record, rule = trials[number], section.scheduler
    if not record.curve or record.curve[-1][0] >= record.facts.total_steps:
        return ""
    sign = 1.0 if space.lower_is_better(section) else -1.0
    curves = {other: tuple((step, sign * value) for step, value in each.curve) for other, each in trials.items()}
    if rule.kind == "asha":
        return _below_the_rung(rule, curves, number, before)
    if rule.kind == "median":
        return _worse_than_the_median(rule, curves, number, sign)
    return ""


def exploits(section: SweepSection, trials: Mapping[int, TrialRecord], step: int, *, seed: int) -> list[Exploit]:
    """Who of a population becomes a clone, once all of it have come to a step; nobody before, or where it is over.

    All are compared by their values at that step; the worst `share` become clones of the best. A trial that was
    compared there already is left alone.
    """
    rule = section.scheduler
    sign = 1.0 if space.lower_is_better(section) else -1.0
    members = {number: each for number, each in trials.items() if each.state != "failed"}
    values = {number: _value_at(each.curve, step) for number, each in members.items()}
    at_step = {number: sign * value for number, value in values.items() if value is not None}
    if len(at_step) < len(members) or len(members) < 2:
        return []
    ranked = sorted(at_step, key=lambda number: (at_step[number], number))
    count = max(1, math.floor(len(ranked) * rule.share))
    best, found = ranked[:count], []
    for number in ranked[-count:]:
        loser = members[number]
        if loser.is_over or loser.compared >= step or step >= loser.facts.total_steps:
            continue
        rng = np.random.default_rng([seed, number, step])
        donor = best[int(rng.integers(len(best)))]
        if at_step[donor] >= at_step[number]:
            continue
        reason = f"{section.metric} {values[number]:.4g} at step {step}, of trial {donor} {values[donor]:.4g}"
        found.append(Exploit(number, donor, mutated(section, members[donor].parameters, rng), reason))
    return found


def mutated(section: SweepSection, parameters: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """A donor's values, each drawn anew now and then, else moved a little."""
    found = {}
    for name, value in parameters.items():
        parameter = section.parameters[name]
        again = rng.random() < section.scheduler.resample
        found[name] = space.draw(parameter, rng) if again else _moved(parameter, value, section.scheduler.factor, rng)
    return found


def _moved(parameter: Parameter, value: Any, factor: float, rng: np.random.Generator) -> Any:
    """A number times or by the factor, within its range; of a list the value before or behind."""
    up = bool(rng.integers(2))
    if parameter.values is not None:
        place = parameter.values.index(value) + (1 if up else -1)
        return parameter.values[min(max(place, 0), len(parameter.values) - 1)]
    low, high = parameter.bounds
    moved = value * factor if up else value / factor
    if parameter.integer is not None:
        moved = math.ceil(moved) if up else math.floor(moved)
        return int(min(max(moved, low), high))
    return min(max(float(f"{moved:.4g}"), low), high)


def _below_the_rung(rule: StoppingSection, curves: Mapping[int, Curve], number: int, before: int) -> str:
    """At the rung that it has just passed, whether it is not among the best so far."""
    now = curves[number][-1][0]
    rung = float(rule.grace_steps)
    if now < rung:
        return ""
    while rung * rule.reduction <= now:
        rung *= rule.reduction
    if before >= rung:
        return ""
    own = _value_at(curves[number], rung)
    there = sorted(value for curve in curves.values() if (value := _value_at(curve, rung)) is not None)
    go_on = math.ceil(len(there) / rule.reduction)
    assert own is not None
    if own <= there[go_on - 1]:
        return ""
    place = there.index(own) + 1
    return (
        f"at step {math.ceil(rung)} it was number {place} of {len(there)}; {go_on} {'goes' if go_on == 1 else 'go'} on"
    )


def _worse_than_the_median(rule: StoppingSection, curves: Mapping[int, Curve], number: int, sign: float) -> str:
    """Whether its best value is worse than the median of what the others had on average until this step."""
    step = curves[number][-1][0]
    if step < rule.grace_steps:
        return ""
    averages = [
        statistics.fmean(value for at, value in curve if at <= step)
        for other, curve in curves.items()
        if other != number and curve and curve[-1][0] >= step and curve[0][0] <= step
    ]
    if len(averages) < _FEWEST_FOR_A_MEDIAN:
        return ""
    best, median = min(value for _, value in curves[number]), statistics.median(averages)
    if best <= median:
        return ""
    return f"its best until step {step}, {sign * best:.4g}, is worse than the median of the others, {sign * median:.4g}"


def _value_at(curve: Curve, step: float) -> float | None:
    """The first value from a step on."""
    return next((value for at, value in curve if at >= step), None)
