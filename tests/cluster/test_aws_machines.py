"""aws_machines: quotas and images, by AWS's documented answers, since the emulated AWS has neither."""

from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from cluster_projects import REGION, make_project
from scaletrain.cluster.aws_account import Account
from scaletrain.cluster.aws_machines import InstanceFacts, image_problems, quota_problems
from scaletrain.cluster.cluster_file import ClusterFile, from_tree, read_tree

FACTS = {"m7i.xlarge": InstanceFacts(4, 0), "m7i.2xlarge": InstanceFacts(8, 0), "g6.xlarge": InstanceFacts(4, 1)}


@pytest.fixture
def account() -> Account:
    session = boto3.Session(aws_access_key_id="a", aws_secret_access_key="b", region_name=REGION)
    return Account(session, REGION, "123456789012", "arn:aws:iam::123456789012:user/me", "aws")


@pytest.fixture
def file(tmp_path: Path) -> ClusterFile:
    project = make_project(tmp_path)
    return from_tree(project.file, read_tree(project.file)[0])


def test_a_quota_that_is_too_small_is_named_with_its_page(account: Account, file: ClusterFile) -> None:
    """New accounts have none for GPUs; vCPUs count, and spot apart from on-demand."""
    with Stubber(account.client("service-quotas")) as stub:
        for code, vcpus in (("L-1216C47A", 5.0), ("L-34B43A08", 64.0), ("L-3819A6DF", 0.0)):
            answer = {"Quota": {"Value": vcpus}}
            stub.add_response("get_service_quota", answer, {"ServiceCode": "ec2", "QuotaCode": code})
        problems, unknown = quota_problems(account, file, FACTS)
    (problem,) = problems
    assert "may run 0 vCPUs of g machines on spot in us-east-1, the file's max_workers need 16" in problem
    assert f"https://{REGION}.console.aws.amazon.com/servicequotas/home/services/ec2/quotas/L-3819A6DF" in problem
    assert unknown == []


def test_a_quota_that_aws_does_not_tell_is_unknown(account: Account, file: ClusterFile) -> None:
    """Neither a problem nor a promise."""
    with Stubber(account.client("service-quotas")) as stub:
        for _ in range(3):
            stub.add_client_error("get_service_quota", "NoSuchResourceException")
        assert quota_problems(account, file, FACTS) == (
            [],
            ["standard on-demand: not told", "standard spot: not told", "g spot: not told"],
        )


def images(account: Account, size_gb: int) -> Stubber:
    """Every parameter names an image with a root disk of this size."""
    ssm, ec2 = Stubber(account.client("ssm")), Stubber(account.client("ec2"))
    image: dict[str, Any] = {"RootDeviceName": "/dev/sda1"}
    image["BlockDeviceMappings"] = [{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": size_gb}}]
    for _ in range(2):
        ssm.add_response("get_parameters", {"Parameters": [{"Name": "x", "Value": "ami-1"}]})
        ec2.add_response("describe_images", {"Images": [image]})
    ssm.activate()
    ec2.activate()
    return ssm


def test_a_disk_smaller_than_its_image_is_found(account: Account, file: ClusterFile) -> None:
    """EC2 would refuse the launch; GPU images are large."""
    images(account, 125)
    assert list(image_problems(account, file)) == [
        f"available_node_types.{name}.node_config: the disk /dev/sda1 has 100 GB, its image needs 125; raise VolumeSize"
        for name in ("head", "cpu")
    ]


def test_an_image_that_fits_passes(account: Account, file: ClusterFile) -> None:
    """Each image is looked up once."""
    stub = images(account, 75)
    assert list(image_problems(account, file)) == []
    stub.assert_no_pending_responses()
