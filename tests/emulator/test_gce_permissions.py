"""What a machine's service account may do: of Compute Engine, of another account, of a bucket; and who did it."""

import json

import pytest
from gce_launching import SCOPES, UBUNTU, bind, launch, make_account, make_role, said, zone

from scaletrain.emulator.emulated_cloud import EmulatedCloud, Instance

LAUNCHER = (
    "compute.instances.create",
    "compute.instances.setLabels",
    "compute.instances.setServiceAccount",
    "compute.disks.create",
)
USED = ("compute.instances.list", "compute.subnetworks.use", "compute.zoneOperations.get")


@pytest.fixture(scope="module")
def accounts(gce: EmulatedCloud) -> tuple[str, str]:
    """A head that may launch machines of one name as one account, and that account."""
    head, worker = make_account(gce, "head"), make_account(gce, "worker")
    bind(gce, make_role(gce, "head_role", *USED), head)
    mine = f'resource.name.startsWith("projects/{gce.project}/zones/{zone(gce)}/'
    condition = f'{mine}instances/mine-") || {mine}disks/mine-")'
    bind(gce, make_role(gce, "worker_role", *LAUNCHER), head, condition=condition)
    name = f"projects/{gce.project}/serviceAccounts/{worker}"
    policy = {"bindings": [{"role": "roles/iam.serviceAccountUser", "members": [f"serviceAccount:{head}"]}]}
    gce.call("iam", "projects.serviceAccounts.setIamPolicy", resource=name, body={"policy": policy})
    return head, worker


@pytest.fixture(scope="module")
def head(gce: EmulatedCloud, accounts: tuple[str, str]) -> Instance:
    return launch(gce, serviceAccounts=[{"email": accounts[0], "scopes": SCOPES}])


PROGRAM = """
import json, sys
instances = build("compute", "v1").instances()
def attempt(call):
    try:
        return call.execute()["status"]
    except Exception as error:
        return str(error)
place = json.loads({place!r})
said = [attempt(instances.insert(body=body, **place)) for body in json.loads({bodies!r})]
print(json.dumps([*said, attempt(instances.delete(instance="mine-1", **place))]))
"""


def launches(gce: EmulatedCloud, head: Instance, *requests: dict[str, object]) -> list[str]:
    """Let the head launch machines, and then delete mine-1; returns "DONE" or the error for each."""
    plain = {
        "machineType": f"zones/{zone(gce)}/machineTypes/n2-standard-4",
        "disks": [{"boot": True, "autoDelete": True, "initializeParams": {"sourceImage": UBUNTU}}],
        "networkInterfaces": [{"network": "global/networks/default"}],
    }
    place = json.dumps({"project": gce.project, "zone": zone(gce)})
    bodies = json.dumps([{**plain, **each} for each in requests])
    return list(json.loads(said(gce, head, PROGRAM.format(place=place, bodies=bodies))))


def test_a_role_admits_just_what_its_condition_names(
    gce: EmulatedCloud, head: Instance, accounts: tuple[str, str]
) -> None:
    """Machines of one name, as one account, without what else a launch may ask for."""
    own, itself = ({"serviceAccounts": [{"email": each, "scopes": SCOPES}]} for each in reversed(accounts))
    outside = [{"network": "global/networks/default", "accessConfigs": [{"type": "ONE_TO_ONE_NAT"}]}]
    admitted, *refused = launches(
        gce,
        head,
        {"name": "mine-1", **own},
        {"name": "other-1", **own},
        {"name": "mine-2", **own, "tags": {"items": ["open"]}},
        {"name": "mine-3", **itself},
        {"name": "mine-4", "networkInterfaces": outside},
    )
    assert admitted == "DONE"
    expected = [
        "compute.instances.create",
        "compute.instances.setTags",
        "does not have access to service account",
        "compute.subnetworks.useExternalIp",
        "compute.instances.delete",
    ]
    assert [what for what, told in zip(expected, refused, strict=True) if what not in told] == [], refused


def test_the_log_tells_who_was_refused_what(gce: EmulatedCloud, head: Instance, accounts: tuple[str, str]) -> None:
    """By the machine that it came from and its account."""
    said(gce, head, f"build('iam', 'v1').projects().serviceAccounts().list(name='projects/{gce.project}').execute()")
    call = gce.api_log()[-1]
    assert (call.caller, call.service, call.status) == (f"{head.id} ({accounts[0]})", "iam", 403)


