"""setup.sh: run as it is, on a machine made of namespaces; it only looks where all is there, and else fails loudly."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from cluster_projects import ROOT, make_project

# A machine's own /opt, /etc/profile.d, /dev/shm and PCI bus; the rest is this machine's.
MACHINE = """
set -e
mount --make-rprivate /
for place in /opt /etc/profile.d; do mount -t tmpfs tmpfs $place; done
mount -t tmpfs -o size=1m,mode=1777 tmpfs /dev/shm
[ ! -d /sys/bus/pci/devices ] || mount -t tmpfs tmpfs /sys/bus/pci/devices
mkdir -p /opt/scaletrain
ln -s "$VENV" /opt/scaletrain/venv
"""
GPU = """
[ -d /sys/bus/pci/devices ] || exit 77
mkdir /sys/bus/pci/devices/0000:00:1e.0
echo 0x10de >/sys/bus/pci/devices/0000:00:1e.0/vendor
"""


def can_make_machines() -> bool:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode == 0


pytestmark = pytest.mark.skipif(not can_make_machines(), reason="needs root and mount namespaces")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The files that Ray brings to ~/scaletrain, and the token."""
    home = tmp_path / "home"
    home.mkdir()
    make_project(tmp_path)
    folder = home / "scaletrain"
    folder.mkdir()
    for name in ("pyproject.toml", "constraints.txt", "cluster/setup.sh"):
        shutil.copy(tmp_path / name, folder / Path(name).name)
    (home / ".ray").mkdir()
    (home / ".ray/auth_token").write_text("t" * 64)
    return folder


def set_up(project: Path, *, before: str = "", after: str = "", times: int = 1) -> "subprocess.CompletedProcess[str]":
    script = f"{MACHINE}\n{before}\n" + 'bash "$HOME/scaletrain/setup.sh" aws\n' * times + after
    environment = {"HOME": str(project.parent), "PATH": f"{project.parent}/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    environment["VENV"] = str(Path(sys.executable).parents[1])
    command = ["unshare", "--mount", "bash", "-c", script]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)


def test_a_machine_that_has_everything_is_ready_however_often_it_is_asked(project: Path) -> None:
    """Ray runs it twice on workers; nothing is installed, and shells find the cluster's ray."""
    done = set_up(project, times=2, after="cat /etc/profile.d/scaletrain.sh; df -k --output=size /dev/shm | tail -n 1")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.split("\n")
    assert lines[:2] == ["scaletrain set-up: ready"] * 2
    assert lines[2] == "export PATH=/opt/scaletrain/venv/bin:$PATH RAY_AUTH_MODE=token"
    assert int(lines[3]) > 1024, "/dev/shm was a megabyte"
    assert stat.S_IMODE((project.parent / ".ray/auth_token").stat().st_mode) == 0o600


def test_a_prepared_image_is_known_by_its_stamp(project: Path) -> None:
    """Not even a package is looked at: a venv with nothing but scaletrain in it will do."""
    stamp = (
        "rm /opt/scaletrain/venv; mkdir -p /opt/scaletrain/venv/bin; ln -s /bin/true /opt/scaletrain/venv/bin/python\n"
        "cd ~/scaletrain\n"
        'echo "$(cat pyproject.toml constraints.txt | sha256sum | cut -c1-64) aws" >/opt/scaletrain/installed'
    )
    done = set_up(project, before=stamp)
    assert (done.returncode, done.stdout.strip()) == (0, "scaletrain set-up: ready"), done.stderr


@pytest.mark.parametrize(
    ("before", "cause"),
    [
        (
            "rm ~/.ray/auth_token",
            "looking for the token: no ~/.ray/auth_token; run scaletrain cluster init, then ray up again",
        ),
        (
            GPU + "mkdir ~/bin; printf '#!/bin/sh\\necho 535.183.01\\n' >~/bin/nvidia-smi; chmod +x ~/bin/nvidia-smi",
            "checking the NVIDIA driver: driver 535.183.01, torch needs 580; use a newer image",
        ),
    ],
    ids=["no token", "old driver"],
)
def test_what_fails_is_named_in_one_line(project: Path, before: str, cause: str) -> None:
    """The last line of a long log says the step and the cause."""
    done = set_up(project, before=before)
    if done.returncode == 77:
        pytest.skip("this machine has no PCI bus to put a GPU on")
    assert done.returncode != 0
    assert done.stderr.strip().splitlines()[-1] == f"scaletrain set-up FAILED (exit 1) while: {cause}"


def test_a_gpu_with_a_new_driver_passes(project: Path) -> None:
    """As the images of 2026 have it."""
    smi = "mkdir ~/bin; printf '#!/bin/sh\\necho 595.91.07\\n' >~/bin/nvidia-smi; chmod +x ~/bin/nvidia-smi"
    done = set_up(project, before=GPU + smi)
    if done.returncode == 77:
        pytest.skip("this machine has no PCI bus to put a GPU on")
    assert done.returncode == 0, done.stderr


def test_the_script_is_short_strict_and_parses() -> None:
    """Like the other scripts."""
    text = (ROOT / "cluster/setup.sh").read_text()
    assert "set -euo pipefail" in text and len(text.splitlines()) < 150
    subprocess.run(["bash", "-n", str(ROOT / "cluster/setup.sh")], check=True)
