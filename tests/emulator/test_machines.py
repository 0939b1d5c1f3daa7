"""machines: what a machine sees and keeps, and how it is reached."""

import subprocess
import sys
from pathlib import Path

import pytest
from launching import launch, ssh

from commands import wait_for
from scaletrain.emulator.ec2 import emulated_ec2
from scaletrain.emulator.ec2_process import ENDPOINT_URL
from scaletrain.emulator.emulated_cloud import EmulatedCloud, Instance
from scaletrain.errors import ClusterError


@pytest.fixture(scope="module")
def pair(cloud: EmulatedCloud) -> list[Instance]:
    return launch(cloud, 2)


def console(cloud: EmulatedCloud, instance: Instance, command: str) -> str:
    done = cloud.on_machine(instance, ["sh", "-c", command])
    assert done.returncode == 0, done.stdout
    return str(done.stdout).strip()


def test_a_machine_has_its_own_name_address_and_processes(cloud: EmulatedCloud, pair: list[Instance]) -> None:
    """It sees sshd as its first process and nothing of this computer's."""
    first = pair[0]
    assert console(cloud, first, "hostname") == f"ip-{first.address.replace('.', '-')}"
    assert first.address in console(cloud, first, "ip -4 -o addr show eth0")
    assert "sshd" in console(cloud, first, "cat /proc/1/comm")
    assert int(console(cloud, first, "ls -d /proc/[0-9]* | wc -l")) < 15


def test_what_a_machine_writes_stays_on_its_own_disk(cloud: EmulatedCloud, pair: list[Instance]) -> None:
    """Neither this computer nor the other machine sees it."""
    places = ["/etc/mark", "/tmp/mark", "/root/mark", "/usr/local/mark", "/dev/shm/mark"]
    console(cloud, pair[0], f"touch {' '.join(places)}")
    assert [place for place in places if Path(place).exists()] == []
    assert console(cloud, pair[1], f"ls {' '.join(places)} 2>/dev/null | wc -l") == "0"


def test_nothing_of_this_computers_homes_leaks_in(cloud: EmulatedCloud, pair: list[Instance], tmp_path: Path) -> None:
    """Keys, tokens and temporary files of whoever runs this are not on the machine."""
    (tmp_path / "secret").write_text("secret")
    assert console(cloud, pair[0], f"ls {tmp_path} 2>/dev/null | wc -l") == "0"
    assert console(cloud, pair[0], "ls -A /home").split() == ["ubuntu"]
    assert not {".aws", ".ray", ".cache"} & {*console(cloud, pair[0], "ls -A /root").split()}


def test_no_device_of_this_computer_is_one_of_the_machines(cloud: EmulatedCloud, pair: list[Instance]) -> None:
    """Where a machine saw a GPU, its set-up would install what is made for it."""
    assert console(cloud, pair[0], "ls /sys/bus/pci/devices 2>/dev/null | wc -l") == "0"


def test_sshd_lets_in_the_key_of_the_launch(cloud: EmulatedCloud, pair: list[Instance]) -> None:
    """At the public and at the private address, as the image's user, who may become root without a password."""
    for public in (True, False):
        done = ssh(cloud, pair[0], "id -un; sudo -n id -un", public=public)
        assert done.stdout.split() == ["ubuntu", "root"], done.stdout
    assert ssh(cloud, pair[0], "true", user="root").returncode != 0


def test_a_prepared_machine_has_this_environment(cloud: EmulatedCloud, pair: list[Instance]) -> None:
    """At /opt/scaletrain/venv, whose programs the user's sessions find; AWS is known by its endpoint alone."""
    program = (
        "import scaletrain, sys, os; print(sys.prefix, os.environ['AWS_ENDPOINT_URL'], 'AWS_REGION' in os.environ)"
    )
    done = ssh(cloud, pair[0], f'bash --login -c "python -c \\"{program}\\""')
    assert done.stdout.split() == ["/opt/scaletrain/venv", ENDPOINT_URL, "False"], done.stdout


def test_the_laptop_sees_this_computers_files_and_a_home_of_its_own(cloud: EmulatedCloud, tmp_path: Path) -> None:
    """A user's cluster file is read where it lies; what is written is written for real."""
    (tmp_path / "in").write_text("x")
    done = cloud.laptop(["sh", "-c", "cp in out; echo $HOME; hostname"], cwd=tmp_path)
    assert done.stdout.split() == [str(cloud.laptop_home), "laptop"], done.stdout
    assert (tmp_path / "out").read_text() == "x"


def test_a_command_that_does_not_end_is_ended(cloud: EmulatedCloud) -> None:
    """The error says which, and what it had printed."""
    with pytest.raises(ClusterError, match=r"`sh -c echo begun; sleep 60` had not ended after 1 s[\s\S]*begun"):
        cloud.laptop(["sh", "-c", "echo begun; sleep 60"], timeout_s=1)


def test_user_data_runs_once_as_root(cloud: EmulatedCloud) -> None:
    """At the first boot, with its output where cloud-init puts it."""
    script = "#!/bin/sh\nid -un > /root/by\necho said; exit 3\n"
    (instance,) = launch(cloud, UserData=script)
    log = "cat /var/log/cloud-init-output.log"
    wait_for(lambda: "exit code" in cloud.on_machine(instance, ["sh", "-c", log]).stdout, "the script has ended")
    assert console(cloud, instance, log).splitlines() == ["said", "user data ended with exit code 3"]
    assert console(cloud, instance, "cat /root/by") == "root"


def test_a_bare_machine_has_nothing_prepared(folder: Path) -> None:
    """What set-up commands install, they install for real."""
    with emulated_ec2(folder, prepared=False) as bare:
        (instance,) = launch(bare)
        look = f"ls -A {sys.prefix} /opt/scaletrain 2>/dev/null | grep -c python; command -v ray; true"
        assert console(bare, instance, look) == "0"


def test_the_end_of_a_cloud_leaves_nothing(folder: Path) -> None:
    """No process, no mount, no interface, no folder of SSH connections; two at a time do not meet."""
    before = (_processes(), Path("/proc/mounts").read_text(), sorted(Path("/sys/class/net").iterdir()))
    with emulated_ec2(folder / "one") as one, emulated_ec2(folder / "two") as two:
        (first,) = launch(one)
        (second,) = launch(two)
        assert [each.id for each in one.instances()] == [first.id]
        assert [each.id for each in two.instances()] == [second.id]
        one.ssh_connections.mkdir()
    after = (_processes() - before[0], Path("/proc/mounts").read_text(), sorted(Path("/sys/class/net").iterdir()))
    assert (after[1], after[2]) == before[1:]
    assert not [each for each in after[0] if str(folder) in each]
    assert not one.ssh_connections.exists()


def test_killing_its_one_process_ends_a_cloud(folder: Path) -> None:
    """Machines do not outlive whoever emulates them."""
    with emulated_ec2(folder) as cloud:
        launch(cloud)
        cloud.process.kill()
        cloud.process.wait()
        wait_for(lambda: not [each for each in _processes() if str(folder) in each], "no process is left")


def _processes() -> set[str]:
    done = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines())
