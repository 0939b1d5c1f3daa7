"""worker_watch.sh: run as it is, in a PID namespace of its own, beside a real process that is named raylet."""

import subprocess
from pathlib import Path

import pytest
from test_setup import can_make_machines

from cluster_projects import ROOT

WATCH = ROOT / "cluster/worker_watch.sh"
pytestmark = pytest.mark.skipif(not can_make_machines(), reason="needs root and namespaces")


def run(script: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run a script that sees no process but its own; `watch` ends the machine by the word "ended"."""
    given = f'cp "$(command -v sleep)" {folder}/raylet; watch() {{ bash {WATCH} watch 1 0.2 echo ended; }}; {script}'
    command = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "bash", "-c", given]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_machine_that_ray_has_left_is_ended(tmp_path: Path) -> None:
    """Not before its raylet is gone."""
    done = run(f"{tmp_path}/raylet 3 && echo gone & watch", tmp_path)
    lines = done.stdout.splitlines()
    assert lines == ["gone", "no raylet has run here for 1 s; ending this machine", "ended"], done.stderr


def test_a_machine_with_a_raylet_stays(tmp_path: Path) -> None:
    """However long it works."""
    done = run(f"{tmp_path}/raylet 60 & watch & sleep 4", tmp_path)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_where_there_is_no_systemd_nothing_is_installed(tmp_path: Path) -> None:
    """As on an emulated machine."""
    done = run(f"mount -t tmpfs tmpfs /run; bash {WATCH} install", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(("name", "started"), [("head", False), ("worker", True)])
def test_it_is_installed_on_workers_alone(name: str, started: bool, tmp_path: Path) -> None:
    """The same command runs on the head, which is known by what Ray brings there; nothing replaces a head."""
    for tool, line in (("systemctl", "exit 1"), ("systemd-run", 'echo "$*"')):
        (tmp_path / tool).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / tool).chmod(0o755)
    if name == "head":
        (tmp_path / "ray_bootstrap_config.yaml").touch()
    booted = "mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system"
    done = run(f"{booted}; HOME={tmp_path} PATH={tmp_path}:$PATH bash {WATCH} install", tmp_path)
    assert (done.returncode, "--unit=scaletrain-worker-watch" in done.stdout) == (0, started), done.stderr
