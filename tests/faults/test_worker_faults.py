"""Workers that are killed or frozen in the middle of a step."""

import pytest
from attempts_on_processes import KILL, STOP, Attempt, finish, signal_in_step
from invariants import assert_recovered

from scaletrain.layout import RunLayout
from workers import Prepared

pytestmark = pytest.mark.long


@pytest.mark.parametrize("rank", [0, 1])
def test_a_worker_that_is_killed_in_a_step_and_again(prepared: Prepared, undisturbed: RunLayout, rank: int) -> None:
    """The other one ends at once and says what happened; twice the run goes on from its newest commit."""
    name = f"killed-twice-{rank}"
    for step in (5, 8):
        ended = Attempt(prepared, name, arm=signal_in_step(step, ranks=(rank,), number=KILL)).wait()
        assert ended[rank].exit_code == -KILL
        assert f"step {step}: worker {1 - rank} of 2 lost another one" in str(ended[1 - rank].error)
    finish(prepared, name)
    assert_recovered(prepared, name, undisturbed)


def test_all_workers_killed_in_a_step(prepared: Prepared, undisturbed: RunLayout) -> None:
    """A machine with all workers on it goes; nobody is left to say anything."""
    ended = Attempt(prepared, "all-killed", arm=signal_in_step(7, ranks=(0, 1), number=KILL)).wait()
    assert -KILL in [each.exit_code for each in ended]
    finish(prepared, "all-killed")
    assert_recovered(prepared, "all-killed", undisturbed)


def test_a_worker_that_is_frozen_for_a_while_goes_on(prepared: Prepared, undisturbed: RunLayout) -> None:
    """The others wait for it; nothing is lost or done again."""
    attempt = Attempt(prepared, "frozen", arm=signal_in_step(5, ranks=(1,), number=STOP), train__timeout_s=60)
    attempt.freeze_for(5, rank=1)
    assert [each.step for each in attempt.wait()] == [12, 12]
    assert_recovered(prepared, "frozen", undisturbed)


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_a_worker_that_is_frozen_for_ever(prepared: Prepared, undisturbed: RunLayout, stage: int) -> None:
    """The others end after train.timeout_s, with what happened and what to do, at every ZeRO stage."""
    name = f"frozen-for-ever-{stage}"
    armed = signal_in_step(5, ranks=(1,), number=STOP)
    attempt = Attempt(prepared, name, arm=armed, train__timeout_s=4, zero__stage=stage)
    message = str(attempt.wait_for_rank(0).error)
    assert "step 5: worker 0 of 2 heard nothing of another one for 4 s (train.timeout_s)" in message
    assert "raise train.timeout_s" in message
    attempt.signal(KILL)
    attempt.wait()
    finish(prepared, name, zero__stage=stage)
    assert_recovered(prepared, name, undisturbed if stage == 2 else None)
