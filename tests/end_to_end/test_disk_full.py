"""A disk that fills up in the middle: one clear error, nothing committed is lost, and with room it goes on."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from commands import SCALETRAIN, write_tiny
from scaletrain import checkpoint
from scaletrain.data.shards import load_index
from scaletrain.layout import RunLayout

# A file system of its own, which nothing outside this shell sees. `fill` leaves it $1 kB, and then its caller has room.
SCRIPT = """
set -u
fill() { mount -o remount,size=$(($(du -sk "$disk" | cut -f1) + $1))k "$disk"; }
scaletrain=$0 disk=$1 config=$2 kept=$3
mount -t tmpfs -o size=64m tmpfs "$disk"
"""
PREPARE = """
fill 40
"$scaletrain" prepare "$config" --local; echo "ended with $?"
mount -o remount,size=64m "$disk"
"$scaletrain" prepare "$config" --local || exit 90
cp -r "$disk/." "$kept"
"""
TRAIN = """
"$scaletrain" prepare "$config" --local || exit 90
fill 1200
"$scaletrain" train "$config" --local; echo "ended with $?"
mount -o remount,size=64m "$disk"
"$scaletrain" train "$config" --local || exit 91
cp -r "$disk/." "$kept"
"""

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="mounting a small disk needs root and unshare"
)


def run_on_small_disk(script: str, folder: Path) -> tuple[str, Path]:
    """Run a script on a small disk; returns the one error line that it must give, and a copy of the disk at its end."""
    disk, kept = folder / "disk", folder / "kept"
    disk.mkdir()
    kept.mkdir()
    config = write_tiny(folder, root=str(disk))
    command = ["unshare", "--mount", "bash", "-c", SCRIPT + script, SCALETRAIN, str(disk), config, str(kept)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ended with 1" in done.stdout
    assert "Traceback" not in done.stderr
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert str(disk) in error
    assert "free some space" in error
    return done.stderr, kept


def test_training_on_a_full_disk_goes_on_when_there_is_room(tmp_path: Path) -> None:
    """What was committed before the error is where the next command goes on from, and no half file stays behind."""
    told, kept = run_on_small_disk(TRAIN, tmp_path)
    assert "going on from step" in told
    assert checkpoint.verify(RunLayout(str(kept), "tiny").checkpoint(16)).attempt == 2
    assert list(kept.rglob("*.partial")) == []


def test_preparing_on_a_full_disk_is_done_anew_when_there_is_room(tmp_path: Path) -> None:
    """Half a dataset is never taken for a whole one."""
    _, kept = run_on_small_disk(PREPARE, tmp_path)
    (folder,) = (kept / "data").iterdir()
    index = load_index(str(folder))
    assert sum(split.rows for split in index.splits.values()) > 0
    assert all((folder / shard.name).exists() for split in index.splits.values() for shard in split.shards)
    assert list(kept.rglob("*.partial")) == []
