"""IAM by Google's own client: accounts, roles, policies as read and written."""

from typing import Any

import pytest
from google_client import GoogleApis
from test_gce_api import status_of

PROJECT = f"projects/{GoogleApis.project}"


@pytest.fixture(scope="module")
def iam(google: GoogleApis) -> Any:
    return google.build("iam").projects()


@pytest.fixture(scope="module")
def manager(google: GoogleApis) -> Any:
    return google.build("cloudresourcemanager").projects()


def read(manager: Any, version: int = 3) -> Any:
    body = {"options": {"requestedPolicyVersion": version}}
    return manager.getIamPolicy(resource=GoogleApis.project, body=body).execute()


def write(manager: Any, policy: Any) -> Any:
    return manager.setIamPolicy(resource=GoogleApis.project, body={"policy": policy}).execute()


def test_a_deleted_account_leaves_its_name_in_policies(iam: Any, manager: Any) -> None:
    """A new one of the same name gets none of the old one's rights."""
    accounts = iam.serviceAccounts()
    account = accounts.create(name=PROJECT, body={"accountId": "shortlived"}).execute()
    assert status_of(accounts.create(name=PROJECT, body={"accountId": "shortlived"}).execute)[0] == 409
    policy = read(manager)
    member = f"serviceAccount:{account['email']}"
    binding = {"role": "roles/viewer", "members": [member]}
    write(manager, {**policy, "bindings": [*policy["bindings"], binding]})
    accounts.delete(name=account["name"]).execute()
    members = [each for binding in read(manager)["bindings"] for each in binding["members"]]
    assert member not in members and f"deleted:{member}?uid={account['uniqueId']}" in members
    assert status_of(accounts.get(name=account["name"]).execute)[0] == 404


def test_a_policy_is_written_by_whoever_has_read_it(manager: Any) -> None:
    """A stale etag, an unknown role or account, and a condition in an old version are refused."""
    policy = read(manager)
    somebody = {"role": "roles/viewer", "members": ["user:somebody@example.com"]}
    written = write(manager, {**policy, "bindings": [*policy["bindings"], somebody]})
    assert status_of(lambda: write(manager, policy))[0] == 409
    nobody = f"serviceAccount:nobody@{GoogleApis.project}.iam.gserviceaccount.com"
    condition = {"title": "t", "expression": 'resource.name == "x"'}
    for wrong in (
        {"role": "roles/nothing", "members": ["user:a@example.com"]},
        {"role": "roles/viewer", "members": [nobody]},
        {"role": "roles/viewer", "members": ["user:a@example.com"], "condition": condition},
    ):
        wanted = {**written, "version": 1, "bindings": [*written["bindings"], wrong]}
        assert status_of(lambda wanted=wanted: write(manager, wanted))[0] == 400


def test_conditions_are_shown_to_version_3_alone(manager: Any) -> None:
    """Who reads an older version sees that there is one, and would lose it by writing."""
    policy = read(manager)
    condition = {"title": "t", "expression": 'resource.name == "x"'}
    binding = {"role": "roles/browser-less", "members": ["user:c@example.com"], "condition": condition}
    binding["role"] = "roles/compute.viewer"
    write(manager, {**policy, "version": 3, "bindings": [*policy["bindings"], binding]})
    assert [each["condition"] for each in read(manager)["bindings"] if "condition" in each] == [condition]
    old = read(manager, version=1)
    assert old["version"] == 1
    assert [each for each in old["bindings"] if each["role"].startswith("roles/compute.viewer_withcond_")]


def test_a_deleted_role_keeps_its_name(iam: Any) -> None:
    """It has to be undeleted; until then it gives nothing, and its name cannot be used anew."""
    roles = iam.roles()
    body = {"roleId": "kept", "role": {"title": "t", "includedPermissions": ["compute.instances.list"]}}
    name = roles.create(parent=PROJECT, body=body).execute()["name"]
    roles.delete(name=name).execute()
    assert roles.get(name=name).execute()["deleted"] is True
    assert name not in [each["name"] for each in roles.list(parent=PROJECT).execute().get("roles", [])]
    assert name in [each["name"] for each in roles.list(parent=PROJECT, showDeleted=True).execute()["roles"]]
    assert status_of(roles.create(parent=PROJECT, body=body).execute)[0] == 409
    roles.undelete(name=name, body={}).execute()
    changed = {"includedPermissions": ["compute.instances.get"]}
    roles.patch(name=name, updateMask="includedPermissions", body=changed).execute()
    found = roles.get(name=name).execute()
    assert (found["title"], found["includedPermissions"]) == ("t", ["compute.instances.get"])


def test_the_owner_may_what_they_ask_about(google: GoogleApis, manager: Any) -> None:
    """testIamPermissions answers with what is granted."""
    body = {"permissions": ["compute.instances.create"]}
    assert manager.testIamPermissions(resource=google.project, body=body).execute() == body


def test_a_stranger_is_refused(google: GoogleApis) -> None:
    """Every API wants a token that was handed out."""
    stranger = google.session(token="ya29.stranger")
    for url in (
        f"compute.googleapis.com/compute/v1/{PROJECT}/regions",
        "storage.googleapis.com/storage/v1/b?project=p",
    ):
        answer = stranger.get(f"https://{url}", timeout=30)
        assert (answer.status_code, answer.json()["error"]["status"]) == (401, "UNAUTHENTICATED")


def test_a_secret_is_read_by_its_version(google: GoogleApis) -> None:
    """The newest, or one by its number; who may is up to the project's policy and the secret's own."""
    store = google.build("secretmanager").projects().secrets()
    body = {"replication": {"automatic": {}}}
    assert status_of(lambda: store.get(name=f"{PROJECT}/secrets/s").execute())[0] == 404
    store.create(parent=PROJECT, secretId="s", body=body).execute()
    for data in ("b25l", "dHdv"):
        store.addVersion(parent=f"{PROJECT}/secrets/s", body={"payload": {"data": data}}).execute()
    read = {
        each: store.versions().access(name=f"{PROJECT}/secrets/s/versions/{each}").execute() for each in ("latest", "1")
    }
    assert {each: told["payload"]["data"] for each, told in read.items()} == {"latest": "dHdv", "1": "b25l"}
    absent = store.versions().access(name=f"{PROJECT}/secrets/s/versions/3")
    assert status_of(absent.execute)[0] == 404
