"""gcp_init: the plan comes first, a second run changes nothing, --destroy leaves nothing; by Google's own clients."""

from typing import Any

import pytest

from cluster_projects import OFFICE, ClusterProject
from google_project import PROJECT, REGION, GoogleProject, changes_of, initialise, request
from scaletrain.cluster import auth_token
from scaletrain.cluster.cluster_file import load_cluster_file
from scaletrain.cluster.gcp_init import GcpRequest, plan_destroy_gcp, plan_gcp
from scaletrain.cluster.gcp_policies import HEAD_PERMISSIONS, MACHINES_PERMISSIONS
from scaletrain.cluster.plan import Step, carry_out, to_do
from scaletrain.errors import ClusterError, ConfigError

RAYS_ACCOUNT = f"ray-autoscaler-sa-v1@{PROJECT}.iam.gserviceaccount.com"


def carry_out_quietly(steps: list[Step]) -> None:
    carry_out(steps, tell=lambda line: None)


def account(project: ClusterProject, who: str) -> str:
    return f"{project.cluster}-{who}@{PROJECT}.iam.gserviceaccount.com"


def account_of(google: GoogleProject, address: str) -> Any:
    return google.call("iam", "projects.serviceAccounts.get", name=f"projects/{PROJECT}/serviceAccounts/{address}")


def role_of(google: GoogleProject, project: ClusterProject, who: str) -> Any:
    name = f"projects/{PROJECT}/roles/scaletrain_{project.cluster.replace('-', '_')}_{who}"
    return google.call("iam", "projects.roles.get", name=name)


def policy_of(google: GoogleProject) -> list[dict[str, Any]]:
    body = {"options": {"requestedPolicyVersion": 3}}
    answer = google.call("cloudresourcemanager", "projects.getIamPolicy", resource=PROJECT, body=body)
    return list(answer["bindings"])


def bucket_bindings(google: GoogleProject, project: ClusterProject) -> list[dict[str, Any]]:
    arguments = {"bucket": project.cluster, "optionsRequestedPolicyVersion": 3}
    return list(google.call("storage", "buckets.getIamPolicy", **arguments)["bindings"])


def firewall(google: GoogleProject, project: ClusterProject, what: str) -> Any:
    return google.call("compute", "firewalls.get", firewall=f"{project.cluster}-{what}")


def test_planning_changes_nothing(gcp: ClusterProject, monkeypatch: pytest.MonkeyPatch) -> None:
    """The project, this machine and the file are as before until the user agreed."""
    before = gcp.file.read_bytes()
    calls = changes_of(monkeypatch)
    _, steps = plan_gcp(request(gcp))
    assert (calls, gcp.file.read_bytes() == before) == ([], True)
    assert not auth_token.folder_of(gcp.cluster).exists()
    assert len(to_do(steps)) >= 12


def test_a_filled_file_is_one_that_ray_and_we_accept(gcp: ClusterProject) -> None:
    """Every place is filled with what was made, and the comments are still there."""
    comments = gcp.file.read_text().count("#")
    initialise(gcp)
    file = load_cluster_file(gcp.file)
    assert (file.region, file.bucket_root) == (REGION, f"gs://{gcp.cluster}/root")
    assert (file.raw["provider"]["project_id"], file.ssh_user) == (PROJECT, "ubuntu")
    assert file.head.node_config["serviceAccounts"][0]["email"] == account(gcp, "head")
    assert all(kind.node_config["serviceAccounts"][0]["email"] == account(gcp, "worker") for kind in file.workers)
    (keys,) = (each["value"] for each in file.head.node_config["metadata"]["items"] if each["key"] == "ssh-keys")
    assert keys.startswith("ubuntu:ssh-ed25519 ")
    disk = file.workers[1].node_config["disks"][0]["initializeParams"]
    assert disk["diskType"] == f"zones/{file.raw['provider']['availability_zone']}/diskTypes/pd-ssd"
    assert gcp.file.read_text().count("#") == comments


