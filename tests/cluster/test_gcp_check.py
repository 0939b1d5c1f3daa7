"""gcp_check: a file filled by init has no problems; broken files and projects have each named, with its remedy."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from cluster_projects import ClusterProject
from google_project import PROJECT, GoogleProject, initialise
from scaletrain.cluster.check import check_cluster
from scaletrain.cluster.cluster_file import load_cluster_file


@pytest.fixture
def filled(google: GoogleProject, gcp: ClusterProject) -> ClusterProject:
    """A file filled by init."""
    initialise(gcp)
    return gcp


@pytest.fixture
def quota(google: GoogleProject) -> Iterator[Any]:
    """Sets quotas for one test."""
    metrics = ("NVIDIA_L4_GPUS", "PREEMPTIBLE_NVIDIA_L4_GPUS", "GPUS_ALL_REGIONS")
    yield lambda metric, limit: google.call("quota", metric, limit=limit)
    for metric in metrics:
        google.call("quota", metric, limit=16)


def assert_found(project: ClusterProject, *parts: str) -> None:
    """Each part is in a problem, no problem is without one, and each says what to do."""
    problems = check_cluster(project.file).problems
    for part in parts:
        assert any(part in problem for problem in problems), (part, problems)
    assert [each for each in problems if not any(part in each for part in parts)] == []
    assert [each for each in problems if "; " not in each] == []


def test_a_file_filled_by_init_has_no_problems(filled: ClusterProject) -> None:
    """And says what it would be; a price that is not told is the dated table's, which is said, and why."""
    found = check_cluster(filled.file)
    assert found.problems == ()
    facts = dict(found.facts)
    assert facts["account"] == f"Google Cloud project {PROJECT} in us-central1, as owner@example.com"
    assert facts["gpu_spot"] == "0 to 4 x g2-standard-8, spot"
    assert facts["quotas"] == "suffice"
    assert "the dated table did: " in facts["an hour"] and "e2-standard-4 (on-demand) of 20" in facts["an hour"]
    assert "; looking at the prices: " in facts["an hour"]
    assert found.record()["usd_per_hour_at_least"] == pytest.approx(0.134, abs=0.001)


def test_a_file_with_secrets_and_the_default_account(filled: ClusterProject) -> None:
    """Broken file 1: what would be shared with everybody who sees the file, and with every job."""
    file = load_cluster_file(filled.file)
    worker = file.workers[0].node_config["serviceAccounts"][0]["email"]
    filled.edit(
        (worker, "42-compute@developer.gserviceaccount.com"),
        ("cache_stopped_nodes: false", "cache_stopped_nodes: false  # ya29.a0AfH6SMBx1234567890abcdef"),
        ("--dashboard-host=127.0.0.1", "--dashboard-host=0.0.0.0"),
    )
    assert_found(
        filled,
        "looks like a Google access token",
        "the dashboard listens on 0.0.0.0",
        *(
            f"node_types.{name}.node_config: has the project's default account"
            for name in ("cpu", "gpu_spot", "gpu_a100", "gpu_ondemand")
        ),
        "there is no 42-compute@developer.gserviceaccount.com",
    )


def test_a_file_of_machines_that_are_not_to_be_had(filled: ClusterProject, quota: Any) -> None:
    """Broken file 2: type, image, disk and resources; and quotas, which new projects do not have."""
    filled.edit(
        ("machineType: g2-standard-8  #", "machineType: g2-standard-88  #"),
        ("family/ubuntu-2404-lts-amd64", "family/ubuntu-2404-lts"),
        ("diskSizeGb: 150", "diskSizeGb: 10"),
        ("resources: {CPU: 8}", "resources: {CPU: 16}"),
    )
    assert_found(
        filled,
        "has no g2-standard-88; did you mean g2-standard-8?",
        "ubuntu-os-cloud has no image family ubuntu-2404-lts; see: gcloud compute images list",
        "has 10 GB, its image needs 50; raise diskSizeGb",
        "CPU: 16, but a n2-standard-8 has 8; lower it",
    )


