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
# A venv of the machine's own, in the place of the one that runs this: nothing may be installed into that.
STAMPED = """
rm /opt/scaletrain/venv; mkdir -p /opt/scaletrain/venv/bin ~/bin; ln -s /bin/true /opt/scaletrain/venv/bin/python
sum=$(cd ~/scaletrain; cat pyproject.toml constraints.txt | sha256sum | cut -c1-64)
echo "$sum {extras}" >/opt/scaletrain/installed
"""
GPU = """
[ -d /sys/bus/pci/devices ] || exit 77
mkdir /sys/bus/pci/devices/0000:00:1e.0
echo 0x10de >/sys/bus/pci/devices/0000:00:1e.0/vendor
printf '#!/bin/sh\\necho {driver}, {capability}\\n' >~/bin/nvidia-smi; chmod +x ~/bin/nvidia-smi
"""
# A pip that only notes what it is to install, beside a package manager that has everything.
NOTING = """
printf '#!/bin/sh\\n[ "$1" != - ] || exit 1\\necho "$*" >>~/asked\\n' >~/bin/python
printf '#!/bin/sh\\n' >~/bin/apt-get
chmod +x ~/bin/*; ln -sf ~/bin/python /opt/scaletrain/venv/bin/python; ln -s python /opt/scaletrain/venv/bin/pip
"""


def can_make_machines() -> bool:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode == 0


def gpu_machine(driver: str, capability: str, *, extras: str = "aws,gpu") -> str:
    """The commands that give a prepared machine a GPU."""
    return STAMPED.format(extras=extras) + GPU.format(driver=driver, capability=capability)


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
    done = set_up(project, before=STAMPED.format(extras="aws"))
    assert (done.returncode, done.stdout.strip()) == (0, "scaletrain set-up: ready"), done.stderr


@pytest.mark.parametrize(
    ("before", "cause"),
    [
        (
            "rm ~/.ray/auth_token",
            "looking for the token: no ~/.ray/auth_token; run scaletrain cluster init, then ray up again",
        ),
        (
            gpu_machine("535.183.01", "8.9"),
            "checking the NVIDIA driver: driver 535.183.01, torch needs 580; use a newer image",
        ),
        (
            gpu_machine("580.95.05", "7.0"),
            "checking the NVIDIA driver: compute capability 7.0, torch needs 7.5; use a newer GPU",
        ),
    ],
    ids=["no token", "old driver", "old GPU"],
)
def test_what_fails_is_named_in_one_line(project: Path, before: str, cause: str) -> None:
    """The last line of a long log says the step and the cause."""
    done = set_up(project, before=before)
    if done.returncode == 77:
        pytest.skip("this machine has no PCI bus to put a GPU on")
    assert done.returncode != 0
    assert done.stderr.strip().splitlines()[-1] == f"scaletrain set-up FAILED (exit 1) while: {cause}"


def test_a_machine_with_a_gpu_gets_what_is_made_for_it(project: Path) -> None:
    """Liger's kernels and bitsandbytes, also where the image was made without; the second time it only looks."""
    before = gpu_machine("595.91.07", "8.9", extras="aws") + NOTING
    done = set_up(project, before=before, times=2, after="cat ~/asked")
    if done.returncode == 77:
        pytest.skip("this machine has no PCI bus to put a GPU on")
    assert done.returncode == 0, done.stderr
    installed = [line for line in done.stdout.splitlines() if "--editable" in line]
    assert [line.rpartition("/")[2] for line in installed] == ["scaletrain[aws,gpu]"]


def test_the_script_is_short_strict_and_parses() -> None:
    """Like the other scripts."""
    text = (ROOT / "cluster/setup.sh").read_text()
    assert "set -euo pipefail" in text and len(text.splitlines()) < 150
    subprocess.run(["bash", "-n", str(ROOT / "cluster/setup.sh")], check=True)
