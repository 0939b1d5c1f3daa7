"""Sweeps through Ray Tune and Ray Train, as a user runs them."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from commands import kill_everything, run, start, wait_for, write_tiny
from scaletrain import checkpoint, storage
from scaletrain.attempts import read_attempts
from scaletrain.config import Config
from scaletrain.config_file import load_config
from scaletrain.errors import Interrupted
from scaletrain.layout import RunLayout
from scaletrain.sweep import running
from scaletrain.sweep.records import SweepLayout, TrialRecord, read_trials, run_name
from scaletrain.sweep.space import Values
from scaletrain.verify import verify_run

pytestmark = pytest.mark.timeout(600)

FIELDS = (
    "sweep={parameters: {train.learning_rate: {grid: [2.0e-3, 1.0e-3, 1.0e-7]}}, metric: loss, at_once: 2, "
    "every_steps: 4, scheduler: {kind: asha, grace_steps: 20}}"
)
POPULATION = (
    "sweep={parameters: {train.learning_rate: {choice: [1.0e-2, 2.0e-3, 1.0e-7]}}, metric: loss, trials: 2, "
    "at_once: 2, every_steps: 10, scheduler: {kind: pbt, every_steps: 100, share: 0.5}}"
)


def trials_of(layout: SweepLayout) -> dict[int, TrialRecord]:
    return read_trials(layout) if storage.exists(layout.config) else {}


@pytest.mark.long
def test_a_sweep_whose_processes_are_killed_goes_on(tmp_path: Path) -> None:
    """Trials that were over are not run again, the others go on or are stopped by ASHA, and each run verifies."""
    config, layout = write_tiny(tmp_path, root=str(tmp_path)), SweepLayout(str(tmp_path), "tiny")
    arguments = ("sweep", config, "scaling.workers=1", "train.steps=60", FIELDS)
    killed = start(*arguments)
    wait_for(lambda: any(each.is_over for each in trials_of(layout).values()), "a trial that is over", limit_s=300)
    kill_everything(killed.pid)
    over = {
        number: read_attempts(RunLayout(str(tmp_path), each.run))
        for number, each in trials_of(layout).items()
        if each.is_over
    }
    assert over and len(over) < 3

    run(*arguments)
    trials = trials_of(layout)
    assert trials[2].state == "stopped" and trials[2].reason.startswith("at step 20 it was number 3 of 3")
    assert "finished" in [each.state for each in trials.values()]
    for number, known in over.items():
        assert read_attempts(RunLayout(str(tmp_path), trials[number].run)) == known
    for each in trials.values():
        verdict = verify_run(RunLayout(str(tmp_path), each.run))
        assert verdict.problems == ()
        assert verdict.steps == 60 if each.state == "finished" else 20 <= verdict.steps < 60
    assert trials[0].value is not None and trials[2].value is not None and trials[0].value < trials[2].value
    assert load_config(layout.best).train.learning_rate in (2e-3, 1e-3)
    assert "stopped" in run("sweep", "show", "tiny", "--root", str(tmp_path))


@pytest.mark.long
def test_a_population_goes_on_with_exact_clones(tmp_path: Path) -> None:
    """The worse of two trials becomes the better one's clone: the same bytes by hash, and a ledger that verifies."""
    config, layout = write_tiny(tmp_path, root=str(tmp_path)), SweepLayout(str(tmp_path), "tiny")
    # So many steps that neither is over before the other has come to its first comparison.
    run("sweep", config, "scaling.workers=1", "train.steps=300", "checkpoint={every_steps: 25, keep: 20}", POPULATION)
    trials = trials_of(layout)
    clones = [one for each in trials.values() for one in each.stretches[1:]]
    assert clones
    for clone in clones:
        donor, target = RunLayout(str(tmp_path), clone.donor), RunLayout(str(tmp_path), clone.run)
        given, taken = (checkpoint.verify(each.checkpoint(clone.step)) for each in (donor, target))
        assert given == taken and given.manifest_hash == clone.manifest_hash
        assert verify_run(target).problems == ()
    assert [each.state for each in trials.values()] == ["finished"] * 2


@pytest.mark.soak
def test_a_trial_gives_a_worker_to_another_and_takes_it_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two workers the first trial has both while the second one is prepared, and again after that is over."""
    config, layout = sharing_config(tmp_path), SweepLayout(str(tmp_path), "tiny")
    first_has_both = threading.Event()
    count_steps = running._Preparation.total_steps

    def total_steps(preparation: running._Preparation, values: Values) -> int:
        assert values["train.steps"] != 40 or first_has_both.wait(300)
        return count_steps(preparation, values)

    def workers() -> list[int]:
        return [each.facts.world_size for each in trials_of(layout).values() if each.state == "running"]

    monkeypatch.setattr(running._Preparation, "total_steps", total_steps)
    with two_workers_fit(), ThreadPoolExecutor(1) as pool:
        ending = pool.submit(running.run_sweep, config)
        try:
            wait_for(lambda: workers() == [2], "the first trial has both workers", limit_s=300)
            first_has_both.set()
            wait_for(lambda: workers() == [1, 1], "each trial has one", limit_s=300)
            wait_for(lambda: workers() == [2], "the first trial has both again", limit_s=300)
        finally:
            first_has_both.set()
            storage.write_bytes(layout.stop_request(1), b"")
        with pytest.raises(Interrupted):
            ending.result(300)
    first, second = (verify_run(RunLayout(str(tmp_path), run_name("tiny", number))) for number in (0, 1))
    assert (first.problems, first.done_again, second.problems, second.done_again) == ((), 0, (), 0)
    assert [size for size, _ in first.world_sizes][-3:] == [2, 1, 2]
    assert second.world_sizes == ((1, 40),)


def sharing_config(folder: Path) -> Config:
    """A sweep of a long trial and a short one, either of which may have one worker or two."""
    overrides = (
        "scaling={workers: {min: 1, max: 2}, cpus_per_worker: 2}",
        "sweep={parameters: {train.steps: {grid: [50000, 40]}}, metric: loss, every_steps: 20, at_once: 2}",
        "checkpoint.every_steps=25000",  # so that whatever is not saved on a change would be done again
    )
    return load_config(write_tiny(folder, root=str(folder)), overrides)


@contextmanager
def two_workers_fit() -> Iterator[None]:
    """This machine as a cluster of one with CPUs for two workers, and one for reading."""
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        ray.init(address="local", num_cpus=5, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        try:
            yield
        finally:
            ray.shutdown()
