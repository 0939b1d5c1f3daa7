"""phases: every attempt tells how it came to its first step."""

from commands import wait_for
from scaletrain import storage
from scaletrain.layout import RunLayout
from scaletrain.train.phases import read_phases
from workers import Prepared, train


def test_an_attempt_tells_when_each_phase_was_over(prepared: Prepared) -> None:
    """Rank 0's times stand in the run's folder, in order, from the start of its process to its first step."""
    run = RunLayout(prepared.root, "phases")
    train(prepared, "phases", workers=2, train__steps=3)
    wait_for(lambda: storage.exists(run.attempt_file(1, "phases")), "the file")
    times = read_phases(run, 1)
    assert list(times) == ["process", "found", "engine", "restored", "ready", "first_batch", "first_step"]
    assert list(times.values()) == sorted(times.values())
