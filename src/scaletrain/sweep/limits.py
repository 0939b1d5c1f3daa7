"""The limit of a sweep in hours and money: whether it is reached, and what the rest would need."""

from collections.abc import Mapping

from scaletrain.config_sweep import SweepSection
from scaletrain.sweep import space
from scaletrain.sweep.records import TrialRecord

_STEPS_TO_JUDGE_BY = 3  # the first steps of a run are slower


def reached(section: SweepSection, trials: Mapping[int, TrialRecord], *, seconds: float, at_once: int) -> str:
    """Why the sweep must stop now, with what it would need; "" where it may go on.

    That is the case too where the limit cannot be enough for a single trial, as soon as steps show it, and where money
    is limited and the metrics state no cost.
    """
    limit = section.limit
    if limit.hours is not None and seconds >= 3600 * limit.hours:
        rest = rest_s(section, trials) / at_once / 3600
        return f"sweep.limit.hours={limit.hours:g} is reached; the rest needs some {rest:.2g} hours more"
    cost = sum(each.cost_usd or 0.0 for each in trials.values())
    if limit.usd is not None and cost >= limit.usd:
        done_s = sum(each.seconds for each in trials.values())
        rest = cost * rest_s(section, trials) / done_s if done_s else 0.0
        return f"sweep.limit.usd={limit.usd:g} is reached; the rest needs some {rest:.2g} USD more"
    for record in trials.values():
        if (
            record.state == "running"
            and record.facts.step >= _STEPS_TO_JUDGE_BY
            and (told := _too_small(section, record))
        ):
            return told
    return ""


def rest_s(section: SweepSection, trials: Mapping[int, TrialRecord]) -> float:
    """How long the trials that are not over would take one after the other, at the pace of those so far."""
    steps = sum(each.facts.step for each in trials.values())
    per_step_s = sum(each.seconds for each in trials.values()) / steps if steps else 0.0
    length = max((each.facts.total_steps for each in trials.values()), default=0)
    unbegun = space.number_of_trials(section) - len(trials)
    rest = sum(each.facts.total_steps - each.facts.step for each in trials.values() if not each.is_over)
    return per_step_s * (rest + unbegun * length)


def _too_small(section: SweepSection, record: TrialRecord) -> str:
    """Whether one trial alone needs more than all may take."""
    limit, facts = section.limit, record.facts
    hours = facts.total_steps * facts.step_s / 3600
    if limit.hours is not None and hours > limit.hours:
        return (
            f"sweep.limit.hours={limit.hours:g} is too little for a single trial: trial {record.number} has "
            f"{facts.total_steps} steps of {facts.step_s:.2g} s, some {hours:.2g} hours"
        )
    if limit.usd is None:
        return ""
    if facts.cost_usd is None:
        return "sweep.limit.usd: what these machines cost is not known, so it cannot be kept; set sweep.limit.hours"
    usd = facts.cost_usd / facts.step * facts.total_steps
    if usd > limit.usd:
        return (
            f"sweep.limit.usd={limit.usd:g} is too little for a single trial: {facts.step} of the {facts.total_steps} "
            f"steps of trial {record.number} cost {facts.cost_usd:.2g} USD, all would some {usd:.2g}"
        )
    return ""
