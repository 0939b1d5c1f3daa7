"""permissions: what IAM's policy language allows and denies."""

import pytest

from scaletrain.emulator.aws_permissions import Request, is_allowed

ANY = "*"


def policy(effect: str, action: str | list[str], resource: str | list[str] = ANY, **condition: object) -> dict:  # type: ignore[type-arg]
    statement = {"Effect": effect, "Action": action, "Resource": resource}
    return {"Version": "2012-10-17", "Statement": [{**statement, **({"Condition": condition} if condition else {})}]}


def test_nothing_is_allowed_without_a_statement() -> None:
    """No policy, no right."""
    assert not is_allowed([], Request("s3:GetObject", "arn:aws:s3:::b/k"))
    assert not is_allowed([policy("Allow", "s3:PutObject")], Request("s3:GetObject", "arn:aws:s3:::b/k"))


def test_actions_have_wildcards_and_no_case() -> None:
    """`ec2:describe*` allows DescribeInstances."""
    assert is_allowed([policy("Allow", "ec2:describe*")], Request("ec2:DescribeInstances"))


def test_a_resource_counts_by_its_pattern() -> None:
    """A prefix of a bucket does not open its neighbour; dots are dots."""
    rights = [policy("Allow", "s3:*", "arn:aws:s3:::a.b/runs/*")]
    assert is_allowed(rights, Request("s3:PutObject", "arn:aws:s3:::a.b/runs/x/y"))
    assert not is_allowed(rights, Request("s3:PutObject", "arn:aws:s3:::a.b/other"))
    assert not is_allowed(rights, Request("s3:PutObject", "arn:aws:s3:::aXb/runs/x"))


def test_a_right_on_some_resource_is_none_on_all() -> None:
    """DescribeInstances asks for "*", which a pattern of instances does not cover."""
    rights = [policy("Allow", "ec2:DescribeInstances", "arn:aws:ec2:*:*:instance/*")]
    assert not is_allowed(rights, Request("ec2:DescribeInstances", ANY))


def test_a_denial_is_stronger_than_any_right() -> None:
    """In whatever order they stand."""
    rights = [policy("Allow", "s3:*"), policy("Deny", "s3:DeleteObject")]
    assert is_allowed(rights, Request("s3:GetObject", "arn:aws:s3:::b/k"))
    assert not is_allowed(rights, Request("s3:DeleteObject", "arn:aws:s3:::b/k"))


@pytest.mark.parametrize(
    ("condition", "allowed"),
    [
        ({"StringEquals": {"aws:ResourceTag/ray-cluster-name": "mine"}}, True),
        ({"StringEquals": {"aws:resourcetag/ray-cluster-name": ["other", "mine"]}}, True),
        ({"StringEquals": {"aws:ResourceTag/ray-cluster-name": "other"}}, False),
        ({"StringLike": {"aws:ResourceTag/ray-cluster-name": "m*"}}, True),
        ({"StringNotEquals": {"aws:ResourceTag/ray-cluster-name": "mine"}}, False),
        ({"StringEquals": {"aws:ResourceTag/absent": "x"}}, False),
        ({"StringEqualsIfExists": {"aws:ResourceTag/absent": "x"}}, True),
        ({"Null": {"aws:ResourceTag/absent": "true"}}, True),
        ({"Null": {"aws:ResourceTag/ray-cluster-name": "true"}}, False),
        ({"ForAllValues:StringEquals": {"aws:TagKeys": ["a", "b", "c"]}}, True),
        ({"ForAllValues:StringEquals": {"aws:TagKeys": ["a"]}}, False),
        ({"ForAnyValue:StringEquals": {"aws:TagKeys": ["b"]}}, True),
        ({"IpAddress": {"aws:SourceIp": "203.0.113.0/24"}}, True),
        ({"NotIpAddress": {"aws:SourceIp": "203.0.113.0/24"}}, False),
        ({"NumericLessThan": {"aws:SourceIp": "1"}}, False),
    ],
)
def test_conditions(condition: dict[str, object], allowed: bool) -> None:
    """Each operator as IAM documents it; one that is not known is not met."""
    context = {
        "aws:ResourceTag/ray-cluster-name": "mine",
        "aws:TagKeys": ["a", "b"],
        "aws:SourceIp": "203.0.113.9",
    }
    asked = Request("ec2:TerminateInstances", "arn:aws:ec2:r:1:instance/i-1", context)
    assert is_allowed([policy("Allow", "ec2:*", ANY, **condition)], asked) is allowed
