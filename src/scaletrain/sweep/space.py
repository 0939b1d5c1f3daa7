"""Which values a trial gets: a function of the section, the seed and the trials so far, and of nothing else.

Random values are drawn from (seed, trial). TPE (Bergstra et al. 2011; Optuna's) is shown every trial of the records
each time it is asked: it keeps no state of its own that a crash could lose.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from scaletrain.config_sweep import Parameter, SweepSection
from scaletrain.sweep.records import TrialRecord

if TYPE_CHECKING:
    import optuna

Values = dict[str, Any]


def lower_is_better(section: SweepSection) -> bool:
    """Whether the best trial is the one with the lowest metric."""
    return section.metric != "tokens_per_s"


def in_order(section: SweepSection) -> list[tuple[str, Parameter]]:
    """The parameters, each behind those that its `when` names; raises ValueError for a circle."""
    waiting, found = dict(section.parameters), dict[str, Parameter]()
    while waiting:
        ready = [name for name, each in waiting.items() if not set(each.when) & set(waiting)]
        if not ready:
            raise ValueError(", ".join(waiting))
        found |= {name: waiting.pop(name) for name in ready}
    return list(found.items())


def is_active(parameter: Parameter, values: Mapping[str, Any]) -> bool:
    """Whether a parameter varies, given the values of those before it."""
    return all(values.get(other) in allowed for other, allowed in parameter.when.items())


def assignments(parameters: Sequence[tuple[str, Parameter]], of: Mapping[str, Sequence[Any]]) -> Iterator[Values]:
    """Every combination of the values that `of` has for each parameter, without those that do not vary then."""

    def extended(values: Values, place: int) -> Iterator[Values]:
        if place == len(parameters):
            yield values
            return
        name, parameter = parameters[place]
        if not is_active(parameter, values):
            yield from extended(values, place + 1)
            return
        for value in of[name]:
            yield from extended({**values, name: value}, place + 1)

    return extended({}, 0)


def grid(section: SweepSection) -> list[Values]:
    """The combinations of the grids; of all lists, where the whole search is one."""
    enumerated = [(name, each) for name, each in in_order(section) if _is_enumerated(section, each)]
    return list(assignments(enumerated, {name: each.values or () for name, each in enumerated}))


def number_of_trials(section: SweepSection) -> int:
    """How many trials the sweep has."""
    if section.trials is None:
        return len(grid(section))
    return min(section.trials, len(grid(section))) if section.search == "grid" else section.trials


def suggest(section: SweepSection, trials: Mapping[int, TrialRecord], number: int, *, seed: int) -> Values:
    """The values of a new trial: its combination of the grids, and what is drawn for the rest."""
    combinations = grid(section)
    values = dict(combinations[number % len(combinations)])
    rng = np.random.default_rng([seed, number])
    learned = _Learned(section, trials, number, seed=seed) if section.search == "tpe" else None
    for name, parameter in in_order(section):
        if not _is_enumerated(section, parameter) and is_active(parameter, values):
            values[name] = learned.value(name, parameter) if learned else draw(parameter, rng)
    return {name: values[name] for name in section.parameters if name in values}


def draw(parameter: Parameter, rng: np.random.Generator) -> Any:
    """One value at random."""
    if parameter.values is not None:
        return parameter.values[int(rng.integers(len(parameter.values)))]
    low, high = parameter.bounds
    if parameter.integer is not None:
        return int(rng.integers(int(low), int(high) + 1))
    if parameter.log is not None:
        return _rounded(math.exp(rng.uniform(math.log(low), math.log(high))), low, high)
    return _rounded(rng.uniform(low, high), low, high)


def study_of(
    section: SweepSection,
    trials: Mapping[int, TrialRecord],
    sampler: "optuna.samplers.BaseSampler | None" = None,
    *,
    with_grids: bool,
) -> "optuna.Study":
    """The trials as an Optuna study; listed values stand there as their places in the list.

    For a sampler a trial that was stopped is a pruned one: it comes behind those that finished, and its value is
    compared at the step that it came to, since an early value may look better than a last one.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    direction: Literal["minimize", "maximize"] = "minimize" if lower_is_better(section) else "maximize"
    study = optuna.create_study(direction=direction, sampler=sampler)
    states = optuna.trial.TrialState
    for record in trials.values():
        shown = {
            name: each
            for name, each in section.parameters.items()
            if name in record.parameters and (with_grids or not _is_enumerated(section, each))
        }
        has_value = record.is_over and record.state != "failed" and record.value is not None
        is_pruned = has_value and record.state == "stopped" and sampler is not None
        over = states.PRUNED if is_pruned else states.COMPLETE if has_value else states.FAIL
        study.add_trial(
            optuna.trial.create_trial(
                state=over if record.is_over else states.RUNNING,
                value=record.value if has_value else None,
                intermediate_values=dict(record.curve[-1:]) if is_pruned else None,
                params={name: _encoded(each, record.parameters[name]) for name, each in shown.items()},
                distributions={name: _distribution(each) for name, each in shown.items()},
            )
        )
    return study


class _Learned:
    """One new trial of a study that has been shown all others."""

    def __init__(self, section: SweepSection, trials: Mapping[int, TrialRecord], number: int, *, seed: int) -> None:
        import optuna

        state = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
        at_random = min(10, max(3, number_of_trials(section) // 4))  # before it begins to learn
        sampler = optuna.samplers.TPESampler(seed=state, n_startup_trials=at_random)
        self._trial = study_of(section, trials, sampler, with_grids=False).ask()

    def value(self, name: str, parameter: Parameter) -> Any:
        if parameter.values is not None:
            place = self._trial.suggest_categorical(name, list(range(len(parameter.values))))
            return parameter.values[int(str(place))]
        low, high = parameter.bounds
        if parameter.integer is not None:
            return self._trial.suggest_int(name, int(low), int(high))
        return _rounded(self._trial.suggest_float(name, low, high, log=parameter.log is not None), low, high)


def _is_enumerated(section: SweepSection, parameter: Parameter) -> bool:
    return parameter.grid is not None or (section.search == "grid" and parameter.values is not None)


def _distribution(parameter: Parameter) -> "optuna.distributions.BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if parameter.values is not None:
        return CategoricalDistribution(list(range(len(parameter.values))))
    low, high = parameter.bounds
    if parameter.integer is not None:
        return IntDistribution(int(low), int(high))
    return FloatDistribution(low, high, log=parameter.log is not None)


def _encoded(parameter: Parameter, value: Any) -> Any:
    return parameter.values.index(value) if parameter.values is not None else value


def _rounded(value: float, low: float, high: float) -> float:
    """Four digits, which is all that anybody reads and more than any optimum is sharp."""
    return min(max(float(f"{value:.4g}"), low), high)


def candidates(parameter: Parameter) -> tuple[Any, ...]:
    """Values that stand for all: those listed, or a range's ends and a value between them."""
    if parameter.values is not None:
        return parameter.values
    low, high = parameter.bounds
    if parameter.integer is not None:
        return int(low), int(high)
    between = math.sqrt(low * high) if parameter.log is not None else (low + high) / 2
    return low, _rounded(between, low, high), high


def pairs(parameters: Sequence[tuple[str, Parameter]]) -> Iterator[Values]:
    """Every pair of two parameters' values, the others at their first ones."""
    everything = {name: candidates(each) for name, each in parameters}
    for one, other in itertools.combinations(everything, 2):
        few = {name: values if name in (one, other) else values[:1] for name, values in everything.items()}
        yield from assignments(parameters, few)
