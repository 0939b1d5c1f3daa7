"""gcp_leaks: what costs money without a living cluster is found and removed; what a living one uses is left alone."""

import uuid
from datetime import UTC, datetime
from typing import Any

import pytest

from cluster_projects import ClusterProject
from google_project import PROJECT, REGION, GoogleProject, initialise
from scaletrain.cluster.gcp_account import Project, connect
from scaletrain.cluster.gcp_leaks import find_costs, remove_leaks
from scaletrain.cluster.leaks import Leak
from scaletrain.cluster.sweep import find

ZONE, OTHER_ZONE = f"{REGION}-a", f"{REGION}-b"
DEBIAN = "projects/debian-cloud/global/images/family/debian-12"


@pytest.fixture
def cluster() -> str:
    return f"leak-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def project(google: GoogleProject) -> Project:
    return connect(PROJECT, REGION)


def start(google: GoogleProject, cluster: str, node_type: str, *, zone: str = ZONE, seen_in: str | None = None) -> str:
    name = f"ray-{cluster}-{node_type}-{uuid.uuid4().hex[:8]}-compute"
    body: dict[str, Any] = {
        "name": name,
        "machineType": f"zones/{zone}/machineTypes/e2-standard-2",
        "labels": {
            "scaletrain-cluster": cluster,
            "ray-cluster-name": seen_in or cluster,
            "ray-node-type": node_type,
        },
        "networkInterfaces": [{"network": "global/networks/default"}],
        "disks": [{"boot": True, "autoDelete": True, "initializeParams": {"sourceImage": DEBIAN}}],
    }
    google.call("compute", "instances.insert", zone=zone, body=body)
    return f"{zone}/{name}"


def leave_parts(google: GoogleProject, cluster: str) -> set[str]:
    label = {"scaletrain-cluster": cluster}
    google.call("compute", "disks.insert", zone=ZONE, body={"name": f"{cluster}-disk", "sizeGb": "10", "labels": label})
    google.call("compute", "addresses.insert", region=REGION, body={"name": f"{cluster}-address", "labels": label})
    return {f"{ZONE}/{cluster}-disk", f"{REGION}/{cluster}-address"}


def test_a_living_cluster_has_no_leaks(google: GoogleProject, project: Project, cluster: str) -> None:
    """Its workers and their disks are in use."""
    start(google, cluster, "head")
    start(google, cluster, "worker")
    assert find_costs(project, cluster).leaks == []


def test_a_living_cluster_is_told_for_it_costs_money(google: GoogleProject, project: Project, cluster: str) -> None:
    """Its head may be a forgotten one, or one whose set-up failed."""
    head = start(google, cluster, "head")
    start(google, cluster, "worker")
    start(google, cluster, "worker")
    (living,) = find_costs(project, cluster).living
    told = f"not a leak, but it costs money: {cluster}: head {head} since {datetime.now(UTC):%Y-%m-%d}, 2 workers; "
    assert living.line("my.yaml") == f"{told}end it: scaletrain down my.yaml"


def test_a_machine_that_its_living_cluster_does_not_see_is_a_leak(
    google: GoogleProject, project: Project, cluster: str
) -> None:
    """One that was taken out to make an image of it, and one in a zone that its head does not reach."""
    start(google, cluster, "head")
    taken_out = start(google, cluster, "worker", seen_in=f"{cluster}-image")
    elsewhere = start(google, cluster, "worker", zone=OTHER_ZONE)
    assert {leak.id for leak in find_costs(project, cluster).leaks} == {taken_out, elsewhere}
    assert [each.workers for each in find_costs(project, cluster).living] == [0]


def test_a_head_outside_of_the_files_zone_is_a_leak(google: GoogleProject, gcp: ClusterProject) -> None:
    """`ray down` looks for it in the file's zone alone."""
    initialise(gcp)
    head, old = start(google, gcp.cluster, "head"), start(google, gcp.cluster, "head", zone=OTHER_ZONE)
    found = find(gcp.file, cluster=None, region=None, project_id=None)
    assert ([each.id for each in found.leaks], [each.head for each in found.living]) == ([old], [head])


def test_workers_without_a_head_and_loose_parts_are_leaks(
    google: GoogleProject, project: Project, cluster: str
) -> None:
    """Each with what it is."""
    worker = start(google, cluster, "worker")
    parts = leave_parts(google, cluster)
    found = find_costs(project, cluster).leaks
    assert {leak.id for leak in found} == {worker, *parts}
    assert {leak.kind: leak.detail for leak in found}["machine"] == "e2-standard-2, RUNNING"


def test_a_stopped_machine_of_a_living_cluster_is_a_leak(google: GoogleProject, project: Project, cluster: str) -> None:
    """Ray does not see it any more, and its disk costs."""
    start(google, cluster, "head")
    worker = start(google, cluster, "worker")
    google.call("compute", "instances.stop", zone=ZONE, instance=worker.partition("/")[2])
    (leak,) = find_costs(project, cluster).leaks
    assert (leak.id, leak.detail) == (worker, "e2-standard-2, TERMINATED")


def test_deleting_leaves_nothing_and_touches_no_other_cluster(
    google: GoogleProject, project: Project, cluster: str
) -> None:
    """By its own list only."""
    start(google, cluster, "worker")
    leave_parts(google, cluster)
    start(google, f"{cluster}-other", "worker")
    remove_leaks(project, find_costs(project, cluster).leaks, tell=lambda line: None)
    assert find_costs(project, cluster).leaks == []
    assert len(find_costs(project, f"{cluster}-other").leaks) == 1


def test_prepared_images_that_the_file_no_longer_names_are_leaks(
    google: GoogleProject, project: Project, gcp: ClusterProject
) -> None:
    """They cost by the month; the one in use stays, and so do others' and all where no file tells which are wanted."""
    initialise(gcp)
    google.call("compute", "disks.insert", zone=ZONE, body={"name": gcp.cluster, "sizeGb": "150"})
    for name, owner in (("old", gcp.cluster), ("used", gcp.cluster), ("foreign", f"{gcp.cluster}-other")):
        disk = f"projects/{PROJECT}/zones/{ZONE}/disks/{gcp.cluster}"
        body = {"name": f"{gcp.cluster}-{name}", "sourceDisk": disk, "labels": {"scaletrain-cluster": owner}}
        google.call("compute", "images.insert", body=body)
    used = f"projects/{PROJECT}/global/images/{gcp.cluster}-used"
    gcp.edit(("projects/ubuntu-os-cloud/global/images/family/ubuntu-2404-lts-amd64", used))
    (leak,) = find(gcp.file, cluster=None, region=None, project_id=None).leaks
    assert leak == Leak("image", f"{gcp.cluster}-old", gcp.cluster, "150 GB, not named in the file")
    assert find(None, cluster=gcp.cluster, region=None, project_id=PROJECT).leaks == []
    remove_leaks(project, [leak], tell=lambda line: None)
    assert find(gcp.file, cluster=None, region=None, project_id=None).leaks == []
    assert google.call("compute", "images.get", image=f"{gcp.cluster}-used")["status"] == "READY"


def test_what_is_not_ours_is_never_listed(google: GoogleProject, project: Project, cluster: str) -> None:
    """A disk without a label belongs to somebody else."""
    google.call("compute", "disks.insert", zone=ZONE, body={"name": f"{cluster}-foreign", "sizeGb": "1"})
    assert f"{ZONE}/{cluster}-foreign" not in {leak.id for leak in find_costs(project).leaks}
