"""A machine dies at any moment of a save, on any rank: the last commit is there, and the end is the same bits."""

import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from attempts_on_processes import KILL, Attempt, finish
from invariants import assert_recovered

from scaletrain.layout import RunLayout
from workers import Prepared

pytestmark = pytest.mark.long


def _die_at_write(rank: int, when: str, number: int, worker: Any, job: Any) -> None:
    if worker.rank == rank:
        sys.path.insert(0, str(Path(__file__).parent / "killed_at_a_write"))
        os.environ["KILL_AT_WRITE"] = f"{when} {number}"


# Rank 0 makes five writes a save (file, manifest, the hint as text and as bytes, rank 1's record removed) and what
# pruning removes; rank 1 two. Before a write lies in the bucket what lay there after the one before.
_MOMENTS = [(rank, 1, "before") for rank in (0, 1)]
_MOMENTS += [(0, number, "after") for number in range(1, 11)] + [(1, number, "after") for number in range(1, 6)]


@pytest.mark.parametrize(("rank", "number", "when"), _MOMENTS)
def test_a_machine_that_dies_at_a_write_of_a_save(
    prepared: Prepared, undisturbed: RunLayout, rank: int, number: int, when: str
) -> None:
    """What was committed before it died is gone on from, at exactly that step."""
    name = f"killed-{rank}-{number}-{when}"
    ended = Attempt(prepared, name, arm=partial(_die_at_write, rank, when, number)).wait()
    assert ended[rank].exit_code == -KILL
    finish(prepared, name)
    assert_recovered(prepared, name, undisturbed)
