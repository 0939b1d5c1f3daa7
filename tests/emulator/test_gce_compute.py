"""gce_compute: what a machine took of the quotas is free again once it is off, whoever took it away."""

import pytest

from scaletrain.emulator.google_calls import administer
from scaletrain.emulator.google_cloud import GoogleCloud

ZONE = "us-central1-a"
UBUNTU = "projects/ubuntu-os-cloud/global/images/family/ubuntu-2404-lts-amd64"


def launch(cloud: GoogleCloud, name: str) -> bool:
    """Launch a machine with an L4, and say whether there was one to be had."""
    body = {
        "name": name,
        "machineType": f"zones/{ZONE}/machineTypes/g2-standard-8",
        "disks": [{"boot": True, "autoDelete": True, "initializeParams": {"sourceImage": UBUNTU, "diskSizeGb": 50}}],
        "networkInterfaces": [{"network": "global/networks/default"}],
        "scheduling": {"onHostMaintenance": "TERMINATE"},
    }
    return "error" not in administer(cloud, "compute", "instances.insert", {"zone": ZONE, "body": body})


@pytest.mark.parametrize("delete", [True, False])
def test_a_replacement_finds_the_quota_of_the_machine_that_was_taken(delete: bool) -> None:
    """Not before that one is off; stopped or deleted makes no difference."""
    cloud = GoogleCloud("a-project", "us-central1", operations_last_s=0, object_store="127.0.0.1:1")
    cloud.catalog.limits["NVIDIA_L4_GPUS"] = 1
    assert launch(cloud, "first")
    cloud.compute.settled("first")
    cloud.compute.power_off("first", delete=delete)
    assert not launch(cloud, "too-early")
    cloud.compute.settled("first")
    assert launch(cloud, "replacement")
