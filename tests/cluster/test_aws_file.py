"""aws_file: what EC2 would refuse, and what would make machines weak, is said before anything is launched."""

import copy
from typing import Any

from scaletrain.cluster.aws_file import aws_file_problems

CONFIG: dict[str, Any] = {
    "InstanceType": "m7i.xlarge",
    "ImageId": "ami-1",
    "IamInstanceProfile": {"Name": "head"},
    "SecurityGroupIds": ["sg-1"],
    "SubnetIds": ["subnet-1"],
    "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 1},
    "BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": {"Encrypted": True}}],
}


def tree(**worker: Any) -> dict[str, Any]:
    """A file with a good head and one worker type, changed as asked (None: without that key)."""
    config = {**copy.deepcopy(CONFIG), "IamInstanceProfile": {"Name": "worker"}, **worker}
    config = {key: value for key, value in config.items() if value is not None}
    return {
        "metadata": {"bucket": "s3://b/x"},
        "provider": {"type": "aws", "region": "us-east-1"},
        "head_node_type": "head",
        "available_node_types": {"head": {"node_config": CONFIG}, "gpu": {"node_config": config}},
    }


def problems(**worker: Any) -> list[str]:
    return [each.removeprefix("available_node_types.gpu.node_config") for each in aws_file_problems(tree(**worker))]


def test_a_good_file_has_no_problems() -> None:
    """Nothing is asked for that does not matter."""
    assert problems() == []


def test_a_misspelt_parameter_is_named_by_ec2s_own_list() -> None:
    """boto3 would refuse it, after the head runs."""
    assert problems(SecurityGroupId="sg") == [
        ".SecurityGroupId: EC2 knows no such parameter; did you mean SecurityGroupIds?"
    ]


def test_a_wrong_type_is_named_by_ec2s_own_description() -> None:
    """Deep in the tree too."""
    (problem,) = problems(BlockDeviceMappings=[{"DeviceName": "a", "Ebs": {"Encrypted": True, "VolumeSize": "big"}}])
    assert "VolumeSize" in problem and "valid types" in problem


def test_workers_without_a_profile_or_with_the_heads_are_found() -> None:
    """The first cannot reach the bucket, the second could start machines."""
    assert "no way to the bucket" in problems(IamInstanceProfile=None)[0]
    assert "has the head's profile" in problems(IamInstanceProfile={"Name": "head"})[0]


def test_a_group_by_name_and_a_missing_group_are_found() -> None:
    """Ray would open either to the world."""
    assert "open to the world on port 22" in problems(SecurityGroupIds=None)[0]


def test_a_bucket_that_is_none_is_found() -> None:
    """Every machine needs it."""
    wrong = {**tree(), "metadata": {"bucket": "gs://b"}}
    assert list(aws_file_problems(wrong)) == [
        "metadata.bucket: got gs://b; give an S3 URL, as s3://my-bucket/scaletrain"
    ]
