"""Helpers of the emulator's tests: launch a machine, wait for what must come, speak SSH to it from the laptop."""

import json
import subprocess
from collections.abc import Callable
from typing import Any

from commands import wait_for
from scaletrain.emulator.emulated_cloud import EmulatedCloud, Instance

IMAGE = "resolve:ssm:/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-24.04/latest/ami-id"
KEY_NAME = "test-key"
TRUST = {"Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}]}


def make_key(cloud: EmulatedCloud) -> None:
    """Make the key pair of the tests, once per cloud; the private part lies on the laptop."""
    path = cloud.laptop_home / "key"
    if not path.exists():
        path.write_text(cloud.call("ec2", "create_key_pair", KeyName=KEY_NAME)["KeyMaterial"])
        path.chmod(0o600)


def group(cloud: EmulatedCloud, name: str, *permissions: dict[str, Any]) -> str:
    """Make a security group that admits just this, and return its id."""
    group_id = str(cloud.call("ec2", "create_security_group", GroupName=name, Description=name)["GroupId"])
    if permissions:
        cloud.call("ec2", "authorize_security_group_ingress", GroupId=group_id, IpPermissions=list(permissions))
    return group_id


def ssh_from(cidr: str) -> dict[str, Any]:
    return {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": cidr}]}


def open_group(cloud: EmulatedCloud) -> str:
    """The group of machines whose test is about something else: everybody may do everything."""
    for each in cloud.call("ec2", "describe_security_groups")["SecurityGroups"]:
        if each["GroupName"] == "open":
            return str(each["GroupId"])
    return group(cloud, "open", {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]})


def launch(cloud: EmulatedCloud, count: int = 1, **more: Any) -> list[Instance]:
    """Launch machines and wait until their sshd runs."""
    make_key(cloud)
    options = {"ImageId": IMAGE, "InstanceType": "m7i.large", "KeyName": KEY_NAME, "MinCount": 1, "MaxCount": count}
    if "SecurityGroupIds" not in more:
        options["SecurityGroupIds"] = [open_group(cloud)]
    started = cloud.call("ec2", "run_instances", **{**options, **more})["Instances"]
    ids = {each["InstanceId"] for each in started}
    instances = [each for each in cloud.instances() if each.id in ids]
    for each in instances:
        wait_until_up(cloud, each)
    return instances


def wait_until_up(cloud: EmulatedCloud, instance: Instance) -> None:
    wait_for(lambda: instance.id in cloud.machines(), f"{instance.id} is on")
    listening = ["sh", "-c", "ss -ltn | grep -q :22"]
    wait_for(lambda: cloud.on_machine(instance, listening).returncode == 0, f"sshd of {instance.id}")


def ssh(
    cloud: EmulatedCloud,
    instance: Instance,
    command: str,
    *,
    user: str = "ubuntu",
    public: bool = True,
    limit_s: float = 30,
) -> subprocess.CompletedProcess[str]:
    """Run a command by SSH from the laptop."""
    address = instance.public_address if public else instance.address
    quiet = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
    limits = ["-o", "ConnectTimeout=3", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"]
    key = str(cloud.laptop_home / "key")
    return cloud.laptop(["ssh", *quiet, *limits, "-i", key, f"{user}@{address}", command], timeout_s=limit_s)


def opens(place: Callable[..., subprocess.CompletedProcess[str]], address: str, port: int) -> bool:
    """Tell whether a TCP connection from a place comes about within two seconds."""
    program = f"import socket; socket.create_connection(('{address}', {port}), timeout=2)"
    return place(["/usr/bin/python3", "-c", program]).returncode == 0


def profile(cloud: EmulatedCloud, name: str, *statements: dict[str, object]) -> str:
    """Make a role with these rights and a profile of the same name."""
    cloud.call("iam", "create_role", RoleName=name, AssumeRolePolicyDocument=json.dumps(TRUST))
    document = json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
    cloud.call("iam", "put_role_policy", RoleName=name, PolicyName="p", PolicyDocument=document)
    cloud.call("iam", "create_instance_profile", InstanceProfileName=name)
    cloud.call("iam", "add_role_to_instance_profile", InstanceProfileName=name, RoleName=name)
    return name


def boto(cloud: EmulatedCloud, instance: Instance, program: str) -> str:
    """Run a program that uses boto3 on a machine, and return what it printed last."""
    done = cloud.on_machine(instance, ["/opt/scaletrain/venv/bin/python", "-c", f"import boto3\n{program}"])
    return str(done.stdout.strip().splitlines()[-1])
