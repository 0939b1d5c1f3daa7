"""cluster/local.yaml: the shipped file, filled by init, brought up by the real `ray up` on two machines over SSH."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster_projects import ROOT, make_project
from scaletrain.cluster.init import plan_local
from scaletrain.cluster.plan import carry_out
from scaletrain.emulator.ec2 import add_image, add_security_group, emulated_ec2
from scaletrain.emulator.emulated_cloud import EmulatedCloud
from scaletrain.emulator.requirements import check_requirements
from scaletrain.errors import ClusterError

KEY, GROUP, IMAGE = "mine", "sg-0123456789abcdef0", "ami-0aaaaaaaaaaaaaaaa"
JOIN_LIMIT_S = 120


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[EmulatedCloud]:
    """Two machines with sshd, as somebody may own them; that they are an emulated cloud's does not show."""
    try:
        check_requirements()
    except ClusterError as error:
        pytest.skip(str(error))
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    folder = tmp_path / "cloud"
    folder.mkdir()
    with emulated_ec2(folder, image_user="ubuntu", instance_types=["m7i.xlarge"]) as cloud:
        cloud.call("ec2", "import_key_pair", KeyName=KEY, PublicKeyMaterial=Path(f"{key}.pub").read_text())
        add_security_group(cloud, GROUP, name="lan")
        add_image(cloud, IMAGE)
        request = {"ImageId": IMAGE, "InstanceType": "m7i.xlarge", "KeyName": KEY, "SecurityGroupIds": [GROUP]}
        cloud.call("ec2", "run_instances", MinCount=2, MaxCount=2, **request)
        yield cloud


def ray(cloud: EmulatedCloud, file: Path, *words: str, then: str = "") -> str:
    command = ["ray", *words, str(file), *([then] if then else [])]
    done = cloud.laptop(command, cwd=file.parent, timeout_s=240)
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


@pytest.mark.soak
def test_all_machines_join_and_a_second_ray_up_leaves_them_alone(
    machines: EmulatedCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's newer autoscaler would start the head only."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    project = make_project(tmp_path, kind="local")
    shutil.copytree(ROOT / "src/scaletrain", project.folder / "src/scaletrain", dirs_exist_ok=True)
    head, worker = machines.instances()
    wishes = plan_local(
        project.file,
        head=head.address,
        workers=[worker.address],
        ssh_user="ubuntu",
        ssh_key=tmp_path / "key",
        bucket="s3://none/root",
    )
    carry_out(wishes, tell=lambda line: None)
    project.edit(("  # external_head_ip: 203.0.113.9", f"  external_head_ip: {head.public_address}"))
    ray(machines, project.file, "up", "-y", "--no-config-cache")
    deadline = time.monotonic() + JOIN_LIMIT_S
    while "2 local.cluster.node" not in (status := ray(machines, project.file, "exec", then="ray status")):
        assert time.monotonic() < deadline, status[-3000:]
        time.sleep(3)
    again = ray(machines, project.file, "up", "-y", "--no-config-cache").splitlines()
    assert "Ray runs already" in [line.strip() for line in again]
    assert "2 local.cluster.node" in ray(machines, project.file, "exec", then="ray status")
