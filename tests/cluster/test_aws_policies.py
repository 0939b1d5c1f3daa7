"""aws_policies: what the roles allow and what not, judged by an evaluator of IAM's policy language."""

from typing import Any

import pytest

from scaletrain.cluster.aws_policies import Scope, head_policy, worker_policy
from scaletrain.emulator.aws_permissions import Request, is_allowed

SCOPE = Scope("aws", "us-east-1", "123456789012", "mine", "my-bucket", "root")
OWN = "arn:aws:ec2:us-east-1:123456789012"
HEAD = head_policy(SCOPE, worker_role="mine-worker", security_group="sg-1")
WORKER = worker_policy(SCOPE)
MINE = {"aws:RequestTag/ray-cluster-name": "mine", "ec2:MetadataHttpTokens": "required"}


def allowed(policy: dict[str, Any], action: str, resource: str, **context: str) -> bool:
    return is_allowed([policy], Request(action, resource, {key.replace("__", ":"): v for key, v in context.items()}))


@pytest.mark.parametrize("policy", [HEAD, WORKER], ids=["head", "worker"])
def test_the_storage_root_can_be_used_and_nothing_beside_it(policy: dict[str, Any]) -> None:
    """raw/ can be read; another prefix and another bucket cannot."""
    for action in ("s3:GetObject", "s3:PutObject", "s3:DeleteObject"):
        assert allowed(policy, action, "arn:aws:s3:::my-bucket/root/runs/a/b")
        assert not allowed(policy, action, "arn:aws:s3:::my-bucket/other/a")
        assert not allowed(policy, action, "arn:aws:s3:::other/root/a")
    assert allowed(policy, "s3:GetObject", "arn:aws:s3:::my-bucket/raw/a.json")
    assert not allowed(policy, "s3:PutObject", "arn:aws:s3:::my-bucket/raw/a.json")
    assert allowed(policy, "s3:ListBucket", "arn:aws:s3:::my-bucket", s3__prefix="root/runs/")
    assert not allowed(policy, "s3:ListBucket", "arn:aws:s3:::my-bucket", s3__prefix="other/")
    for action in ("s3:DeleteBucket", "s3:PutBucketPolicy", "s3:DeleteObjectVersion", "s3:PutLifecycleConfiguration"):
        assert not allowed(policy, action, "arn:aws:s3:::my-bucket")


def test_workers_can_do_nothing_else() -> None:
    """Not even look around."""
    for action in ("ec2:RunInstances", "ec2:DescribeInstances", "iam:PassRole", "ssm:GetParameters", "sts:AssumeRole"):
        assert not is_allowed([WORKER], Request(action, None))


def test_the_head_starts_only_machines_of_its_cluster_and_only_locked_ones() -> None:
    """With the cluster's name, IMDSv2, an encrypted disk and the cluster's own security group."""

    def starts(resource: str, context: dict[str, str]) -> bool:
        return is_allowed([HEAD], Request("ec2:RunInstances", resource, context))

    assert starts(f"{OWN}:instance/*", MINE)
    assert not starts(f"{OWN}:instance/*", {**MINE, "aws:RequestTag/ray-cluster-name": "other"})
    assert not starts(f"{OWN}:instance/*", {**MINE, "ec2:MetadataHttpTokens": "optional"})
    assert starts(f"{OWN}:volume/*", {"ec2:Encrypted": "true"})
    assert not starts(f"{OWN}:volume/*", {"ec2:Encrypted": "false"})
    assert starts(f"{OWN}:security-group/sg-1", {})
    assert not starts(f"{OWN}:security-group/sg-2", {})
    assert starts(f"{OWN}:placement-group/near", {})


def test_the_head_ends_and_tags_only_machines_of_its_cluster() -> None:
    """A machine of another cluster cannot be made one of its own either."""
    for action in ("ec2:TerminateInstances", "ec2:CreateTags"):
        mine, other = ({"ec2:ResourceTag/ray-cluster-name": name} for name in ("mine", "other"))
        assert is_allowed([HEAD], Request(action, f"{OWN}:instance/i-1", mine))
        assert not is_allowed([HEAD], Request(action, f"{OWN}:instance/i-1", other))
        assert not is_allowed([HEAD], Request(action, f"{OWN}:instance/i-1", {}))
    assert not is_allowed([HEAD], Request("ec2:AuthorizeSecurityGroupIngress", f"{OWN}:security-group/sg-1"))


def test_the_head_passes_on_the_workers_role_only() -> None:
    """Else it could start a machine with more rights than its own."""
    service = {"iam:PassedToService": "ec2.amazonaws.com"}
    assert is_allowed([HEAD], Request("iam:PassRole", "arn:aws:iam::123456789012:role/mine-worker", service))
    assert not is_allowed([HEAD], Request("iam:PassRole", "arn:aws:iam::123456789012:role/mine-head", service))
    assert not is_allowed([HEAD], Request("iam:PassRole", "arn:aws:iam::123456789012:role/Admin", service))


def test_the_head_finds_public_images_and_no_secrets() -> None:
    """Parameters of the account may hold passwords."""
    ssm = "arn:aws:ssm:us-east-1"
    assert allowed(HEAD, "ssm:GetParameters", f"{ssm}::parameter/aws/service/deeplearning/ami/x86_64/x/latest/ami-id")
    assert not allowed(HEAD, "ssm:GetParameters", f"{ssm}:123456789012:parameter/database/password")
