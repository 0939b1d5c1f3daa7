"""The number of workers changes through kills, and the losses do not."""

import pytest
from changing_workers import STEPS, draw, train_through_kills
from invariants import assert_recovered

from scaletrain.layout import RunLayout
from scaletrain.verify import verify_run
from workers import Prepared

pytestmark = pytest.mark.long


def test_losses_through_two_one_two_and_three_workers(prepared: Prepared) -> None:
    """Every step's loss is that of the undisturbed run to 1e-5, and each step's samples are proved."""
    losses = train_through_kills(prepared)
    assert losses.largest_difference < 1e-5
    assert_recovered(prepared, "changing", None, step=STEPS)
    sizes = [size for size, _ in verify_run(RunLayout(prepared.root, "changing")).world_sizes]
    # Where two workers died before their first commit was done, their steps were done again by one.
    assert sizes in ([2, 1, 2, 3], [1, 2, 3])
    assert draw(losses).count("<circle") == STEPS + 3
