"""IAM's policies: who has which role on what, read and written as the API wants it."""

import base64
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence

from scaletrain.emulator import google_condition
from scaletrain.emulator.google_condition import Subject
from scaletrain.emulator.google_request import Refusal, Resource
from scaletrain.emulator.google_roles import grants

PermissionsOf = Callable[[str], list[str] | None]
_PROJECT_MEMBERS = {
    "projectOwner": "roles/owner",
    "projectEditor": "roles/editor",
    "projectViewer": "roles/viewer",
}


def new_policy(bindings: Sequence[Resource] = ()) -> Resource:
    """Make a policy."""
    return _stamped({"version": 1, "bindings": [dict(each) for each in bindings]})


def allows(
    policies: Iterable[Resource], member: str, permission: str, subject: Subject, permissions_of: PermissionsOf
) -> bool:
    """Tell whether some policy gives a member a permission on what `subject` is."""
    for policy in policies:
        for binding in policy.get("bindings", []):
            if not {member, "allUsers", "allAuthenticatedUsers"} & {*binding["members"]}:
                continue
            if not grants(permissions_of(binding["role"]) or [], permission):
                continue
            condition = binding.get("condition")
            if condition is None or google_condition.holds(condition["expression"], subject):
                return True
    return False


def with_project_members(policy: Resource, project_policy: Resource, project: str) -> Resource:
    """Return a bucket's policy with the members that stand for a project's owners, editors and viewers written out."""
    bindings = []
    for binding in policy.get("bindings", []):
        members = [*binding["members"]]
        for word, role in _PROJECT_MEMBERS.items():
            if f"{word}:{project}" in members:
                members += [
                    each for own in project_policy["bindings"] if own["role"] == role for each in own["members"]
                ]
        bindings.append({**binding, "members": members})
    return {**policy, "bindings": bindings}


def read(policy: Resource, requested_version: int) -> Resource:
    """Return a policy as whoever asks for this version sees it: conditions are shown to version 3 alone."""
    if requested_version >= 3 or not any("condition" in each for each in policy["bindings"]):
        return policy
    bindings = []
    for each in policy["bindings"]:
        if "condition" in each:
            digest = hashlib.sha256(json.dumps(each["condition"], sort_keys=True).encode()).hexdigest()[:20]
            each = {"role": f"{each['role']}_withcond_{digest}", "members": each["members"]}
        bindings.append(each)
    return {**policy, "version": 1, "bindings": bindings}


def write(
    old: Resource, wanted: Resource, *, permissions_of: PermissionsOf, member_exists: Callable[[str], bool]
) -> Resource:
    """Return the policy that replaces `old`; refuses a stale one, and roles and members that are not there."""
    if wanted.get("etag", old["etag"]) != old["etag"]:
        message = "There were concurrent policy changes. Please retry the whole read-modify-write."
        raise Refusal(409, "conflict", message)
    bindings = wanted.get("bindings", [])
    conditional = any(each.get("condition") for each in bindings)
    if conditional and wanted.get("version") != 3:
        raise Refusal(400, "badRequest", "A policy with conditions must have version 3.")
    for each in bindings:
        if permissions_of(each["role"]) is None:
            raise Refusal(400, "badRequest", f"Role {each['role']} is not supported for this resource.")
        for member in each["members"]:
            if not member_exists(member):
                raise Refusal(400, "badRequest", f"{member.partition(':')[2]} does not exist.")
        if each.get("condition"):
            google_condition.holds(each["condition"]["expression"], Subject())
    kept = [each for each in bindings if each["members"]]
    return _stamped({"version": 3 if conditional else 1, "bindings": kept})


def without_account(policy: Resource, email: str, unique_id: str) -> Resource:
    """Return a policy after the end of a service account, whose name alone stays in it."""
    old, new = f"serviceAccount:{email}", f"deleted:serviceAccount:{email}?uid={unique_id}"
    bindings = [
        {**each, "members": [new if member == old else member for member in each["members"]]}
        for each in policy["bindings"]
    ]
    return _stamped({**policy, "bindings": bindings})


def _stamped(policy: Resource) -> Resource:
    content = {key: value for key, value in policy.items() if key != "etag"}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).digest()[:8]
    return {**content, "etag": base64.b64encode(digest).decode()}
