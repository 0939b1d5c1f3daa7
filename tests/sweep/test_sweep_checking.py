"""sweep.checking: a sweep is checked whole before anything starts."""

import pytest
from sweep_configs import sweep_config

from scaletrain.errors import ConfigError
from scaletrain.sweep.checking import check_sweep, trial_config


def problems(sweep: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        check_sweep(sweep_config(sweep, *overrides))
    return "\n".join(caught.value.problems)


def test_an_unknown_field_is_named_with_what_was_meant() -> None:
    """A misspelt field and a misspelt section are told apart, each once."""
    found = problems("{trials: 2, metric: loss, parameters: {train.learning_rat: {log: [1.0e-5, 1.0e-3]}}}")
    assert found == "sweep.parameters.train.learning_rat: unknown key; did you mean train.learning_rate?"
    found = problems("{trials: 2, metric: loss, parameters: {training.steps: {choice: [10, 20]}}}")
    assert "sweep.parameters.training.steps: training: unknown key; did you mean train?" in found


def test_every_combination_that_breaks_a_rule_is_named_with_the_values_that_break_it() -> None:
    """All at once: a batch rule that some pairs break, and a value that is never right."""
    found = problems(
        """{search: grid, metric: loss, parameters: {train.global_batch_size: {choice: [32, 60]},
        train.micro_batch_size: {choice: [4, 8]}, zero.stage: {grid: [2, 7]}}}"""
    )
    assert "got 8, which does not divide global_batch_size=60" in found
    assert "train.global_batch_size=60 train.micro_batch_size=8" in found
    assert "zero.stage: got 7; give 0, 1, 2 or 3 (trials with zero.stage=7: 4 of the 8" in found


def test_both_ends_of_a_range_and_the_middle_are_tried() -> None:
    """A range of floats over a field of whole numbers is found, though its ends are whole."""
    found = problems("{trials: 2, metric: loss, parameters: {train.warmup_steps: {uniform: [1, 10]}}}")
    assert "train.warmup_steps: got 5.5; give a whole number" in found


def test_what_pbt_cannot_do_is_refused_all_at_once() -> None:
    """A clone cannot have another batch size, everybody must train at once, and clones begin at commits."""
    found = problems(
        """{trials: 4, at_once: 4, metric: loss, parameters: {train.global_batch_size: {choice: [12, 24]}},
        scheduler: {kind: pbt, every_steps: 50}}""",
        "checkpoint.every_steps=20",
    )
    assert "train.global_batch_size: cannot change in a clone" in found
    assert "checkpoint.every_steps: got 20, which does not divide sweep.scheduler.every_steps=50" in found


@pytest.mark.parametrize(
    ("sweep", "told"),
    [
        ("{trials: 2, parameters: {train.eps: {choice: [1.0e-8]}}}", "there is no validation_loss to compare"),
        ("{trials: 2, metric: loss, parameters: {name: {choice: [a, b]}}}", "cannot differ between the trials"),
        ("{trials: 2, metric: loss, parameters: {zero.stage: {grid: [1, 2, 3]}}}", "the grids have 3 combinations"),
    ],
)
def test_rules_between_the_sweep_and_the_rest(sweep: str, told: str) -> None:
    """What cannot be compared, must not differ, or does not fit the number of trials is an error."""
    assert told in problems(sweep)


@pytest.mark.parametrize(
    ("sweep", "told"),
    [
        ("{metric: loss, parameters: {train.eps: {log: [1.0e-9, 1.0e-7]}}}", "sweep.trials: missing"),
        ("{trials: 1, parameters: {train.eps: {log: [1, 2], grid: [1]}}}", "give exactly one"),
        ("{trials: 1, parameters: {train.eps: {log: [2, 1]}}}", "give the lowest value first"),
        ("{trials: 1, parameters: {train.eps: {logs: [1, 2]}}}", "did you mean sweep.parameters.train.eps.log?"),
        ("{trials: 2, parameters: {train.eps: {log: [1, 2], when: {zero.stage: [1]}}}}", "is no parameter with a list"),
        ("{search: grid, parameters: {train.eps: {log: [1, 2]}}}", "grid needs lists of values"),
    ],
)
def test_rules_within_the_section(sweep: str, told: str) -> None:
    """A section that cannot be meant is refused when the file is read."""
    with pytest.raises(ConfigError, match=told.replace("?", r"\?")):
        sweep_config(sweep)


def test_a_trials_configuration_is_an_ordinary_one() -> None:
    """It has the trial's values and no sweep, and defaults that follow other fields follow the trial's."""
    config = sweep_config("{trials: 1, metric: loss, parameters: {train.global_batch_size: {choice: [9, 10]}}}")
    found = trial_config(config, "tiny.0000", {"train.global_batch_size": 9, "data.corpora.0.limit": 5})
    assert (found.name, found.sweep, found.train.micro_batch_size) == ("tiny.0000", None, 3)
    assert found.data.corpora[0].limit == 5
