"""sweep.space: which values a trial gets."""

from sweep_configs import sweep_config, trial

from scaletrain.sweep import space

MIXED = """{trials: 6, metric: loss, parameters: {
zero.stage: {grid: [1, 2, 3]}, train.learning_rate: {log: [1.0e-5, 1.0e-2]},
zero.offload_parameters: {choice: [none, cpu], when: {zero.stage: [3]}}}}"""


def test_grids_are_enumerated_and_the_rest_is_drawn() -> None:
    """Six trials over a grid of three take each of its values twice, and a conditional field only where it holds."""
    section = sweep_config(MIXED).sweep
    assert section is not None
    found = [space.suggest(section, {}, number, seed=0) for number in range(6)]
    assert [each["zero.stage"] for each in found] == [1, 2, 3, 1, 2, 3]
    assert all(1e-5 <= each["train.learning_rate"] <= 1e-2 for each in found)
    assert len({each["train.learning_rate"] for each in found}) == 6
    assert [("zero.offload_parameters" in each) for each in found] == [False, False, True] * 2


def test_a_trial_gets_the_same_values_whenever_it_is_asked_for() -> None:
    """Values depend on the seed and the trial's number, so a sweep that is begun again has the same trials."""
    section = sweep_config(MIXED).sweep
    assert section is not None
    assert space.suggest(section, {}, 4, seed=7) == space.suggest(section, {}, 4, seed=7)
    assert space.suggest(section, {}, 4, seed=7) != space.suggest(section, {}, 4, seed=8)


def test_a_grid_search_tries_every_combination_of_its_lists_once() -> None:
    """Choices count as grids there, and what is not varied in a combination makes it no second one."""
    section = sweep_config(
        """{search: grid, metric: loss, parameters: {zero.stage: {choice: [1, 3]},
        zero.offload_parameters: {grid: [none, cpu], when: {zero.stage: [3]}}}}"""
    ).sweep
    assert section is not None
    assert space.number_of_trials(section) == 3
    found = [space.suggest(section, {}, number, seed=0) for number in range(3)]
    assert found == [
        {"zero.stage": 1},
        {"zero.stage": 3, "zero.offload_parameters": "none"},
        {"zero.stage": 3, "zero.offload_parameters": "cpu"},
    ]


def test_tpe_takes_no_trial_that_was_stopped_early_for_better_than_one_that_finished() -> None:
    """Validation loss rises again late: those stopped at 2.5 were behind 2.0 then, and 3.0 at the end beats them."""
    section = sweep_config(
        """{search: tpe, trials: 20, metric: validation_loss, scheduler: {kind: asha, grace_steps: 20},
        parameters: {train.learning_rate: {log: [1.0e-6, 1.0]}}}""",
        "train.evaluate_every_steps=20",
    ).sweep
    assert section is not None
    trials = {}
    for number in range(12):
        rate, has_finished = 10.0 ** (-number / 2), number < 6
        curve = {20: 2.0, 80: 3.0} if has_finished else {20: 2.5}
        state = "finished" if has_finished else "stopped"
        trials[number] = trial(number, curve, parameters={"train.learning_rate": rate}, state=state)
    proposed = [space.suggest(section, trials, 12, seed=seed)["train.learning_rate"] for seed in range(5)]
    assert sum(rate >= 1e-3 for rate in proposed) >= 4


def test_tpe_goes_where_trials_were_good_and_remembers_by_the_records_alone() -> None:
    """After trials whose loss falls towards 1e-3, what it proposes is closer to that than what random draws."""
    section = sweep_config(
        """{search: tpe, trials: 20, metric: loss, parameters: {train.learning_rate: {log: [1.0e-6, 1.0]},
        train.schedule: {choice: [constant, cosine]}, train.warmup_steps: {integer: [0, 9]}}}"""
    ).sweep
    assert section is not None
    trials = {}
    for number in range(12):
        rate = 10.0 ** (-number / 2)
        values = {"train.learning_rate": rate, "train.schedule": "cosine", "train.warmup_steps": number % 10}
        trials[number] = trial(number, {80: abs(3 - number / 2)}, parameters=values, state="finished")
    proposed = [space.suggest(section, trials, 12, seed=seed)["train.learning_rate"] for seed in range(5)]
    assert sum(1e-4 <= rate <= 1e-2 for rate in proposed) >= 4
    assert space.suggest(section, trials, 12, seed=3) == space.suggest(section, dict(trials), 12, seed=3)