def test_a_second_run_makes_no_call_that_could_change_anything(
    gcp: ClusterProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every step finds its thing as it should be; project, region, zone and bucket are read from the file."""
    initialise(gcp)
    calls = changes_of(monkeypatch)
    before = gcp.file.read_bytes()
    _, steps = plan_gcp(GcpRequest(gcp.file, ssh_from=(OFFICE,)))
    carry_out_quietly(steps)
    assert (to_do(steps), calls, gcp.file.read_bytes() == before) == ([], [], True)


def test_the_bucket_is_versioned_private_and_keeps_current_objects(google: GoogleProject, gcp: ClusterProject) -> None:
    """The lifecycle touches unfinished uploads and noncurrent versions, nothing else."""
    initialise(gcp)
    bucket = google.call("storage", "buckets.get", bucket=gcp.cluster)
    assert bucket["location"] == REGION.upper() and bucket["versioning"] == {"enabled": True}
    assert bucket["iamConfiguration"]["uniformBucketLevelAccess"]["enabled"] is True
    assert bucket["iamConfiguration"]["publicAccessPrevention"] == "enforced"
    rules = {rule["action"]["type"]: rule["condition"] for rule in bucket["lifecycle"]["rule"]}
    assert set(rules) == {"AbortIncompleteMultipartUpload", "Delete"}
    assert rules["Delete"]["isLive"] is False and rules["Delete"]["daysSinceNoncurrentTime"] == 14


def test_an_existing_bucket_keeps_its_rules_and_its_readers(google: GoogleProject, gcp: ClusterProject) -> None:
    """It may have been there before, with its owner's own lifecycle and rights."""
    rule = {"action": {"type": "Delete"}, "condition": {"age": 3, "matchesPrefix": ["tmp/"]}}
    body = {"name": gcp.cluster, "location": REGION.upper(), "lifecycle": {"rule": [rule]}}
    google.call("storage", "buckets.insert", body=body)
    reader = {"role": "roles/storage.objectViewer", "members": ["user:colleague@example.com"]}
    policy = google.call("storage", "buckets.getIamPolicy", bucket=gcp.cluster)
    body = {**policy, "bindings": [*policy["bindings"], reader]}
    google.call("storage", "buckets.setIamPolicy", bucket=gcp.cluster, body=body)
    initialise(gcp)
    rules = google.call("storage", "buckets.get", bucket=gcp.cluster)["lifecycle"]["rule"]
    assert rule in rules and len(rules) == 3
    assert any("user:colleague@example.com" in each["members"] for each in bucket_bindings(google, gcp))


def test_a_bucket_in_another_region_is_refused(google: GoogleProject, gcp: ClusterProject) -> None:
    """Training through an ocean is slow and dear."""
    google.call("storage", "buckets.insert", body={"name": gcp.cluster, "location": "EUROPE-WEST4"})
    with pytest.raises(ConfigError, match=f"{gcp.cluster} is in europe-west4 and the cluster in us-central1"):
        plan_gcp(request(gcp))


def test_only_the_callers_address_may_log_in(google: GoogleProject, gcp: ClusterProject) -> None:
    """Machines reach one another, nothing else comes in whatever the network admits; moving house moves the door."""
    initialise(gcp)
    ssh, within, shut = (firewall(google, gcp, what) for what in ("ssh", "within", "shut"))
    assert (ssh["sourceRanges"], ssh["allowed"]) == ([OFFICE], [{"IPProtocol": "tcp", "ports": ["22"]}])
    assert within["sourceTags"] == within["targetTags"] == [gcp.cluster]
    assert shut["denied"] == [{"IPProtocol": "all"}] and shut["sourceRanges"] == ["0.0.0.0/0"]
    assert max(ssh["priority"], within["priority"]) < shut["priority"] < 1000
    carry_out_quietly(plan_gcp(request(gcp, ssh_from=("198.51.100.0/24",)))[1])
    assert firewall(google, gcp, "ssh")["sourceRanges"] == ["198.51.100.0/24"]


def test_a_rule_that_somebody_changed_or_switched_off_is_put_right(google: GoogleProject, gcp: ClusterProject) -> None:
    """An open door is shut again; rules of others are not touched."""
    initialise(gcp)
    google.call("compute", "firewalls.patch", firewall=f"{gcp.cluster}-ssh", body={"sourceRanges": ["0.0.0.0/0"]})
    google.call("compute", "firewalls.patch", firewall=f"{gcp.cluster}-shut", body={"disabled": True})
    before = google.call("compute", "firewalls.get", firewall="default-allow-ssh")
    initialise(gcp)
    assert firewall(google, gcp, "ssh")["sourceRanges"] == [OFFICE]
    assert not firewall(google, gcp, "shut").get("disabled")
    assert google.call("compute", "firewalls.get", firewall="default-allow-ssh") == before


def test_workers_may_use_the_bucket_and_nothing_else(google: GoogleProject, gcp: ClusterProject) -> None:
    """A job runs code of others; it cannot start machines, nor touch what lies beside the storage root."""
    initialise(gcp)
    member = f"serviceAccount:{account(gcp, 'worker')}"
    assert not any(member in each["members"] for each in policy_of(google))
    given = {
        each["role"]: each["condition"]["expression"]
        for each in bucket_bindings(google, gcp)
        if member in each["members"]
    }
    assert set(given) == {"roles/storage.objectUser", "roles/storage.objectViewer"}
    assert given["roles/storage.objectUser"].endswith(f'("projects/_/buckets/{gcp.cluster}/objects/root/")')
    assert given["roles/storage.objectViewer"].endswith(f'("projects/_/buckets/{gcp.cluster}/objects/raw/")')


def test_machines_of_another_cluster_are_out_of_the_heads_reach(google: GoogleProject, gcp: ClusterProject) -> None:
    """Whatever makes, changes or deletes a machine is bound to the names of this cluster's workers."""
    initialise(gcp)
    member = f"serviceAccount:{account(gcp, 'head')}"
    mine = [each for each in policy_of(google) if member in each["members"]]
    bound = {each["role"].rpartition("_")[2]: each["condition"]["expression"] for each in mine if "condition" in each}
    assert len(mine) == 3 and len(bound) == 2
    assert f"/instances/ray-{gcp.cluster}-worker-" in bound["workers"]
    assert set(role_of(google, gcp, "workers")["includedPermissions"]) == set(MACHINES_PERMISSIONS)
    assert set(role_of(google, gcp, "head")["includedPermissions"]) == set(HEAD_PERMISSIONS)
    assert not any(each.endswith((".create", ".delete")) or ".set" in each for each in HEAD_PERMISSIONS)


def test_the_head_may_give_workers_their_account_and_no_other(google: GoogleProject, gcp: ClusterProject) -> None:
    """It could otherwise start a machine with the owner's rights."""
    initialise(gcp)
    name = f"projects/{PROJECT}/serviceAccounts/{account(gcp, 'worker')}"
    (binding,) = google.call("iam", "projects.serviceAccounts.getIamPolicy", resource=name)["bindings"]
    assert binding["role"] == "roles/iam.serviceAccountUser"
    assert binding["members"] == [f"serviceAccount:{account(gcp, 'head')}"]


def test_rays_own_account_is_made_before_ray_makes_it_and_is_switched_off(
    google: GoogleProject, gcp: ClusterProject
) -> None:
    """`ray up` binds compute.admin and more to it, in every project; nobody can use a disabled account."""
    initialise(gcp)
    assert account_of(google, RAYS_ACCOUNT)["disabled"] is True
    name = f"projects/{PROJECT}/serviceAccounts/{RAYS_ACCOUNT}"
    google.call("iam", "projects.serviceAccounts.enable", name=name)
    initialise(gcp)
    assert account_of(google, RAYS_ACCOUNT)["disabled"] is True


def test_rights_taken_away_or_widened_are_put_right(google: GoogleProject, gcp: ClusterProject) -> None:
    """Also a condition that somebody removed."""
    initialise(gcp)
    name = f"projects/{PROJECT}/roles/scaletrain_{gcp.cluster.replace('-', '_')}_head"
    body = {"includedPermissions": ["compute.instances.list", "compute.firewalls.delete"]}
    google.call("iam", "projects.roles.patch", name=name, updateMask="includedPermissions", body=body)
    bindings = [{key: value for key, value in each.items() if key != "condition"} for each in policy_of(google)]
    policy = {"version": 3, "bindings": bindings}
    google.call("cloudresourcemanager", "projects.setIamPolicy", resource=PROJECT, body={"policy": policy})
    _, steps = plan_gcp(request(gcp))
    assert {step.what for step in to_do(steps)} == {
        f"role {name.rpartition('/')[2]}",
        "rights of the head in the project",
    }
    carry_out_quietly(steps)
    assert to_do(plan_gcp(request(gcp))[1]) == []


def test_accounts_and_rules_of_somebody_else_are_not_touched(google: GoogleProject, gcp: ClusterProject) -> None:
    """They bear no word of ours."""
    body = {"accountId": f"{gcp.cluster}-head", "serviceAccount": {"displayName": "mine"}}
    google.call("iam", "projects.serviceAccounts.create", name=f"projects/{PROJECT}", body=body)
    with pytest.raises(ConfigError, match="already that is not this cluster's; choose another cluster_name"):
        plan_gcp(request(gcp))


def left_over(google: GoogleProject, project: ClusterProject) -> list[str]:
    """Everything in the project that bears the cluster's name."""
    found = [each["name"] for each in google.call("compute", "firewalls.list")["items"]]
    accounts = google.call("iam", "projects.serviceAccounts.list", name=f"projects/{PROJECT}")
    found += [each["email"] for each in accounts.get("accounts", ())]
    found += [each["name"] for each in google.call("storage", "buckets.list").get("items", ())]
    found += [member for each in policy_of(google) for member in each["members"]]
    roles = google.call("iam", "projects.roles.list", parent=f"projects/{PROJECT}")
    found += [each["name"].replace("_", "-") for each in roles.get("roles", ()) if not each.get("deleted")]
    return [each for each in found if project.cluster in each]


def test_destroy_leaves_nothing_and_can_be_undone(google: GoogleProject, gcp: ClusterProject) -> None:
    """Not in the project, nor here, and the file fails closed; init then brings back the roles that Google keeps."""
    initialise(gcp)
    assert len(left_over(google, gcp)) >= 9
    carry_out_quietly(plan_destroy_gcp(request(gcp), with_objects=False)[1])
    assert left_over(google, gcp) == []
    assert not auth_token.folder_of(gcp.cluster).exists()
    with pytest.raises(ConfigError, match="not filled yet"):
        load_cluster_file(gcp.file)
    assert to_do(plan_destroy_gcp(request(gcp), with_objects=False)[1]) == []
    initialise(gcp)
    assert to_do(plan_gcp(request(gcp))[1]) == []


def test_destroy_keeps_a_bucket_with_data_unless_asked_twice(google: GoogleProject, gcp: ClusterProject) -> None:
    """Checkpoints are worth more than tidiness; the machines' rights on it go all the same."""
    initialise(gcp)
    project, _ = plan_gcp(request(gcp))
    project.storage().bucket(gcp.cluster).blob("root/runs/x").upload_from_string(b"data")
    _, steps = plan_destroy_gcp(request(gcp), with_objects=False)
    assert [step.todo for step in steps if step.what == f"bucket {gcp.cluster}"] == ["keep"]
    assert [step.todo for step in steps if step.what == f"rights on bucket {gcp.cluster}"] == ["remove"]
    carry_out_quietly(plan_destroy_gcp(request(gcp), with_objects=True)[1])
    assert left_over(google, gcp) == []


def test_destroy_waits_for_ray_down(google: GoogleProject, gcp: ClusterProject) -> None:
    """Nothing is taken from under machines; a stopped one counts, its disk costs money."""
    initialise(gcp)
    start_machine(google, gcp, {"ray-cluster-name": gcp.cluster})
    with pytest.raises(ClusterError, match=r"still there; first: ray down .*gcp\.yaml"):
        plan_destroy_gcp(request(gcp), with_objects=False)


def test_destroy_waits_for_a_machine_that_ray_does_not_see(google: GoogleProject, gcp: ClusterProject) -> None:
    """One that was taken out of the cluster for an image has our label still."""
    initialise(gcp)
    start_machine(google, gcp, {"ray-cluster-name": f"{gcp.cluster}-image", "scaletrain-cluster": gcp.cluster})
    with pytest.raises(ClusterError, match=r"are ended by `scaletrain cluster sweep-leaks .*gcp\.yaml --delete`"):
        plan_destroy_gcp(request(gcp), with_objects=False)


def test_a_cluster_with_machines_is_not_moved_to_another_zone(google: GoogleProject, gcp: ClusterProject) -> None:
    """Ray would look for them in the new zone only, and its head could not end those in the old one."""
    initialise(gcp)
    zone, machine = start_machine(google, gcp, {"ray-cluster-name": gcp.cluster})
    moved = request(gcp, zone=f"{REGION}-b")
    with pytest.raises(ClusterError, match=rf"still in {zone} \({machine}\): `scaletrain down .*gcp\.yaml` first"):
        plan_gcp(moved)
    assert to_do(plan_gcp(request(gcp, zone=zone))[1]) == []
    google.call("compute", "instances.delete", zone=zone, instance=machine)
    assert to_do(plan_gcp(moved)[1])


def start_machine(google: GoogleProject, project: ClusterProject, labels: dict[str, str]) -> tuple[str, str]:
    zone = load_cluster_file(project.file).raw["provider"]["availability_zone"]
    machine = {
        "name": f"ray-{project.cluster}-head-1-compute",
        "machineType": f"zones/{zone}/machineTypes/e2-standard-4",
        "labels": labels,
        "networkInterfaces": [{"network": "global/networks/default"}],
        "disks": [
            {
                "boot": True,
                "initializeParams": {"sourceImage": "projects/debian-cloud/global/images/family/debian-12"},
            }
        ],
    }
    google.call("compute", "instances.insert", zone=zone, body=machine)
    return zone, str(machine["name"])


def test_another_cluster_of_the_project_keeps_rays_account_shut(
    google: GoogleProject, gcp: ClusterProject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Its next `ray up` would make the account anew, and open."""
    from cluster_projects import make_project

    other = make_project(tmp_path_factory.mktemp("other"), kind="gcp")
    initialise(gcp)
    initialise(other)
    carry_out_quietly(plan_destroy_gcp(request(gcp), with_objects=False)[1])
    assert account_of(google, RAYS_ACCOUNT)["disabled"] is True


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"region": "us-nowhere1"}, "has no region us-nowhere1; give one with --region"),
        ({"zone": "us-east1-b"}, "us-central1 has no zone us-east1-b; choose one of us-central1-a"),
        ({"network": "none"}, "no network none in emulated-project; name another with --network"),
        ({"project_id": "none-of-mine"}, "none-of-mine"),
        ({"bucket": "gs://No_Bucket"}, "is no bucket's name"),
    ],
)
def test_a_wish_that_cannot_be_is_refused(gcp: ClusterProject, changes: dict[str, Any], message: str) -> None:
    """Before anything is made, with what to give instead."""
    with pytest.raises(Exception, match=message) as caught:
        plan_gcp(request(gcp, **changes))
    assert getattr(caught.value, "exit_code", 1) in (1, 2)


def test_a_type_that_no_zone_has_is_named_unless_it_is_switched_off(gcp: ClusterProject) -> None:
    """A2 is in few zones; who does not want it must not be kept from the others."""
    gcp.edit(("machineType: a2-highgpu-1g", "machineType: a2-none"))
    plan_gcp(request(gcp))
    gcp.edit(("machineType: g2-standard-8", "machineType: g2-none"))
    with pytest.raises(ConfigError, match=r"no zone of us-central1 has all .* lacks g2-none"):
        plan_gcp(request(gcp))
