"""The service accounts of a cluster's machines, the roles of the head, and Ray's own account, which is kept shut."""

from collections.abc import Callable
from typing import Any

from scaletrain.cluster.gcp_account import Project, execute, get_or_none, google_errors, last_part, patiently
from scaletrain.cluster.gcp_plan import Wanted, account_address
from scaletrain.cluster.gcp_policies import (
    HEAD_PERMISSIONS,
    MACHINES_PERMISSIONS,
    USE_ACCOUNT,
    Right,
    gives_just,
    project_rights,
    rights_of,
    with_rights,
    without_members,
)
from scaletrain.cluster.plan import Step
from scaletrain.errors import ConfigError

# `ray up` makes this account in every project and gives it compute.admin, storage.objectAdmin and the right to use
# every other account, whether a file uses it or not.
RAYS_ACCOUNT_ID = "ray-autoscaler-sa-v1"
_OURS = "scaletrain: "  # begins the description of the accounts that are ours


def role_steps(project: Project, wanted: Wanted) -> list[Step]:
    """Compare accounts, roles and the project's policy with what they should be."""
    head = f"serviceAccount:{wanted.head_account}"
    return [
        rays_account_step(project),
        _account_step(project, wanted.worker_account, f"workers of {wanted.cluster}", "the bucket, nothing else"),
        _account_step(project, wanted.head_account, f"head of {wanted.cluster}", "workers of this cluster; the bucket"),
        _role_step(project, wanted.head_role, HEAD_PERMISSIONS),
        _role_step(project, wanted.machines_role, MACHINES_PERMISSIONS),
        _use_account_step(project, wanted.worker_account, [Right(USE_ACCOUNT, head)]),
        _project_policy_step(project, project_rights(wanted)),
    ]


def role_removal_steps(project: Project, wanted: Wanted) -> list[Step]:
    """Say which accounts, roles and rights go. Google keeps a removed role for 7 days, without any effect."""
    steps = []
    accounts = [wanted.head_account, wanted.worker_account]
    rays = account_address(RAYS_ACCOUNT_ID, project.project_id)
    if _is_ours(_account(project, rays)) and not _other_clusters(project, wanted):
        accounts.append(rays)
    members = {f"serviceAccount:{account}" for account in accounts}
    with google_errors("looking at the project's policy"):
        policy = read_project_policy(project)
    if rights_of(policy, members):
        steps.append(
            Step("rights in the project", "remove", "", lambda: _change_policy(project, without_members, members))
        )
    for account in accounts:
        there = _account(project, account)
        if there is None:
            continue
        if not _is_ours(there):
            steps.append(Step(f"service account {account}", "keep", "not made by scaletrain"))
            continue
        steps.append(Step(f"service account {account}", "remove", "", _account_removal(project, account)))
    for role in (wanted.head_role, wanted.machines_role):
        with google_errors(f"looking at role {last_part(role)}"):
            found = get_or_none(project.service("iam").projects().roles().get(name=role))
        if found is not None and not found.get("deleted"):
            steps.append(Step(f"role {last_part(role)}", "remove", "", _role_removal(project, role)))
    return steps


def rays_account_step(project: Project) -> Step:
    """Make Ray's own account before Ray does, and switch it off: nobody can then use what `ray up` gives to it."""
    account = account_address(RAYS_ACCOUNT_ID, project.project_id)
    what = f"Ray's own service account {RAYS_ACCOUNT_ID}"
    there = _account(project, account)
    accounts = project.service("iam").projects().serviceAccounts()
    name = f"projects/{project.project_id}/serviceAccounts/{account}"

    def make() -> None:
        with google_errors(f"making {what}"):
            if there is None:
                _create_account(project, RAYS_ACCOUNT_ID, "made by Ray in every project; not used, and switched off")
            patiently(lambda: execute(accounts.disable(name=name, body={})))

    if there is None:
        return Step(what, "make", "switched off: `ray up` gives it far too many rights, and nobody needs it", make)
    if there.get("disabled"):
        return Step(what, "", "switched off")
    if _is_ours(there):
        return Step(what, "change", "switch it off again", make)
    return Step(what, "keep", "another Ray cluster of this project may need it")


def read_project_policy(project: Project) -> dict[str, Any]:
    """Return the project's whole policy, with its conditions."""
    projects = project.service("cloudresourcemanager").projects()
    return execute(projects.getIamPolicy(resource=project.project_id, body={"options": {"requestedPolicyVersion": 3}}))


def read_account_policy(project: Project, account: str) -> dict[str, Any]:
    """Return who may do what with a service account."""
    accounts = project.service("iam").projects().serviceAccounts()
    name = f"projects/{project.project_id}/serviceAccounts/{account}"
    return execute(accounts.getIamPolicy(resource=name, options_requestedPolicyVersion=3))


def _account(project: Project, address: str) -> dict[str, Any] | None:
    accounts = project.service("iam").projects().serviceAccounts()
    with google_errors(f"looking at service account {address}"):
        return get_or_none(accounts.get(name=f"projects/{project.project_id}/serviceAccounts/{address}"))