def test_scopes_limit_an_account_too(gce: EmulatedCloud, accounts: tuple[str, str]) -> None:
    """The API says so, whatever the account's roles are."""
    narrow = [{"email": accounts[0], "scopes": ["https://www.googleapis.com/auth/devstorage.read_only"]}]
    machine = launch(gce, serviceAccounts=narrow)
    listing = f"instances().list(project={gce.project!r}, zone={zone(gce)!r}).execute()"
    assert "insufficient authentication scopes" in said(gce, machine, f"build('compute', 'v1').{listing}")


def test_a_bucket_is_open_to_whom_its_policy_names(gce: EmulatedCloud, accounts: tuple[str, str]) -> None:
    """Below one prefix, by a condition; a list needs the bucket's own right to it."""
    name = "rights"
    gce.call("storage", "buckets.insert", body={"name": name, "location": gce.region})
    policy = gce.call("storage", "buckets.getIamPolicy", bucket=name, optionsRequestedPolicyVersion=3)
    below = f'resource.name.startsWith("projects/_/buckets/{name}/objects/team/")'
    listed = 'api.getAttribute("storage.googleapis.com/objectListPrefix", "").startsWith("team/")'
    binding = {
        "role": "roles/storage.objectUser",
        "members": [f"serviceAccount:{accounts[1]}"],
        "condition": {"title": "team", "expression": f"{below} || {listed}"},
    }
    wanted = {**policy, "version": 3, "bindings": [*policy["bindings"], binding]}
    gce.call("storage", "buckets.setIamPolicy", bucket=name, body=wanted)
    worker = launch(gce, serviceAccounts=[{"email": accounts[1], "scopes": SCOPES}])
    bucket = f"storage.Client().bucket({name!r})"
    assert said(gce, worker, f"b = {bucket}.blob('team/a'); b.upload_from_string('x'); print(b.exists())") == "True"
    assert "storage.objects.create" in said(gce, worker, f"{bucket}.blob('elsewhere').upload_from_string('x')")
    lists = f"print([b.name for b in {bucket}.list_blobs(prefix='{{}}')])"
    assert said(gce, worker, lists.format("team/")) == "['team/a']"
    assert "storage.objects.list" in said(gce, worker, lists.format(""))
    asked = "['storage.objects.create', 'storage.buckets.get']"
    assert said(gce, worker, f"print({bucket}.test_iam_permissions({asked}))") == "[]"


def test_the_projects_own_storage_works_on_a_machine(gce: EmulatedCloud, accounts: tuple[str, str]) -> None:
    """As Ray Train's own file system does, by gcsfs, with nothing set but what the machine has."""
    bind(gce, "roles/storage.objectUser", accounts[0])
    gce.call("storage", "buckets.insert", body={"name": "plain", "location": gce.region})
    machine = launch(gce, serviceAccounts=[{"email": accounts[0], "scopes": SCOPES}])
    program = (
        "from scaletrain import storage\n"
        "storage.write_bytes('gs://plain/runs/a', b'x' * 20_000_000)\n"
        "print(len(storage.read_bytes('gs://plain/runs/a')))\n"
    )
    assert said(gce, machine, program) == "20000000"
    by_fsspec = "import fsspec; fs = fsspec.filesystem('gs'); print(fs.ls('plain/runs'), fs.cat('plain/runs/a')[:2])"
    assert said(gce, machine, by_fsspec) == "['plain/runs/a'] b'xx'"


def test_a_secret_is_open_to_whom_a_condition_names(
    gce: EmulatedCloud, head: Instance, accounts: tuple[str, str]
) -> None:
    """By its name, which has the project's number."""
    manager = gce.call("cloudresourcemanager", "projects.get", projectId=gce.project)
    mine = f'resource.name.startsWith("projects/{manager["projectNumber"]}/secrets/mine-")'
    bind(gce, "roles/secretmanager.secretAccessor", accounts[0], condition=mine)
    for name in ("mine-a", "other-a"):
        parent = f"projects/{gce.project}"
        replication = {"replication": {"automatic": {}}}
        gce.call("secretmanager", "projects.secrets.create", parent=parent, secretId=name, body=replication)
        payload = {"payload": {"data": "eA=="}}
        gce.call("secretmanager", "projects.secrets.addVersion", parent=f"{parent}/secrets/{name}", body=payload)
    program = f"""
versions = build("secretmanager", "v1").projects().secrets().versions()
found = []
for name in ("mine-a", "other-a"):
    try:
        versions.access(name="projects/{gce.project}/secrets/" + name + "/versions/latest").execute()
        found.append(200)
    except Exception as error:
        found.append(error.resp.status)
print(found)
"""
    assert said(gce, head, program) == "[200, 403]"
