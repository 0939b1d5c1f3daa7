"""What may a service account do: read from policies and roles, since Google says it of the caller alone.

Rights that a folder or the organisation gives are not seen; groups are not resolved.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from scaletrain.cluster.gcp_account import Project, get_or_none, google_errors, last_part
from scaletrain.cluster.gcp_policies import holds

# What no machine of a cluster should have in the whole project.
BROAD_ROLES = (
    "roles/compute.admin",
    "roles/editor",
    "roles/iam.serviceAccountAdmin",
    "roles/iam.serviceAccountTokenCreator",
    "roles/iam.serviceAccountUser",
    "roles/owner",
    "roles/resourcemanager.projectIamAdmin",
    "roles/storage.admin",
)


@dataclass
class Judge:
    """Says what accounts may do by the policies that it is given; each role is asked of Google once."""

    project: Project
    _permissions: dict[str, frozenset[str]] = field(default_factory=dict)

    def denied(
        self, account: str, permissions: Sequence[str], policies: Sequence[dict[str, Any]], *, resource: str, kind: str
    ) -> list[str]:
        """Return the permissions that no policy gives; one under a condition that cannot be read counts as given."""
        given: set[str] = set()
        for binding in (each for policy in policies for each in policy.get("bindings", ())):
            if f"serviceAccount:{account}" not in binding.get("members", ()):
                continue
            condition = binding.get("condition")
            if condition and holds(condition["expression"], resource=resource, kind=kind) is False:
                continue
            given |= self.permissions_of(binding["role"])
        return sorted(set(permissions) - given)

    def permissions_of(self, role: str) -> frozenset[str]:
        """Return what a role permits; nothing, where it is deleted."""
        if role not in self._permissions:
            iam = self.project.service("iam")
            roles = iam.projects().roles() if role.startswith("projects/") else iam.roles()
            with google_errors(f"looking at role {last_part(role)}"):
                found = get_or_none(roles.get(name=role)) or {}
            included = () if found.get("deleted") else found.get("includedPermissions", ())
            self._permissions[role] = frozenset(included)
        return self._permissions[role]


def broad_roles(account: str, policy: dict[str, Any]) -> list[str]:
    """Return the roles that a policy gives to an account although no machine of a cluster should have them."""
    member = f"serviceAccount:{account}"
    bindings = policy.get("bindings", ())
    return sorted({each["role"] for each in bindings if each["role"] in BROAD_ROLES and member in each["members"]})