def _is_ours(account: dict[str, Any] | None) -> bool:
    return account is not None and str(account.get("description", "")).startswith(_OURS)


def _other_clusters(project: Project, wanted: Wanted) -> bool:
    """Say whether the project has heads of other clusters of ours, which need Ray's account to stay shut."""
    accounts = project.service("iam").projects().serviceAccounts()
    request = accounts.list(name=f"projects/{project.project_id}")
    while request is not None:
        answer = execute(request)
        for each in answer.get("accounts", ()):
            ours = str(each.get("description", "")).startswith(f"{_OURS}head of ")
            if ours and each["email"] != wanted.head_account:
                return True
        request = accounts.list_next(request, answer)
    return False


def _account_step(project: Project, address: str, description: str, summary: str) -> Step:
    what = f"service account {address}"
    there = _account(project, address)
    if there is not None and not _is_ours(there):
        raise ConfigError(f"there is a {what} already that is not this cluster's; choose another cluster_name")

    def make() -> None:
        with google_errors(f"making {what}"):
            _create_account(project, address.partition("@")[0], description)

    return Step(what, "") if there else Step(what, "make", summary, make)


def _create_account(project: Project, account_id: str, description: str) -> None:
    accounts = project.service("iam").projects().serviceAccounts()
    account = {"displayName": account_id, "description": f"{_OURS}{description}"}
    execute(
        accounts.create(
            name=f"projects/{project.project_id}", body={"accountId": account_id, "serviceAccount": account}
        )
    )


def _role_step(project: Project, role: str, permissions: tuple[str, ...]) -> Step:
    roles = project.service("iam").projects().roles()
    what = f"role {last_part(role)}"
    body = {
        "title": f"scaletrain: {last_part(role)}",
        "description": "What the head of a training cluster needs",
        "includedPermissions": sorted(permissions),
        "stage": "GA",
    }
    with google_errors(f"looking at {what}"):
        there = get_or_none(roles.get(name=role))

    def make() -> None:
        with google_errors(f"making {what}"):
            if there is None:
                parent = f"projects/{project.project_id}"
                execute(roles.create(parent=parent, body={"roleId": last_part(role), "role": body}))
                return
            if there.get("deleted"):  # an earlier --destroy; its name is taken until Google has forgotten it
                execute(roles.undelete(name=role, body={}))
            execute(roles.patch(name=role, body=body, updateMask=",".join(body)))

    if there is None or there.get("deleted"):
        return Step(what, "make", f"{len(permissions)} rights", make)
    if sorted(there.get("includedPermissions", ())) != sorted(permissions):
        return Step(what, "change", "give it the rights that the head needs, and no others", make)
    return Step(what, "")


def _use_account_step(project: Project, account: str, rights: list[Right]) -> Step:
    """The head must be able to give workers their account; it may give them no other."""
    what = f"use of {account.partition('@')[0]}"
    detail = "the head may give it to workers"
    accounts = project.service("iam").projects().serviceAccounts()
    name = f"projects/{project.project_id}/serviceAccounts/{account}"

    def make() -> None:
        def once() -> None:
            policy = with_rights(read_account_policy(project, account), rights)
            execute(accounts.setIamPolicy(resource=name, body={"policy": policy}))

        with google_errors(f"allowing the {what}"):
            patiently(once)

    if _account(project, account) is None:
        return Step(what, "make", detail, make)
    with google_errors(f"looking at the {what}"):
        policy = read_account_policy(project, account)
    return Step(what, "", detail) if gives_just(policy, rights) else Step(what, "change", detail, make)


def _project_policy_step(project: Project, rights: list[Right]) -> Step:
    what = "rights of the head in the project"
    with google_errors(f"looking at the {what}"):
        policy = read_project_policy(project)
    if gives_just(policy, rights):
        return Step(what, "")
    return Step(what, "change", rights[-1].title, lambda: _change_policy(project, with_rights, rights))


def _change_policy(project: Project, change: Callable[[dict[str, Any], Any], dict[str, Any]], argument: Any) -> None:
    """Read the project's policy, change it and write it back; again, where somebody else has changed it meanwhile."""
    projects = project.service("cloudresourcemanager").projects()

    def once() -> None:
        policy = change(read_project_policy(project), argument)
        execute(projects.setIamPolicy(resource=project.project_id, body={"policy": policy}))

    with google_errors("changing the project's policy"):
        patiently(once)


def _account_removal(project: Project, address: str) -> Callable[[], None]:
    def remove() -> None:
        with google_errors(f"removing service account {address}"):
            accounts = project.service("iam").projects().serviceAccounts()
            execute(accounts.delete(name=f"projects/{project.project_id}/serviceAccounts/{address}"))

    return remove


def _role_removal(project: Project, role: str) -> Callable[[], None]:
    def remove() -> None:
        with google_errors(f"removing role {last_part(role)}"):
            execute(project.service("iam").projects().roles().delete(name=role))

    return remove
