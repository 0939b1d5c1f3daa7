"""Sweeps through Ray Tune and Ray Train, as a user runs them."""

from pathlib import Path

import pytest

from commands import kill_everything, run, start, wait_for, write_tiny
from scaletrain import checkpoint, storage
from scaletrain.attempts import read_attempts
from scaletrain.config_file import load_config
from scaletrain.layout import RunLayout
from scaletrain.sweep.records import SweepLayout, TrialRecord, read_trials
from scaletrain.verify import verify_run

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

FIELDS = "sweep={parameters: {train.learning_rate: {grid: [2.0e-3, 1.0e-3, 1.0e-7]}}, metric: loss, at_once: 2}"
POPULATION = (
    "sweep={parameters: {train.learning_rate: {choice: [1.0e-2, 2.0e-3, 1.0e-7]}}, metric: loss, trials: 2, "
    "at_once: 2, every_steps: 4, scheduler: {kind: pbt, every_steps: 16, share: 0.5}}"
)


def trials_of(layout: SweepLayout) -> dict[int, TrialRecord]:
    return read_trials(layout) if storage.exists(layout.config) else {}


def test_a_sweep_whose_processes_are_killed_goes_on(tmp_path: Path) -> None:
    """Trials that were over are not run again, the others go on, and each is a run that verifies."""
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

    told = run(*arguments)
    trials = trials_of(layout)
    assert [each.state for each in trials.values()] == ["finished"] * 3
    for number, known in over.items():
        assert read_attempts(RunLayout(str(tmp_path), trials[number].run)) == known
    for each in trials.values():
        verdict = verify_run(RunLayout(str(tmp_path), each.run))
        assert (verdict.problems, verdict.steps) == ((), 60)
    assert trials[0].value is not None and trials[2].value is not None and trials[0].value < trials[2].value
    assert load_config(layout.best).train.learning_rate in (2e-3, 1e-3)
    assert "tiny" in run("sweep", "show", "tiny", "--root", str(tmp_path)) or "finished" in told


def test_a_population_goes_on_with_exact_clones(tmp_path: Path) -> None:
    """The worse of two trials becomes the better one's clone: the same bytes by hash, and a ledger that verifies."""
    config, layout = write_tiny(tmp_path, root=str(tmp_path)), SweepLayout(str(tmp_path), "tiny")
    run("sweep", config, "scaling.workers=1", "train.steps=48", "checkpoint.keep=100", POPULATION)
    trials = trials_of(layout)
    clones = [one for each in trials.values() for one in each.stretches[1:]]
    assert clones
    for clone in clones:
        donor, target = RunLayout(str(tmp_path), clone.donor), RunLayout(str(tmp_path), clone.run)
        given, taken = (checkpoint.verify(each.checkpoint(clone.step)) for each in (donor, target))
        assert given == taken and given.manifest_hash == clone.manifest_hash
        assert verify_run(target).problems == ()
    assert [each.state for each in trials.values()] == ["finished"] * 2
