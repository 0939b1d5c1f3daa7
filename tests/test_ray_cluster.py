"""ray_cluster: starting Ray on this machine, with a real one whose first start is too slow."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Python runs this at each start: Ray's agent waits, as long as the file that says how often is not used up.
_SLOW_AGENT = """
import pathlib, sys, time
left = pathlib.Path({left!r})
if any(argument.endswith("dashboard/agent.py") for argument in sys.orig_argv):
    number = int(left.read_text())
    left.write_text(str(number - 1))
    if number > 0:
        time.sleep(60)
"""
_PROGRAM = """
import ray
from scaletrain.log import setup_logging
from scaletrain.ray_cluster import connected

setup_logging()
with connected(num_cpus=1):
    print("CPUs:", ray.cluster_resources()["CPU"])
"""


def start(folder: Path, *, slow_starts: int) -> subprocess.CompletedProcess[str]:
    left = folder / "left"
    left.write_text(str(slow_starts))
    (folder / "sitecustomize.py").write_text(_SLOW_AGENT.format(left=str(left)))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *filter(None, sys.path)])}
    return subprocess.run(
        [sys.executable, "-c", _PROGRAM], env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.soak
def test_a_start_that_was_too_slow_is_tried_once_more(tmp_path: Path) -> None:
    """Ray gives its agent 15 s; the second one comes in time."""
    ended = start(tmp_path, slow_starts=1)
    assert ended.returncode == 0, ended.stderr
    assert "CPUs: 1.0" in ended.stdout
    assert "trying once more" in ended.stderr


@pytest.mark.soak
def test_a_machine_that_is_always_too_slow_is_told_so(tmp_path: Path) -> None:
    ended = start(tmp_path, slow_starts=9)
    assert "ClusterError: Ray did not start on this machine" in ended.stderr