def test_a_gpu_that_torch_cannot_use(filled: ClusterProject) -> None:
    """It is a machine type like any other to Google."""
    card = "guestAccelerators: [{acceleratorType: nvidia-tesla-v100, acceleratorCount: 1}]"
    filled.edit(("machineType: g2-standard-8  #", f"machineType: n1-standard-8\n      {card}  #"))
    problems = check_cluster(filled.file).problems
    assert any("gpu_spot: n1-standard-8: its GPU, V100, is too old" in each for each in problems), problems


def test_a_project_without_gpus(filled: ClusterProject, quota: Any) -> None:
    """Broken project 3: as every new one is; the two quotas are named with the page where more is asked for."""
    for metric in ("NVIDIA_L4_GPUS", "PREEMPTIBLE_NVIDIA_L4_GPUS", "GPUS_ALL_REGIONS"):
        quota(metric, 0)
    page = f"https://console.cloud.google.com/iam-admin/quotas?project={PROJECT}"
    assert_found(
        filled,
        f"may have 0 of PREEMPTIBLE_NVIDIA_L4_GPUS in us-central1, the file's max_workers need 4; ask for more at "
        f"{page}",
        "may have 0 of GPUS_ALL_REGIONS in all regions together, the file's max_workers need 4",
    )
    assert dict(check_cluster(filled.file).facts)["quotas"] == "do not suffice"


def test_spot_counts_against_the_ordinary_quota_where_there_is_no_other(filled: ClusterProject, quota: Any) -> None:
    """As Google does it."""
    quota("PREEMPTIBLE_NVIDIA_L4_GPUS", 0)
    assert check_cluster(filled.file).problems == ()
    quota("NVIDIA_L4_GPUS", 2)
    assert_found(filled, "may have 2 of NVIDIA_L4_GPUS in us-central1")


def test_a_project_that_is_open(google: GoogleProject, filled: ClusterProject) -> None:
    """Broken project 4: a door to the world before our rules, a public bucket, an Editor, and Ray's account."""
    rule = {
        "name": f"{filled.cluster}-oops",
        "network": "global/networks/default",
        "priority": 50,
        "sourceRanges": ["0.0.0.0/0"],
        "allowed": [{"IPProtocol": "tcp", "ports": ["8265"]}],
    }
    google.call("compute", "firewalls.insert", body=rule)
    policy = google.call("storage", "buckets.getIamPolicy", bucket=filled.cluster, optionsRequestedPolicyVersion=3)
    policy["bindings"].append({"role": "roles/storage.objectViewer", "members": ["allUsers"]})
    google.call("storage", "buckets.setIamPolicy", bucket=filled.cluster, body=policy)
    worker = f"{filled.cluster}-worker@{PROJECT}.iam.gserviceaccount.com"
    give(google, "roles/editor", f"serviceAccount:{worker}")
    account = f"projects/{PROJECT}/serviceAccounts/ray-autoscaler-sa-v1@{PROJECT}.iam.gserviceaccount.com"
    google.call("iam", "projects.serviceAccounts.enable", name=account)
    try:
        assert_found(
            filled,
            f"firewall rule {filled.cluster}-oops: 8265 of these machines open to the whole world; remove that rule",
            f"{filled.cluster} is open to everybody (allUsers)",
            "workers has roles/editor in the whole project",
            "ray-autoscaler-sa-v1@emulated-project.iam.gserviceaccount.com may do nearly everything",
        )
    finally:
        google.call("iam", "projects.serviceAccounts.disable", name=account)
        google.call("compute", "firewalls.delete", firewall=rule["name"])


def test_a_project_whose_machines_may_do_nothing(google: GoogleProject, filled: ClusterProject) -> None:
    """Broken project 5: the cluster would come up, and wait for workers for ever, or never reach its bucket."""
    head = f"{filled.cluster}-head@{PROJECT}.iam.gserviceaccount.com"
    policy = google.call("storage", "buckets.getIamPolicy", bucket=filled.cluster, optionsRequestedPolicyVersion=3)
    kept = [each for each in policy["bindings"] if "legacy" in each["role"]]
    google.call("storage", "buckets.setIamPolicy", bucket=filled.cluster, body={**policy, "bindings": kept})
    role = f"projects/{PROJECT}/roles/scaletrain_{filled.cluster.replace('-', '_')}_workers"
    google.call("iam", "projects.roles.delete", name=role)
    google.call("compute", "firewalls.delete", firewall=f"{filled.cluster}-within")
    assert_found(
        filled,
        f"the head may not use gs://{filled.cluster}/root ({head} lacks storage.objects.create",
        f"workers may not use gs://{filled.cluster}/root",
        f"the head may not start and stop workers of {filled.cluster} ({head} lacks compute.disks.create",
        "firewall: machines cannot reach one another; run scaletrain cluster init gcp",
    )


