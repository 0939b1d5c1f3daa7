"""gcp_leaks: what costs money without a living cluster is found and removed; what a living one uses is left alone."""

import uuid
from typing import Any

import pytest

from cluster_projects import ClusterProject
from google_project import PROJECT, REGION, GoogleProject, initialise
from scaletrain.cluster.gcp_account import Project, connect
from scaletrain.cluster.gcp_leaks import find_leaks, remove_leaks
from scaletrain.cluster.leaks import Leak
from scaletrain.cluster.sweep import find

ZONE = f"{REGION}-a"
DEBIAN = "projects/debian-cloud/global/images/family/debian-12"


@pytest.fixture
def cluster() -> str:
    return f"leak-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def project(google: GoogleProject) -> Project:
    return connect(PROJECT, REGION)


def start(google: GoogleProject, cluster: str, node_type: str) -> str:
    name = f"ray-{cluster}-{node_type}-{uuid.uuid4().hex[:8]}-compute"
    body: dict[str, Any] = {
        "name": name,
        "machineType": f"zones/{ZONE}/machineTypes/e2-standard-2",
        "labels": {"ray-cluster-name": cluster, "ray-node-type": node_type},
        "networkInterfaces": [{"network": "global/networks/default"}],
        "disks": [{"boot": True, "autoDelete": True, "initializeParams": {"sourceImage": DEBIAN}}],
    }
    google.call("compute", "instances.insert", zone=ZONE, body=body)
    return f"{ZONE}/{name}"


def leave_parts(google: GoogleProject, cluster: str) -> set[str]:
    label = {"scaletrain-cluster": cluster}
    google.call("compute", "disks.insert", zone=ZONE, body={"name": f"{cluster}-disk", "sizeGb": "10", "labels": label})
    google.call("compute", "addresses.insert", region=REGION, body={"name": f"{cluster}-address", "labels": label})
    return {f"{ZONE}/{cluster}-disk", f"{REGION}/{cluster}-address"}


def test_a_living_cluster_has_no_leaks(google: GoogleProject, project: Project, cluster: str) -> None:
    """Its workers and their disks are in use."""
    start(google, cluster, "head")
    start(google, cluster, "worker")
    assert find_leaks(project, cluster) == []


def test_workers_without_a_head_and_loose_parts_are_leaks(
    google: GoogleProject, project: Project, cluster: str
) -> None:
    """Each with what it is."""
    worker = start(google, cluster, "worker")
    parts = leave_parts(google, cluster)
    found = find_leaks(project, cluster)
    assert {leak.id for leak in found} == {worker, *parts}
    assert {leak.kind: leak.detail for leak in found}["machine"] == "e2-standard-2, RUNNING"


def test_a_stopped_machine_of_a_living_cluster_is_a_leak(google: GoogleProject, project: Project, cluster: str) -> None:
    """Ray does not see it any more, and its disk costs."""
    start(google, cluster, "head")
    worker = start(google, cluster, "worker")
    google.call("compute", "instances.stop", zone=ZONE, instance=worker.partition("/")[2])
    (leak,) = find_leaks(project, cluster)
    assert (leak.id, leak.detail) == (worker, "e2-standard-2, TERMINATED")


def test_deleting_leaves_nothing_and_touches_no_other_cluster(
    google: GoogleProject, project: Project, cluster: str
) -> None:
    """By its own list only."""
    start(google, cluster, "worker")
    leave_parts(google, cluster)
    start(google, f"{cluster}-other", "worker")
    remove_leaks(project, find_leaks(project, cluster), tell=lambda line: None)
    assert find_leaks(project, cluster) == []
    assert len(find_leaks(project, f"{cluster}-other")) == 1


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
    assert f"{ZONE}/{cluster}-foreign" not in {leak.id for leak in find_leaks(project)}
