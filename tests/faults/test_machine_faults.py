"""A machine whose clock is wrong, and one whose disk does not keep what it was given."""

import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from attempts_on_processes import Attempt, finish
from invariants import assert_recovered

from scaletrain import checkpoint
from scaletrain.errors import StorageError
from scaletrain.layout import RunLayout
from workers import Prepared

pytestmark = pytest.mark.long

HOUR_S = 3600


@pytest.fixture(scope="module")
def false_libc(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A library that answers in libc's place, built for this machine."""
    built = tmp_path_factory.mktemp("false-libc") / "false_libc.so"
    source = Path(__file__).with_name("false_libc.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(built), str(source), "-ldl"], check=True)
    return str(built)


@pytest.mark.parametrize(("rank", "offset_s"), [(0, HOUR_S), (1, -HOUR_S)])
def test_a_clock_that_is_an_hour_off_changes_nothing(
    prepared: Prepared, undisturbed: RunLayout, false_libc: str, rank: int, offset_s: int
) -> None:
    """One worker and its persister live in another hour; who goes on afterwards does not."""
    name = f"another-hour-{rank}"
    wrong = {rank: {"LD_PRELOAD": false_libc, "CLOCK_OFFSET_S": str(offset_s)}}
    attempt = Attempt(prepared, name, environments=wrong, spawned=(rank,), debug__stop_after=6)
    assert [each.error for each in attempt.wait()] == [None, None]
    created = datetime.fromisoformat(checkpoint.load_manifest(attempt.run.checkpoint(6)).created)
    assert ((created - datetime.now(UTC)).total_seconds() > HOUR_S / 2) == (rank == 0)
    finish(prepared, name)
    assert_recovered(prepared, name, undisturbed)


# A save to a local folder makes several calls: for the file, its folder, the manifest, and so on.
@pytest.mark.parametrize("number", [1, 3, 6, 9])
def test_an_fsync_that_fails_ends_the_run(
    prepared: Prepared, undisturbed: RunLayout, false_libc: str, number: int
) -> None:
    """The disk refuses in a save: the run ends with the file's name and the reason, and goes on when it is well."""
    name = f"fsync-{number}"
    wrong = {0: {"LD_PRELOAD": false_libc, "FSYNC_FAILS_AT": str(number)}}
    for ended in Attempt(prepared, name, environments=wrong).wait():
        assert isinstance(ended.error, StorageError)
        assert f"{os.sep}{name}{os.sep}checkpoints" in str(ended.error) and "Input/output error" in str(ended.error)
    finish(prepared, name)
    assert_recovered(prepared, name, undisturbed)