def test_an_api_that_is_switched_off_is_named_with_its_command(google: GoogleProject, filled: ClusterProject) -> None:
    """Most questions cannot be asked then; each says so, and the file is checked all the same."""
    service = f"projects/{PROJECT}/services/iam.googleapis.com"
    google.call("serviceusage", "services.disable", name=service, body={})
    try:
        problems = check_cluster(filled.file).problems
    finally:
        google.call("serviceusage", "services.enable", name=service, body={})
    assert any("run: gcloud services enable iam.googleapis.com --project" in problem for problem in problems)


def test_a_bucket_that_is_gone_or_elsewhere_is_found(google: GoogleProject, filled: ClusterProject) -> None:
    """Each with what to do."""
    far = f"{filled.cluster}-far"
    google.call("storage", "buckets.insert", body={"name": far, "location": "EUROPE-WEST4"})
    filled.edit((f"gs://{filled.cluster}/root", f"gs://{far}/root"))
    assert any(
        f"{far} is in europe-west4, the machines in us-central1" in p for p in check_cluster(filled.file).problems
    )
    filled.edit((f"gs://{far}/root", "gs://none-of-this-name/root"))
    assert any("there is no bucket none-of-this-name" in each for each in check_cluster(filled.file).problems)


def test_without_credentials_the_file_is_still_checked(filled: ClusterProject, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more problem in the list, not the only one."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/none")
    filled.edit(("instanceTerminationAction: DELETE", "instanceTerminationAction: STOP"))
    problems = check_cluster(filled.file).problems
    assert any("set instanceTerminationAction: DELETE" in each for each in problems)
    assert any(
        "no usable Google credentials" in each and "gcloud auth application-default" in each for each in problems
    )


def give(google: GoogleProject, role: str, member: str) -> None:
    """Bind a role in the project's policy."""
    body: dict[str, Any] = {"options": {"requestedPolicyVersion": 3}}
    policy = google.call("cloudresourcemanager", "projects.getIamPolicy", resource=PROJECT, body=body)
    policy = json.loads(json.dumps(policy))
    policy["bindings"].append({"role": role, "members": [member]})
    google.call("cloudresourcemanager", "projects.setIamPolicy", resource=PROJECT, body={"policy": policy})


def test_a_colleague_who_may_only_look_is_told_what_is_missing(google: GoogleProject, filled: ClusterProject) -> None:
    """By Google's own answer; questions that are refused say so, and hide no others."""
    place: dict[str, Any] = {"resource": PROJECT}
    body = {"options": {"requestedPolicyVersion": 3}}
    policy = google.call("cloudresourcemanager", "projects.getIamPolicy", **place, body=body)
    bindings = [{**each, "role": each["role"].replace("roles/owner", "roles/viewer")} for each in policy["bindings"]]
    body = {"policy": {"version": 3, "bindings": bindings}}
    google.call("cloudresourcemanager", "projects.setIamPolicy", **place, body=body)
    try:
        problems = check_cluster(filled.file).problems
    finally:
        body = {"policy": {"version": 3, "bindings": policy["bindings"]}}
        google.call("cloudresourcemanager", "projects.setIamPolicy", **place, body=body)
    (mine,) = (problem for problem in problems if problem.startswith("rights: you lack compute"))
    for part in ("compute.instances.create", f"iam.serviceAccounts.actAs on {filled.cluster}-head@", "iam-admin/iam"):
        assert part in mine
    assert any("you are not allowed to" in problem for problem in problems if problem.startswith("looking at"))
