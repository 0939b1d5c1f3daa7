"""timeline: the closed form of an undisturbed attempt is what its steps, one by one, come to."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaletrain import policy
from scaletrain.simulate.timeline import Timeline

LINES = st.builds(
    Timeline,
    start_s=st.floats(0, 1e6),
    first_step=st.integers(0, 200),
    every_steps=st.integers(1, 40),
    step_s=st.floats(0.01, 30),
    stall_s=st.floats(0, 20),
    upload_s=st.floats(0, 500),
)


def one_by_one(line: Timeline, count: int) -> tuple[dict[int, float], dict[int, float]]:
    """When each step is done and when each saved one is committed, made step by step as the training loop does."""
    clock_s, free_s = line.start_s, -math.inf
    done: dict[int, float] = {line.first_step: clock_s}
    commits: dict[int, float] = {line.first_step: -math.inf}
    for step in range(line.first_step + 1, line.first_step + count + 1):
        clock_s += line.step_s
        done[step] = clock_s
        if policy.save_is_due(step, every_steps=line.every_steps, ending=False):
            clock_s = max(clock_s, free_s) + line.stall_s
            free_s = commits[step] = clock_s + line.upload_s
    return done, commits


@settings(max_examples=200, deadline=None)
@given(LINES, st.data())
def test_every_time_is_that_of_step_by_step(line: Timeline, data: st.DataObject) -> None:
    """The end of each step, and at any moment the newest step and the newest commit."""
    done, commits = one_by_one(line, 120)
    step = data.draw(st.sampled_from(sorted(done)))
    assert line.end_of_step(step) == pytest.approx(done[step], rel=1e-9)
    now_s = line.start_s + data.draw(st.floats(0, 1)) * (done[line.first_step + 119] - line.start_s)
    margin_s = 1e-6 * (1 + now_s)
    sure = [each for each, time_s in done.items() if time_s <= now_s - margin_s]
    maybe = [each for each, time_s in done.items() if time_s <= now_s + margin_s]
    assert max(sure, default=line.first_step) <= line.steps_at(now_s) <= max(maybe)
    sure = [each for each, time_s in commits.items() if time_s <= now_s - margin_s]
    maybe = [each for each, time_s in commits.items() if time_s <= now_s + margin_s]
    assert max(sure) <= line.committed_at(now_s) <= max(maybe)


def test_the_save_before_a_step_is_the_one_that_may_be_under_way() -> None:
    """A closing save of that step itself does not count."""
    line = Timeline(start_s=100, first_step=0, every_steps=10, step_s=1, stall_s=2, upload_s=5)
    assert line.under_way_until(10) == (-math.inf, -math.inf)
    assert line.under_way_until(11) == (112, 117)
    assert line.committed_at(117) == 10
    assert line.committed_at(117, before_step=10) == 0
