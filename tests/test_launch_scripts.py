"""launch/aws.sh and launch/gcp.sh: where they end early, they say what may still cost money and how to end it."""

import shutil
import subprocess
from pathlib import Path

import pytest

LAUNCH = Path(__file__).parents[1] / "launch"
WARNING = "The head may still run and cost money."
# Stands for both commands, notes how it was called, and fails where FAIL says so.
PROGRAM = """#!/bin/sh
echo "$(basename "$0") $*" >>calls
case "$*" in *"$FAIL"*) exit 7 ;; esac
"""


def launch(folder: Path, cloud: str, *, fail: str) -> "subprocess.CompletedProcess[str]":
    """Run a script in a folder whose commands do nothing, until one that has `fail` in its line."""
    (folder / "launch").mkdir()
    (folder / ".venv/bin").mkdir(parents=True)
    script = Path(shutil.copy(LAUNCH / f"{cloud}.sh", folder / "launch"))
    for name in ("scaletrain", "ray"):
        (folder / ".venv/bin" / name).write_text(PROGRAM)
        (folder / ".venv/bin" / name).chmod(0o755)
    environment = {"PATH": "/usr/bin:/bin", "FAIL": fail}
    return subprocess.run(
        [script, "run.yaml", "us-central1"], env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("cloud", ["aws", "gcp"])
@pytest.mark.parametrize("step", ["up -y", "doctor", "train run.yaml", "down"])
def test_a_step_that_fails_once_machines_may_run_says_how_to_end_them(tmp_path: Path, cloud: str, step: str) -> None:
    """With the exit code of the step."""
    done = launch(tmp_path, cloud, fail=step)
    assert done.returncode == 7 and WARNING in done.stderr
    assert f"scaletrain down cluster/{cloud}.yaml" in done.stderr and "the same command" in done.stderr


@pytest.mark.parametrize("cloud", ["aws", "gcp"])
@pytest.mark.parametrize(("fail", "exit_code"), [("cluster check", 7), ("nothing at all", 0)])
def test_no_machine_is_spoken_of_where_none_runs(tmp_path: Path, cloud: str, fail: str, exit_code: int) -> None:
    """Before they come up, and when they are down."""
    done = launch(tmp_path, cloud, fail=fail)
    assert (done.returncode, done.stderr) == (exit_code, "")
    last = (tmp_path / "calls").read_text().splitlines()[-1]
    assert last.startswith("scaletrain cluster check" if exit_code else "scaletrain down")
