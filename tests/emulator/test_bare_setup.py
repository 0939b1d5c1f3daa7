"""The shipped set-up script on a machine with nothing on it: real packages, up to a doctor that is content."""

from pathlib import Path

import psutil
import pytest
from launching import launch, ssh
from test_proxy import reaches_the_index

from scaletrain.emulator.ec2 import emulated_ec2

PROJECT = Path(__file__).parents[2]
FILES = ("pyproject.toml", "constraints.txt", "README.md", "LICENSE", "src", "cluster/setup.sh")
NEEDED_BYTES = 10 * 2**30  # torch with CUDA alone is 4 GB, and a machine's disk is memory


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_set_up_makes_a_bare_machine_ready_and_then_only_looks(folder: Path) -> None:
    """About seven minutes on two cores, nearly all of it pip; the second run needs no network at all."""
    if not reaches_the_index():
        pytest.skip("no way to pypi.org from here")
    if psutil.virtual_memory().available < NEEDED_BYTES:
        pytest.skip("needs 10 GiB of free memory, which the machine's disk is in")
    with emulated_ec2(folder, prepared=False, internet=True) as cloud:
        (machine,) = launch(cloud)
        quiet = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
        transport = f"ssh {quiet} -i {cloud.laptop_home / 'key'}"
        sources = [str(PROJECT / each) for each in FILES]
        copy = ["rsync", "-a", "--exclude=__pycache__", "--exclude=*.egg-info", "-e", transport, *sources]
        assert cloud.laptop([*copy, f"ubuntu@{machine.address}:scaletrain/"]).returncode == 0
        assert ssh(cloud, machine, "mkdir ~/.ray && echo 0123 > ~/.ray/auth_token").returncode == 0
        first = ssh(cloud, machine, "bash ~/scaletrain/setup.sh aws", limit_s=1500)
        assert first.stdout.splitlines()[-1] == "scaletrain set-up: ready", first.stdout
        again = ssh(cloud, machine, "env -u https_proxy -u http_proxy bash ~/scaletrain/setup.sh aws")
        assert again.stdout == "scaletrain set-up: ready\n"
        doctor = ssh(cloud, machine, "/opt/scaletrain/venv/bin/scaletrain doctor", limit_s=120)
        assert doctor.returncode == 0, doctor.stdout
