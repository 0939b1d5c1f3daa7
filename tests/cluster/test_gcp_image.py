"""gcp_image: a prepared image is made of a worker that Ray no longer counts on, and says how to use it."""

from typing import Any

import pytest

from cluster_projects import ClusterProject
from google_project import PROJECT, REGION, GoogleProject, initialise
from scaletrain.cluster.cluster_file import ClusterFile, load_cluster_file
from scaletrain.cluster.gcp_account import Project, connect
from scaletrain.cluster.gcp_image import bake_image
from scaletrain.cluster.gcp_machines import zone_of
from scaletrain.errors import ClusterError


@pytest.fixture
def file(google: GoogleProject, gcp: ClusterProject) -> ClusterFile:
    initialise(gcp)
    return load_cluster_file(gcp.file)


@pytest.fixture
def project(google: GoogleProject) -> Project:
    return connect(PROJECT, REGION)


def start_worker(google: GoogleProject, file: ClusterFile, status: str) -> str:
    """A machine just as Ray would ask for it."""
    zone, kind = zone_of(file), next(each for each in file.workers if each.name == "gpu_spot")
    labels = {"ray-cluster-name": file.name, "ray-user-node-type": "gpu_spot", "ray-node-status": status}
    body: dict[str, Any] = {
        **kind.node_config,
        "name": f"ray-{file.name}-worker-1-compute",
        "machineType": f"zones/{zone}/machineTypes/{kind.instance_type}",
        "labels": {**kind.node_config["labels"], **labels},
    }
    google.call("compute", "instances.insert", zone=zone, body=body)
    return str(body["name"])


def test_an_image_is_made_of_a_machine_that_was_wiped_out_of_the_clusters_sight(
    google: GoogleProject, project: Project, file: ClusterFile
) -> None:
    """First it leaves the cluster, then it is wiped, then stopped and imaged, then it goes."""
    machine = start_worker(google, file, "up-to-date")
    seen: list[str] = []

    def wipe(_: ClusterFile, address: str) -> None:
        found = google.call("compute", "instances.get", zone=zone_of(file), instance=machine)
        seen.extend([found["labels"]["ray-cluster-name"], found["status"]])

    baked = bake_image(project, file, None, tell=lambda line: None, wipe=wipe)
    image = google.call("compute", "images.get", image=baked.name)
    assert image["labels"] == {"scaletrain-cluster": file.name} and image["sourceDisk"].endswith(machine)
    assert seen == [f"{file.name}-image", "RUNNING"]
    left = google.call("compute", "instances.list", zone=zone_of(file)).get("items", ())
    assert machine not in [each["name"] for each in left]
    assert f"sourceImage: projects/{PROJECT}/global/images/{baked.name}" in baked.advice(file)


def test_a_worker_that_cannot_be_imaged_is_ended_all_the_same(
    google: GoogleProject, project: Project, file: ClusterFile
) -> None:
    """Ray and `ray down` do not see it any more, so it would run on and cost money."""
    machine = start_worker(google, file, "up-to-date")

    def wipe(_: ClusterFile, address: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bake_image(project, file, None, tell=lambda line: None, wipe=wipe)
    left = google.call("compute", "instances.list", zone=zone_of(file)).get("items", ())
    assert machine not in [each["name"] for each in left]


def test_a_machine_that_is_not_set_up_is_none_to_copy(
    google: GoogleProject, project: Project, file: ClusterFile
) -> None:
    """The message says how to get one."""
    start_worker(google, file, "setting-up")
    with pytest.raises(ClusterError, match="set min_workers: 1 for it, run `ray up"):
        bake_image(project, file, "gpu_spot", tell=lambda line: None)
