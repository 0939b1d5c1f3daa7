"""The roles and instance profiles of a cluster's machines, and the role by which AWS itself starts spot machines."""

import json
from collections.abc import Callable
from typing import Any

from scaletrain.cluster.aws_account import TAG, Account, aws_errors, error_code, has_tag, tags_of
from scaletrain.cluster.aws_plan import Found, Wanted
from scaletrain.cluster.aws_policies import Scope, head_policy, trust_policy, worker_policy
from scaletrain.cluster.plan import Step
from scaletrain.errors import ConfigError

_POLICY_NAME = "scaletrain"
_SPOT_SERVICE = "spot.amazonaws.com"


def role_steps(account: Account, wanted: Wanted, found: Found) -> list[Step]:
    """Compare the two roles with what they should be; the head's needs the security group's id, so it comes late."""
    scope = Scope(account.partition, account.region, account.account_id, wanted.cluster, wanted.bucket, wanted.prefix)

    def for_head() -> dict[str, Any]:
        return head_policy(scope, worker_role=wanted.worker_role, security_group=found.ids["security_group"])

    known = "security_group" in found.ids
    return [
        _spot_role_step(account),
        _role_step(account, wanted, wanted.worker_role, lambda: worker_policy(scope), comparable=True),
        _role_step(account, wanted, wanted.head_role, for_head, comparable=known),
    ]


def role_removal_steps(account: Account, wanted: Wanted) -> list[Step]:
    """Say which roles and profiles go. The spot role stays: it is the account's, and other spot users need it."""
    iam = account.client("iam")
    steps = []
    for name in (wanted.head_role, wanted.worker_role):
        with aws_errors(f"looking at role {name}"):
            role = _get(iam.get_role, "Role", RoleName=name)
            profile = _get(iam.get_instance_profile, "InstanceProfile", InstanceProfileName=name)
        if role is None and profile is None:
            continue
        if role is not None and not has_tag(role.get("Tags"), wanted.cluster):
            steps.append(Step(f"role {name}", "keep", "not made by scaletrain for this cluster"))
            continue
        steps.append(Step(f"role and profile {name}", "remove", "", _removal(iam, name)))
    return steps


def _role_step(
    account: Account, wanted: Wanted, name: str, policy: Callable[[], dict[str, Any]], *, comparable: bool
) -> Step:
    iam = account.client("iam")
    what = f"role and profile {name}"
    with aws_errors(f"looking at {what}"):
        role = _get(iam.get_role, "Role", RoleName=name)
        profile = _get(iam.get_instance_profile, "InstanceProfile", InstanceProfileName=name)
        current = _get(iam.get_role_policy, "PolicyDocument", RoleName=name, PolicyName=_POLICY_NAME)
    if role is not None and not has_tag(role.get("Tags"), wanted.cluster):
        raise ConfigError(
            f"there is a role {name} already that is not this cluster's (no tag {TAG}={wanted.cluster}); choose "
            "another cluster_name"
        )

    def make() -> None:
        with aws_errors(f"making {what}"):
            if role is None:
                iam.create_role(
                    RoleName=name,
                    AssumeRolePolicyDocument=json.dumps(trust_policy()),
                    Description="scaletrain: machines of a training cluster",
                    Tags=tags_of(wanted.cluster),
                )
            if current is None or current != policy():
                iam.put_role_policy(RoleName=name, PolicyName=_POLICY_NAME, PolicyDocument=json.dumps(policy()))
            if profile is None:
                iam.create_instance_profile(InstanceProfileName=name, Tags=tags_of(wanted.cluster))
                iam.get_waiter("instance_profile_exists").wait(InstanceProfileName=name)
            if not (profile or {}).get("Roles"):
                iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)

    if role is None or profile is None:
        return Step(what, "make", _summary(name == wanted.head_role), make)
    if not profile["Roles"] or not comparable or current != policy():
        return Step(what, "change", "give it the rights that this file needs", make)
    return Step(what, "")


def _summary(is_head: bool) -> str:
    return "machines of this cluster, and its bucket" if is_head else "its bucket, nothing else"


def _spot_role_step(account: Account) -> Step:
    """Without it the head, which may not make roles, could start no spot machine in a new account."""
    iam = account.client("iam")
    what = f"role of {_SPOT_SERVICE}"
    with aws_errors(f"looking at {what}"):
        if iam.list_roles(PathPrefix=f"/aws-service-role/{_SPOT_SERVICE}/")["Roles"]:
            return Step(what, "")

    def make() -> None:
        with aws_errors(f"making {what}"):
            iam.create_service_linked_role(AWSServiceName=_SPOT_SERVICE)

    return Step(what, "make", "AWS's own, once for the account: it starts spot machines", make)


def _removal(iam: Any, name: str) -> Callable[[], None]:
    def remove() -> None:
        with aws_errors(f"removing role and profile {name}"):
            profile = _get(iam.get_instance_profile, "InstanceProfile", InstanceProfileName=name)
            if profile is not None:
                for role in profile["Roles"]:
                    iam.remove_role_from_instance_profile(InstanceProfileName=name, RoleName=role["RoleName"])
                iam.delete_instance_profile(InstanceProfileName=name)
            if _get(iam.get_role, "Role", RoleName=name) is not None:
                for policy in iam.list_role_policies(RoleName=name)["PolicyNames"]:
                    iam.delete_role_policy(RoleName=name, PolicyName=policy)
                for attached in iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]:
                    iam.detach_role_policy(RoleName=name, PolicyArn=attached["PolicyArn"])
                iam.delete_role(RoleName=name)

    return remove


def _get(question: Any, key: str, **arguments: str) -> dict[str, Any] | None:
    """Return one part of IAM's answer, or None where there is no such thing."""
    from botocore.exceptions import ClientError

    try:
        answer: dict[str, Any] = question(**arguments)[key]
    except ClientError as error:
        if error_code(error) == "NoSuchEntity":
            return None
        raise
    return answer
