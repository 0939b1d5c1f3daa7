"""A run may stop after any step, and as often as it likes: each time the same bits."""

from typing import Any

import pytest
from invariants import assert_equal_bits, assert_recovered

from scaletrain import attempts, storage
from scaletrain.config_file import dump_config
from scaletrain.data.shards import load_index
from scaletrain.layout import RunLayout
from workers import Prepared, make_job, run_processes

pytestmark = pytest.mark.long

STEPS = 50
SETTINGS = {
    "train__steps": STEPS,
    "checkpoint__every_steps": 1,
    "checkpoint__keep": STEPS,
}


def _train_stopping_at(worker: Any, jobs: list[Any]) -> list[int]:
    """Train a job after the other in this process."""
    from scaletrain.train.loop import train

    return [train(job, worker, should_stop=lambda: False) for job in jobs]


def jobs_of(prepared: Prepared, name: str, stops: list[int]) -> list[Any]:
    """One attempt for each stop."""
    run = RunLayout(prepared.root, name)
    jobs = [
        make_job(prepared, name, workers=1, attempt=attempts.claim(run), debug__stop_after=stop, **SETTINGS)
        for stop in stops
    ]
    storage.write_text(run.config, dump_config(jobs[0].config))
    return jobs


def test_a_run_that_stops_after_every_step(prepared: Prepared) -> None:
    """Fifty attempts of one step, each asked for twice, over an edge of an epoch: every step's state is the same."""
    rows = load_index(prepared.dataset_url).splits["train"].rows
    assert rows < STEPS * 12, "the run crosses the edge of an epoch"
    run_processes(1, _train_stopping_at, jobs_of(prepared, "never-stopped", [STEPS]))
    stops = [step for step in range(1, STEPS + 1) for _ in range(2)]
    assert run_processes(1, _train_step_by_step, prepared, stops) == [stops]
    found, expected = (RunLayout(prepared.root, name) for name in ("stopped-everywhere", "never-stopped"))
    for step in range(1, STEPS + 1):
        assert_equal_bits(found, expected, step=step)
    assert_recovered(prepared, found.name, expected, step=STEPS)


def _train_step_by_step(worker: Any, prepared: Prepared, stops: list[int]) -> list[int]:
    """Claim each attempt as it begins, or it would have been taken over already."""
    return [
        step for stop in stops for step in _train_stopping_at(worker, jobs_of(prepared, "stopped-everywhere", [stop]))
    ]
