"""What the machines of a cluster may do in the project, as roles and bindings of IAM: no more than they need.

The head starts and stops machines, but only workers of its own cluster, by their names, and only with the workers'
account; both reach only the storage root in the bucket, and may read raw/ beside it. What Ray calls is in its
autoscaler/_private/gcp/node.py; which right each call needs:
https://cloud.google.com/compute/docs/reference/rest/v1/instances/insert
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from scaletrain.cluster.gcp_plan import Wanted

# Asked of the whole project, so without a condition on a machine's name.
HEAD_PERMISSIONS = (
    "compute.images.useReadOnly",  # an image of `scaletrain cluster image`; public ones are open to everybody
    "compute.instances.list",
    "compute.subnetworks.use",
    "compute.subnetworks.useExternalIp",
    "compute.zoneOperations.get",
)
# Asked of one machine or its disk. Labels, tags, metadata and account are set when it is made; Ray keeps its notes in
# the labels.
MACHINES_PERMISSIONS = (
    "compute.disks.create",
    "compute.disks.setLabels",
    "compute.instances.create",
    "compute.instances.delete",
    "compute.instances.get",
    "compute.instances.setLabels",
    "compute.instances.setMetadata",
    "compute.instances.setServiceAccount",
    "compute.instances.setTags",
    "compute.instances.updateShieldedVmConfig",
)
USE_ACCOUNT = "roles/iam.serviceAccountUser"
READ_SECRETS = "roles/secretmanager.secretAccessor"
READ_AND_WRITE = "roles/storage.objectUser"
READ = "roles/storage.objectViewer"
_TERM = re.compile(r"resource\.(?P<field>name|type)(?:\.startsWith\(\"(?P<start>[^\"]*)\"\)| != \"(?P<not>[^\"]*)\")")


@dataclass(frozen=True)
class Right:
    """One binding: a role for one member, on resources for which the expression holds ("": on all)."""

    role: str
    member: str
    title: str = ""
    expression: str = ""

    def binding(self) -> dict[str, Any]:
        """The right in the form of an IAM policy."""
        bare: dict[str, Any] = {"role": self.role, "members": [self.member]}
        if not self.expression:
            return bare
        return {**bare, "condition": {"title": self.title, "expression": self.expression}}


def project_rights(wanted: Wanted) -> list[Right]:
    """What the head may do with machines; and the secrets that jobs name, as HF_TOKEN=gcp:scaletrain-hf."""
    head = f"serviceAccount:{wanted.head_account}"
    own = f"projects/{wanted.project_id}/zones/{wanted.zone}"
    expression = " || ".join(
        f'resource.name.startsWith("{own}/{kind}/ray-{wanted.cluster}-worker-")' for kind in ("instances", "disks")
    )
    secrets = f'resource.name.startsWith("projects/{wanted.project_number}/secrets/scaletrain-")'
    return [
        Right(wanted.head_role, head),
        Right(READ_SECRETS, head, "secrets of scaletrain", secrets),
        Right(wanted.machines_role, head, f"workers of {wanted.cluster}", expression),
    ]


def bucket_rights(wanted: Wanted) -> list[Right]:
    """What head and workers may do in the bucket. The names in it may be listed; a listing is asked of the bucket."""
    rights = []
    for account in (wanted.head_account, wanted.worker_account):
        for role, folder in ((READ_AND_WRITE, wanted.prefix), (READ, "raw")):
            start = f"projects/_/buckets/{wanted.bucket}/objects/{folder}/"
            expression = f'resource.type != "storage.googleapis.com/Object" || resource.name.startsWith("{start}")'
            rights.append(Right(role, f"serviceAccount:{account}", f"{wanted.cluster}: {folder}", expression))
    return rights


def holds(expression: str, *, resource: str, kind: str) -> bool | None:
    """Say whether a condition holds for a resource, by its name and type; None where it is not of our own form."""
    terms = [_TERM.fullmatch(each.strip()) for each in expression.split("||")]
    known = [each for each in terms if each is not None]
    for term in known:
        value = resource if term["field"] == "name" else kind
        if (value.startswith(term["start"])) if term["start"] is not None else value != term["not"]:
            return True
    return False if len(known) == len(terms) else None


def rights_of(policy: dict[str, Any], members: set[str]) -> set[Right]:
    """Return the rights that a policy gives to some members by name."""
    return {
        Right(str(each["role"]), member, condition.get("title", ""), condition.get("expression", ""))
        for each in policy.get("bindings", ())
        for condition in [each.get("condition") or {}]
        for member in each.get("members", ())
        if member in members
    }


def gives_just(policy: dict[str, Any], rights: list[Right]) -> bool:
    """Say whether a policy gives these rights, and none of their roles to the same member without the condition."""
    managed = {(right.role, right.member) for right in rights}
    there = rights_of(policy, {right.member for right in rights})
    return {each for each in there if (each.role, each.member) in managed} == set(rights)


def with_rights(policy: dict[str, Any], rights: list[Right]) -> dict[str, Any]:
    """Return a policy that gives just these rights; other roles of the same members, and other members, stay."""
    managed = {(right.role, right.member) for right in rights}
    kept = _without(policy, lambda role, member: (role, member) in managed)
    return {**policy, "version": 3, "bindings": [*kept, *(right.binding() for right in rights)]}


def without_members(policy: dict[str, Any], members: set[str]) -> dict[str, Any]:
    """Return a policy that gives some members nothing any more."""
    return {**policy, "version": 3, "bindings": _without(policy, lambda role, member: member in members)}


def _without(policy: dict[str, Any], goes: Callable[[str, str], bool]) -> list[dict[str, Any]]:
    kept = [
        {**each, "members": [member for member in each.get("members", ()) if not goes(each["role"], member)]}
        for each in policy.get("bindings", ())
    ]
    return [each for each in kept if each["members"]]
