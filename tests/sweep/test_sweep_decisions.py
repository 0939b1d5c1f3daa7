"""sweep.decisions: who is given up, and who becomes a clone."""

import numpy as np
from sweep_configs import sweep_config, trial

from scaletrain.config_sweep import SweepSection
from scaletrain.sweep import decisions

RATE = "parameters: {train.learning_rate: {log: [1.0e-5, 1.0e-2]}, train.warmup_steps: {choice: [0, 5, 10]}}"


def section_of(scheduler: str, metric: str = "loss") -> SweepSection:
    sweep = sweep_config(
        f"{{trials: 4, at_once: 4, metric: {metric}, {RATE}, scheduler: {scheduler}}}", "checkpoint.every_steps=20"
    ).sweep
    assert sweep is not None
    return sweep


def test_asha_lets_the_best_part_past_each_rung() -> None:
    """At the rung of step 30 the best third of those that have come so far go on; who passed it is left alone."""
    section = section_of("{kind: asha, grace_steps: 10, reduction: 3}")
    trials = {number: trial(number, {20: 3.0, 40: 2.0 + number}) for number in range(4)}
    told = {number: decisions.reason_to_stop(section, trials, number, 20) for number in trials}
    assert [bool(reason) for reason in told.values()] == [False, False, True, True]
    assert told[3] == "at step 30 it was number 4 of 4; 2 go on"
    assert decisions.reason_to_stop(section, trials, 3, 35) == ""
    assert decisions.reason_to_stop(section, {0: trials[0]}, 0, 0) == ""


def test_asha_with_a_metric_of_which_more_is_better() -> None:
    """The slowest is given up."""
    section = section_of("{kind: asha, grace_steps: 10, reduction: 3}", "tokens_per_s")
    trials = {number: trial(number, {20: 100.0 * number}) for number in range(3)}
    assert [bool(decisions.reason_to_stop(section, trials, each, 0)) for each in trials] == [True, True, False]


def test_the_median_rule_waits_for_three_others_and_for_the_grace() -> None:
    """A trial whose best is worse than the median of the others' averages is stopped, if three are as far."""
    section = section_of("{kind: median, grace_steps: 20}")
    trials = {number: trial(number, {10: 4.0, 20: 3.0}) for number in range(3)} | {3: trial(3, {10: 9.0, 20: 8.0})}
    assert "is worse than the median" in decisions.reason_to_stop(section, trials, 3, 10)
    assert decisions.reason_to_stop(section, trials, 0, 10) == ""
    assert decisions.reason_to_stop(section, {n: trials[n] for n in (0, 1, 3)}, 3, 10) == ""
    early = trials | {3: trial(3, {10: 9.0})}
    assert decisions.reason_to_stop(section, early, 3, 0) == ""


def test_a_trial_at_its_last_step_is_not_stopped() -> None:
    """It has finished."""
    section = section_of("{kind: asha, grace_steps: 10}")
    trials = {number: trial(number, {80: float(number)}) for number in range(4)}
    assert decisions.reason_to_stop(section, trials, 3, 60) == ""


def test_the_worst_become_clones_once_all_have_come_to_the_step() -> None:
    """Compared by their values at that step, not by how far they have come since; once for each step."""
    section = section_of("{kind: pbt, every_steps: 20}")
    values = {"train.learning_rate": 1e-3, "train.warmup_steps": 5}
    trials = {number: trial(number, {20: 1.0 + number}, parameters=values) for number in range(3)}
    trials[3] = trial(3, {10: 9.0}, parameters=values)
    assert decisions.exploits(section, trials, 20, seed=0) == []
    trials[3] = trial(3, {20: 9.0, 40: 0.1}, parameters=values)
    (found,) = decisions.exploits(section, trials, 20, seed=0)
    assert (found.number, found.donor) == (3, 0)
    assert found.reason == "loss 9 at step 20, of trial 0 1"
    trials[3] = trial(3, {20: 9.0}, parameters=values, compared=20)
    assert decisions.exploits(section, trials, 20, seed=0) == []


def test_a_clones_values_stay_within_their_ranges() -> None:
    """Numbers move by the factor, lists by one place, and neither leaves what the section allows."""
    section = section_of("{kind: pbt, every_steps: 20, resample: 0}")
    for seed in range(20):
        values = {"train.learning_rate": 9.9e-3, "train.warmup_steps": 10}
        found = decisions.mutated(section, values, np.random.default_rng(seed))
        assert found["train.learning_rate"] in (1e-2, 0.00792)
        assert found["train.warmup_steps"] in (5, 10)
