"""What a cluster file takes for granted in an AWS account, made in the emulated one so that the file runs as it is.

Each thing that is made is told: whether the real account has it is for `scaletrain cluster check` to say.
"""

import json
import subprocess
from collections.abc import Iterator
from typing import Any

from scaletrain.cluster.aws_policies import Scope, head_policy, trust_policy, worker_policy
from scaletrain.cluster.cluster_file import ClusterFile, NodeType
from scaletrain.cluster.rehearsal_home import link_files_of_home
from scaletrain.emulator import ec2
from scaletrain.emulator.aws_account import ACCOUNT_ID
from scaletrain.emulator.aws_authorization import PARAMETER_PREFIX
from scaletrain.emulator.emulated_cloud import EmulatedCloud
from scaletrain.errors import ClusterError

_ANY_GROUP = "*"


def furnish(cloud: EmulatedCloud, file: ClusterFile) -> list[str]:
    """Make what the file names, by the very names, and return one line for each assumption."""
    _check_instance_types(cloud, file)
    return [
        *_images(cloud, file),
        *_network(cloud, file),
        *_key_pair(cloud, file),
        *_bucket(cloud, file),
        *_profiles(cloud, file),
        *link_files_of_home(cloud.laptop_home, file),
    ]


def shape_of(cloud: EmulatedCloud, kind: NodeType) -> dict[str, float]:
    """Return the CPUs and GPUs of a type's machine, as EC2 tells them; Ray asks it, too, where the file is silent."""
    found = cloud.call("ec2", "describe_instance_types", InstanceTypes=[kind.instance_type])["InstanceTypes"][0]
    gpus = sum(each["Count"] for each in found.get("GpuInfo", {}).get("Gpus", []))
    return {"CPU": found["VCpuInfo"]["DefaultVCpus"], "GPU": gpus}


def _check_instance_types(cloud: EmulatedCloud, file: ClusterFile) -> None:
    known = {each["InstanceType"] for each in cloud.call("ec2", "describe_instance_types")["InstanceTypes"]}
    unknown = [f"{each.name} ({each.instance_type})" for each in file.node_types if each.instance_type not in known]
    if unknown:
        raise ClusterError(
            f"{cloud.region} has no such instance type: {', '.join(unknown)}; choose one that it has, or another region"
        )


def _images(cloud: EmulatedCloud, file: ClusterFile) -> Iterator[str]:
    for image in _values(file, "ImageId"):
        if image.startswith("ami-"):
            ec2.add_image(cloud, image)
            yield f"image {image} exists, and its user is {file.ssh_user}"
        elif image.startswith(PARAMETER_PREFIX) and not image.startswith(f"{PARAMETER_PREFIX}/aws/"):
            name = image.removeprefix(PARAMETER_PREFIX).partition(":")[0]
            ec2.add_image(cloud, "ami-0fee1000000000000")
            arguments = {"Name": name, "Value": "ami-0fee1000000000000", "Type": "String", "Overwrite": True}
            cloud.call("ssm", "put_parameter", **arguments)
            yield f"your parameter {name} names an image, whose user is {file.ssh_user}"
    if any("ImageId" not in each.node_config for each in file.node_types):
        from ray.autoscaler._private.aws.config import DEFAULT_AMI

        for image in {DEFAULT_AMI[cloud.region]} if cloud.region in DEFAULT_AMI else ():
            ec2.add_image(cloud, image, name="Deep Learning AMI (Ubuntu 18.04)")
            yield f"Ray's own image {image} of 2023 exists; name a newer one by ImageId"


def _network(cloud: EmulatedCloud, file: ClusterFile) -> Iterator[str]:
    for group in _values(file, "SecurityGroupIds"):
        ec2.add_security_group(cloud, group, name=f"given-{group}")
        yield f"security group {group} admits SSH from you, everything from itself, and nothing else"
    zones = str(file.raw["provider"].get("availability_zone", "")).split(",")
    for subnet in _values(file, "SubnetIds"):
        ec2.add_subnet(cloud, subnet, zone=zones[0].strip())
        yield f"subnet {subnet} is public and in the default network"


def _key_pair(cloud: EmulatedCloud, file: ClusterFile) -> Iterator[str]:
    key = file.ssh_private_key
    if key is None:
        return
    if not key.is_file():
        raise ClusterError(f"auth.ssh_private_key: there is no {key}; run: scaletrain cluster init aws")
    done = subprocess.run(["ssh-keygen", "-y", "-f", str(key)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ClusterError(f"auth.ssh_private_key: {key} cannot be read ({done.stderr.strip()})")
    for name in _values(file, "KeyName"):
        cloud.call("ec2", "import_key_pair", KeyName=name, PublicKeyMaterial=done.stdout)
        yield f"key pair {name} belongs to {key}"


def _bucket(cloud: EmulatedCloud, file: ClusterFile) -> Iterator[str]:
    if name := _bucket_name(file):
        place = {} if cloud.region == "us-east-1" else {"LocationConstraint": cloud.region}
        options = {"CreateBucketConfiguration": place} if place else {}
        cloud.call("s3", "create_bucket", Bucket=name, **options)
        yield f"bucket {name} is in {cloud.region}"


def _profiles(cloud: EmulatedCloud, file: ClusterFile) -> Iterator[str]:
    """Roles with the rights that `scaletrain cluster init` gives; workers that name none have none."""
    bucket, _, prefix = (file.bucket_root or "s3://none").removeprefix("s3://").partition("/")
    scope = Scope("aws", cloud.region, ACCOUNT_ID, file.name, bucket, prefix)
    head = _profile(file.head)
    workers = sorted({name for each in file.workers if (name := _profile(each))})
    groups = list(_values(file, "SecurityGroupIds"))
    for name in sorted({head, *workers} - {""}):
        rights = worker_policy(scope)
        if name == head:
            worker_role = workers[0] if workers else "none"
            rights = head_policy(scope, worker_role=worker_role, security_group=groups[0] if groups else _ANY_GROUP)
        _make_profile(cloud, name, rights)
        yield f"profile {name} has the rights that `scaletrain cluster init` gives to {_whose(name, head)}"


def _make_profile(cloud: EmulatedCloud, name: str, rights: dict[str, Any]) -> None:
    cloud.call("iam", "create_role", RoleName=name, AssumeRolePolicyDocument=json.dumps(trust_policy()))
    cloud.call("iam", "put_role_policy", RoleName=name, PolicyName="scaletrain", PolicyDocument=json.dumps(rights))
    cloud.call("iam", "create_instance_profile", InstanceProfileName=name)
    cloud.call("iam", "add_role_to_instance_profile", InstanceProfileName=name, RoleName=name)


def _values(file: ClusterFile, key: str) -> list[str]:
    """What a key of node_config has in all node types, each once."""
    found: list[str] = []
    for each in file.node_types:
        value = each.node_config.get(key, [])
        found += [value] if isinstance(value, str) else value
    return list(dict.fromkeys(found))


def _profile(kind: NodeType) -> str:
    given = kind.node_config.get("IamInstanceProfile") or {}
    return str(given.get("Name") or str(given.get("Arn", "")).rpartition("/")[2])


def _bucket_name(file: ClusterFile) -> str:
    return (file.bucket_root or "").removeprefix("s3://").partition("/")[0]


def _whose(name: str, head: str) -> str:
    return "the head" if name == head else "workers"
