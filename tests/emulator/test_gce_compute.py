"""gce_compute: what a machine took of the quotas is free once it is off, and a deleted machine does not come back."""

import pytest

from scaletrain.emulator.gce_instances import Instances
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


def test_a_machine_that_is_deleted_while_it_boots_stays_deleted() -> None:
    """Whoever boots it had looked before that, and tells it to boot all the same."""
    cloud = GoogleCloud("a-project", "us-central1", operations_last_s=0, object_store="127.0.0.1:1")
    instances = Instances(cloud, gateway="10.0.0.1")
    assert launch(cloud, "short-lived")
    [wanted] = instances.wanted()
    assert wanted.on
    cloud.compute.power_off("short-lived", delete=True)
    instances.boot_of("short-lived")
    [wanted] = instances.wanted()
    assert not wanted.on and not wanted.keep_disk
    instances.settled(wanted)
    assert instances.wanted() == []
