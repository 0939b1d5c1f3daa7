"""What an AWS cluster file must say of its machines: rights, doors, disks and credentials, and nothing EC2 refuses."""

from collections.abc import Iterator, Mapping
from typing import Any

from scaletrain.cluster.cluster_file import UNFILLED
from scaletrain.cluster.schema import did_you_mean

_RAYS_OWN_KEYS = {"SubnetIds"}  # Ray turns it into SubnetId


def aws_file_problems(tree: Mapping[str, Any]) -> Iterator[str]:
    """Return the problems of a file whose form is right; EC2's own description of RunInstances is consulted too."""
    if "region" not in tree["provider"]:
        yield "provider.region: missing; name one, as us-east-1"
    if "security_group" in tree["provider"]:
        yield (
            "provider.security_group: Ray would make this group, or open one without rules, to the world on port 22; "
            "remove it and give SecurityGroupIds of a group with rules (scaletrain cluster init aws makes one)"
        )
    bucket = (tree.get("metadata") or {}).get("bucket")
    if not isinstance(bucket, str):
        yield "metadata.bucket: missing; give the storage root, as s3://my-bucket/scaletrain"
    elif not bucket.startswith((UNFILLED, "s3://")):
        yield f"metadata.bucket: got {bucket}; give an S3 URL, as s3://my-bucket/scaletrain"
    head = tree["head_node_type"]
    for name, kind in tree["available_node_types"].items():
        place = f"available_node_types.{name}.node_config"
        config = kind["node_config"]
        yield from _request_problems(config, place)
        yield from _door_problems(config, place)
        yield from _profile_problems(tree, config, place, is_head=name == head)
        yield from _disk_problems(config, place)
        if "InstanceType" not in config:
            yield f"{place}: InstanceType is missing; name one, as g6.xlarge"
        if "ImageId" not in config:
            yield f"{place}: ImageId is missing, so Ray would take an image of 2023; name one as in cluster/aws.yaml"


def _request_problems(config: Mapping[str, Any], place: str) -> Iterator[str]:
    """Hold a node_config against the parameters of RunInstances, as botocore knows them."""
    members = _run_instances_shape()
    for key in config:
        if key not in members.members and key not in _RAYS_OWN_KEYS:
            yield f"{place}.{key}: EC2 knows no such parameter; {_suggest(key, list(members.members))}"
    from botocore.validate import ParamValidator

    known = {key: value for key, value in config.items() if key in members.members}
    report = ParamValidator().validate({"MinCount": 1, "MaxCount": 1, **known}, members)
    if report.has_errors():
        for line in report.generate_report().splitlines():
            yield f"{place}: {line.rstrip('.')}; correct it"


def _run_instances_shape() -> Any:
    import botocore.session

    model = botocore.session.get_session().get_service_model("ec2")
    return model.operation_model("RunInstances").input_shape


def _suggest(key: str, known: list[str]) -> str:
    advice = did_you_mean(key, [*known, *_RAYS_OWN_KEYS])
    return advice if advice.startswith("did") else "remove it"


def _door_problems(config: Mapping[str, Any], place: str) -> Iterator[str]:
    if not config.get("SecurityGroupIds") and "NetworkInterfaces" not in config:
        yield (
            f"{place}: SecurityGroupIds are missing; Ray would make a group that is open to the world on port 22. "
            "scaletrain cluster init aws makes one that is not"
        )
    options = config.get("MetadataOptions") or {}
    if options.get("HttpTokens") != "required" or options.get("HttpPutResponseHopLimit") != 1:
        yield (
            f"{place}: the machine's credentials can be fetched through any program that opens a URL for others; set "
            "MetadataOptions: {HttpTokens: required, HttpPutResponseHopLimit: 1}"
        )


def _profile_problems(
    tree: Mapping[str, Any], config: Mapping[str, Any], place: str, *, is_head: bool
) -> Iterator[str]:
    profile = config.get("IamInstanceProfile") or {}
    if not profile:
        yield (
            f"{place}: IamInstanceProfile is missing; "
            + (
                "Ray would make one that may do everything in EC2 and S3"
                if is_head
                else "no way to the bucket from there"
            )
            + ". scaletrain cluster init aws makes one"
        )
    head_config = tree["available_node_types"][tree["head_node_type"]]["node_config"]
    filled = not any(str(value).startswith(UNFILLED) for value in profile.values())
    if not is_head and profile and filled and profile == head_config.get("IamInstanceProfile"):
        yield f"{place}: has the head's profile, so any job could start machines; give workers one of their own"


def _disk_problems(config: Mapping[str, Any], place: str) -> Iterator[str]:
    disks = [each for each in config.get("BlockDeviceMappings") or () if "Ebs" in each]
    if not disks:
        yield (
            f"{place}: BlockDeviceMappings are missing, so the disk is small and not encrypted; give one as in "
            "cluster/aws.yaml"
        )
    for each in disks:
        if each["Ebs"].get("Encrypted") is not True:
            yield f"{place}: the disk {each.get('DeviceName')} is not encrypted; set Ebs: {{Encrypted: true}}"
        if each["Ebs"].get("DeleteOnTermination") is False:
            yield f"{place}: the disk {each.get('DeviceName')} outlives its machine; set DeleteOnTermination: true"
