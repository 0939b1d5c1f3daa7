"""sweep.progress: how far the trials are, told now and then."""

import logging

import pytest
from sweep_configs import sweep_config, trial

from scaletrain.config_sweep import SweepSection
from scaletrain.sweep.progress import Progress, progress_told

SWEEP = "{trials: 4, metric: loss, parameters: {train.learning_rate: {log: [1.0e-5, 1.0e-2]}}}"


def section_of(sweep: str = SWEEP) -> SweepSection:
    section = sweep_config(sweep).sweep
    assert section is not None
    return section


def test_it_says_what_is_over_where_the_others_are_and_how_long_it_takes() -> None:
    """Two steps of three are left to do, at the pace of those that were done."""
    trials = {
        0: trial(0, {80: 2.0}, state="finished", seconds=160.0),
        1: trial(1, {20: 3.25}, seconds=40.0),
        2: trial(2, {}),
    }
    assert progress_told(section_of(), trials, at_once=2) == (
        "1 of 4 trials are over; trial 1 at step 20 of 80, loss 3.25; trial 2 starts; at most 3 min 40 s left"
    )


def test_before_a_step_no_time_is_told() -> None:
    """Nothing is known of it; of many trials the first are told."""
    trials = {number: trial(number, {}) for number in range(6)}
    told = progress_told(section_of(), trials, at_once=6)
    assert told.endswith("trial 3 starts; 2 more at work")


def test_a_line_comes_every_half_minute_where_there_is_anything_new(caplog: pytest.LogCaptureFixture) -> None:
    """Neither at once, nor again and again for the same."""
    caplog.set_level(logging.INFO, logger="scaletrain")
    now = [0.0]
    progress = Progress(section_of(), at_once=2, clock=lambda: now[0])
    for at, step in ((1, 10), (31, 10), (62, 10), (63, 20), (80, 20), (95, 30)):
        now[0] = float(at)
        progress.tell({0: trial(0, {step: 3.0})})
    told = [line.partition("trial 0 at ")[2] for line in caplog.messages]
    assert told == [f"step {step} of 80, loss 3" for step in (10, 20, 30)]
