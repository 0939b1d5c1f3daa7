"""What the machines of a cluster may do in the account, as IAM policies: no more than they need.

The head starts and stops machines, but only ones that carry its cluster's name, with the worker's role and in the
cluster's security group; workers reach the bucket. Both reach only the storage root, and may read raw/ beside it.
Rights of EC2: https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonec2.html
"""

from dataclasses import dataclass
from typing import Any

_RAY_TAG = "ray-cluster-name"  # Ray puts it on every machine that it starts


@dataclass(frozen=True)
class Scope:
    """What the rights of one cluster are limited to."""

    partition: str
    region: str
    account_id: str
    cluster: str
    bucket: str
    prefix: str


def trust_policy() -> dict[str, Any]:
    """Who may take the roles: machines of EC2."""
    return _policy(
        {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"},
    )


def worker_policy(scope: Scope) -> dict[str, Any]:
    """The bucket below the storage root, and reading raw/."""
    return _policy(*_bucket_rights(scope))


def head_policy(scope: Scope, *, worker_role: str, security_group: str) -> dict[str, Any]:
    """The bucket, and machines of this cluster. `security_group` is an id."""
    ec2 = f"arn:{scope.partition}:ec2:{scope.region}"
    own = f"{ec2}:{scope.account_id}"
    return _policy(
        *_bucket_rights(scope),
        _allow("LookAround", ["ec2:DescribeInstances", "ec2:DescribeInstanceTypes", "ec2:DescribeSubnets"], "*"),
        _allow(
            "StartMachinesOfThisCluster",
            "ec2:RunInstances",
            f"{own}:instance/*",
            StringEquals={f"aws:RequestTag/{_RAY_TAG}": scope.cluster, "ec2:MetadataHttpTokens": "required"},
        ),
        _allow("EncryptedDisksOnly", "ec2:RunInstances", f"{own}:volume/*", Bool={"ec2:Encrypted": "true"}),
        _allow(
            "WithTheseParts",
            "ec2:RunInstances",
            [
                f"{own}:security-group/{security_group}",
                f"{own}:network-interface/*",
                f"{own}:subnet/*",
                f"{own}:key-pair/*",
                f"{own}:placement-group/*",
                f"{own}:spot-instances-request/*",
                f"{ec2}::image/*",
            ],
        ),
        _allow(
            "TagWhatIsStarted",
            "ec2:CreateTags",
            [f"{own}:{kind}/*" for kind in ("instance", "volume", "network-interface", "spot-instances-request")],
            StringEquals={"ec2:CreateAction": "RunInstances"},
        ),
        # Ray notes a machine's state in its tags. Only machines that already bear the cluster's name, so no other
        # machine can be made one of the cluster's, and then be stopped.
        _allow(
            "NoteTheStateOfMachinesOfThisCluster",
            ["ec2:CreateTags", "ec2:TerminateInstances"],
            f"{own}:instance/*",
            StringEquals={f"ec2:ResourceTag/{_RAY_TAG}": scope.cluster},
        ),
        _allow(
            "GiveWorkersTheirRole",
            "iam:PassRole",
            f"arn:{scope.partition}:iam::{scope.account_id}:role/{worker_role}",
            StringEquals={"iam:PassedToService": "ec2.amazonaws.com"},
        ),
        _allow(
            "FindThePublicImages",
            "ssm:GetParameters",
            [
                f"arn:{scope.partition}:ssm:{scope.region}::parameter/aws/service/{publisher}/*"
                for publisher in ("canonical", "deeplearning")
            ],
        ),
        # Secrets that jobs name by reference, as --secret HF_TOKEN=ssm:/scaletrain/hf-token.
        _allow(
            "ReadSecretsOfScaletrain",
            "ssm:GetParameter",
            f"arn:{scope.partition}:ssm:{scope.region}:{scope.account_id}:parameter/scaletrain/*",
        ),
    )


def _bucket_rights(scope: Scope) -> list[dict[str, Any]]:
    bucket = f"arn:{scope.partition}:s3:::{scope.bucket}"
    below = f"{scope.prefix}/*" if scope.prefix else "*"
    listed = [scope.prefix, below, "raw", "raw/*"] if scope.prefix else ["*"]
    return [
        _allow("ListBelowTheRoot", "s3:ListBucket", bucket, StringLike={"s3:prefix": listed}),
        _allow("FindTheBucket", "s3:GetBucketLocation", bucket),
        _allow(
            "ReadAndWriteBelowTheRoot",
            ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"],
            f"{bucket}/{below}",
        ),
        _allow("ReadRawData", "s3:GetObject", f"{bucket}/raw/*"),
    ]


def _allow(
    name: str, action: str | list[str], resource: str | list[str], **condition: dict[str, Any]
) -> dict[str, Any]:
    statement: dict[str, Any] = {"Sid": name, "Effect": "Allow", "Action": action, "Resource": resource}
    return {**statement, "Condition": condition} if condition else statement


def _policy(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}
