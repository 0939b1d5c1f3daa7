"""sweep.scaling_points and config_scaling: which points a study has, and that it is checked whole before it starts."""

import pytest
from scaling_records_made import section_of, study_config
from sweep_configs import sweep_config

from scaletrain.config_file import dump_config, parse_config
from scaletrain.errors import ConfigError
from scaletrain.sweep.scaling_points import (
    Point,
    check_study,
    machine_problems,
    plan,
    point_config,
    series,
    whole_config,
)


def problems(scaling: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        check_study(study_config(scaling, "train.device=cpu", "scaling.cpus_per_worker=0.01", *overrides))
    return "\n".join(caught.value.problems)


def test_points_go_from_most_workers_to_fewest_and_modes_share_the_smallest() -> None:
    """An autoscaled cluster shrinks as the study goes, and nothing is measured twice."""
    config = study_config("{worker_counts: [2, 1, 4], modes: [strong, weak]}")
    points = plan(config, section_of(config))
    assert [point.workers for point in points] == [4, 4, 2, 2, 1]
    curves = series(config, section_of(config))
    assert curves["strong", 2] == (Point(1, 2, 12), Point(2, 2, 12), Point(4, 2, 12))
    assert curves["weak", 2] == (Point(1, 2, 12), Point(2, 2, 24), Point(4, 2, 48))


def test_a_point_is_a_short_run_without_what_would_disturb_it() -> None:
    """It has its own name, workers, stage and batch; no epochs, no validation, no commit but the last."""
    config = study_config(
        "{worker_counts: [2], measured_steps: 10}", "train.evaluate_every_steps=5", "debug.stop_after=3"
    )
    run = point_config(config, section_of(config), Point(2, 3, 24))
    assert run.name == "tiny.2-workers-stage-3-batch-24"
    assert (run.scaling.workers, run.zero.stage, run.train.global_batch_size, run.train.micro_batch_size) == (
        2,
        3,
        24,
        1,
    )
    assert (run.train.steps, run.train.evaluate_every_steps, run.checkpoint.every_steps) == (15, 0, 15)
    assert (run.debug.stop_after, run.sweep) == (None, None)


def test_the_whole_run_keeps_its_length_unless_the_batch_grew() -> None:
    """A strong point changes workers and stage alone; a weak one the batch and the steps too."""
    config = study_config("{worker_counts: [2]}")
    strong, weak = (whole_config(config, Point(2, 1, batch), steps=18_000) for batch in (12, 24))
    assert (strong.train.steps, strong.train.global_batch_size, strong.zero.stage) == (36_000, 12, 1)
    assert (weak.train.steps, weak.train.global_batch_size) == (18_000, 24)


def test_what_cannot_be_studied_is_refused_all_at_once() -> None:
    """A range of workers, points with workers that have nothing to do, a stage that the offload does not go with."""
    found = problems(
        "{worker_counts: [1, 4, 16], stages: [2, 3]}",
        "scaling.workers={min: 1, max: 2}",
        "zero.stage=3",
        "zero.offload_parameters=cpu",
    )
    assert "scaling.workers: got a range" in found
    assert "got 16, but a step has 12 micro batches" in found and "use at most 12" in found
    assert "zero.offload_parameters: needs stage 3" in found and "1 worker, stage 2" in found
    found = problems("{worker_counts: [5, 6], modes: [weak]}")
    assert "would need a part of a row at 6 workers; use multiples of 5" in found
    assert "use at most" in problems("{worker_counts: [1]}", f"name={'n' * 90}")


def test_more_workers_than_this_machine_has_cores_for_are_refused() -> None:
    """Crowded cores would say nothing of scaling; GPUs bound the workers too."""
    config = study_config("{worker_counts: [1, 2, 4, 8]}", "scaling.cpus_per_worker=0.5")
    (found,) = machine_problems(config, section_of(config), cpus=2, gpus=0)
    assert "got 8, but this machine has 2 cores" in found and "use at most 4" in found
    (found,) = machine_problems(config, section_of(config), cpus=8, gpus=2)
    assert "got 4 and 8, but this machine has 2 GPUs" in found
    assert [*machine_problems(config, section_of(config), cpus=8, gpus=8)] == []


@pytest.mark.parametrize(
    ("sweep", "told"),
    [
        ("{kind: scaling}", "sweep.scaling: missing; kind: scaling needs the numbers of workers"),
        ("{kind: scaling, trials: 3, scaling: {worker_counts: [1]}}", "sweep.trials: goes with kind: search"),
        ("{scaling: {worker_counts: [1]}}", "sweep.scaling: goes with kind: scaling"),
        ("{kind: scaling, scaling: {worker_counts: [1, 2, 1]}}", "has 1 more than once"),
        ("{kind: scaling, scaling: {worker_counts: [1], measured_steps: 2}}", "got 2; give at least 5"),
        ("{kind: scaling, scaling: {worker_counts: []}}", "give numbers of workers, as"),
        ("{}", "sweep.parameters: missing"),
    ],
)
def test_rules_within_the_study_s_section(sweep: str, told: str) -> None:
    """A section that cannot be meant is refused when the file is read."""
    with pytest.raises(ConfigError, match=told):
        sweep_config(sweep)


def test_a_study_s_configuration_reads_back_equal() -> None:
    """The stored file has every default written out, and is still a scaling study."""
    config = study_config("{worker_counts: [1, 2], deadline_hours: 3}")
    assert parse_config(dump_config(config), source="sweep.yaml") == config
