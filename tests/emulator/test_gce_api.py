"""Compute Engine's API by Google's own client: what a launch may ask for, and how it is refused; networks; quotas."""

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from gce_launching import UBUNTU
from google_client import GoogleApis

_NUMBERS = itertools.count(1)
L4 = {"machineType": "zones/us-central1-a/machineTypes/g2-standard-4"}
SPOT = {"scheduling": {"provisioningModel": "SPOT", "instanceTerminationAction": "DELETE"}}


@pytest.fixture(scope="module")
def compute(google: GoogleApis) -> Any:
    return google.build("compute")


@pytest.fixture
def quota(google: GoogleApis) -> Iterator[Any]:
    """Sets quotas for one test."""
    yield lambda metric, limit: google.cloud("quota", metric, limit=limit)
    for metric in ("NVIDIA_L4_GPUS", "PREEMPTIBLE_NVIDIA_L4_GPUS", "GPUS_ALL_REGIONS"):
        google.cloud("quota", metric, limit=16)


def request(**more: Any) -> dict[str, Any]:
    return {
        "name": f"api-{next(_NUMBERS)}",
        "machineType": "zones/us-central1-a/machineTypes/n2-standard-4",
        "disks": [{"boot": True, "autoDelete": True, "initializeParams": {"sourceImage": UBUNTU}}],
        "networkInterfaces": [{"network": "global/networks/default"}],
        **more,
    }


def insert(compute: Any, **more: Any) -> Any:
    place = {"project": GoogleApis.project, "zone": GoogleApis.zone}
    return compute.instances().insert(**place, body=request(**more)).execute()


def get(compute: Any, name: str) -> Any:
    place = {"project": GoogleApis.project, "zone": GoogleApis.zone}
    return compute.instances().get(**place, instance=name).execute()


def status_of(action: Any) -> tuple[int, str]:
    """Return the status and reason with which a call is refused."""
    from googleapiclient.errors import HttpError

    with pytest.raises(HttpError) as raised:
        action()
    return raised.value.resp.status, raised.value.error_details[0]["reason"]


@pytest.mark.parametrize(
    ("fields", "refusal"),
    [
        ({"name": "Upper"}, (400, "invalid")),
        ({"name": "a" * 64}, (400, "invalid")),
        ({"labels": {"Key": "v"}}, (400, "invalid")),
        ({"disks": []}, (400, "invalid")),
        ({"machineType": "zones/us-central1-a/machineTypes/huge"}, (404, "notFound")),
        ({"networkInterfaces": [{"network": "global/networks/absent"}]}, (404, "notFound")),
        ({"disks": [{"boot": True, "initializeParams": {"sourceImage": "global/images/no"}}]}, (404, "notFound")),
        (L4, (400, "badRequest")),  # a machine with GPUs cannot be moved: onHostMaintenance
        ({"scheduling": [{"preemptible": True}]}, (400, "invalid")),
        ({"serviceAccounts": [{"email": "nobody@x", "scopes": []}]}, (404, "notFound")),
    ],
)
def test_a_launch_with_something_wrong_is_refused(
    compute: Any, fields: dict[str, Any], refusal: tuple[int, str]
) -> None:
    """With the status and the reason of Compute Engine."""
    assert status_of(lambda: insert(compute, **fields)) == refusal


def test_a_machine_has_its_addresses_and_goes_with_its_disk(google: GoogleApis, compute: Any) -> None:
    """A name can be used once at a time; the boot disk has the machine's name and the labels that it was given."""
    place = {"project": google.project, "zone": google.zone}
    disk = {"boot": True, "autoDelete": True, "initializeParams": {"sourceImage": UBUNTU, "labels": {"a": "b"}}}
    access = [{"network": "global/networks/default", "accessConfigs": [{"type": "ONE_TO_ONE_NAT"}]}]
    body = request(name="twice", disks=[disk], networkInterfaces=access)
    assert compute.instances().insert(**place, body=body).execute()["status"] == "DONE"
    assert status_of(lambda: compute.instances().insert(**place, body=body).execute()) == (409, "alreadyExists")
    (interface,) = get(compute, "twice")["networkInterfaces"]
    assert interface["networkIP"].startswith("10.128.") and interface["accessConfigs"][0]["natIP"]
    assert compute.disks().get(**place, disk="twice").execute()["labels"] == {"a": "b"}
    compute.instances().delete(**place, instance="twice").execute()
    assert status_of(lambda: get(compute, "twice")) == (404, "notFound")
    assert status_of(lambda: compute.disks().get(**place, disk="twice").execute()) == (404, "notFound")


def test_labels_are_changed_by_whoever_has_read_them(google: GoogleApis, compute: Any) -> None:
    """A stale fingerprint is refused, for labels and for the project's metadata."""
    place = {"project": google.project, "zone": google.zone}
    insert(compute, name="labelled", labels={"a": "b"})
    body = {"labels": {"a": "c"}, "labelFingerprint": get(compute, "labelled")["labelFingerprint"]}
    compute.instances().setLabels(**place, instance="labelled", body=body).execute()
    assert get(compute, "labelled")["labels"] == {"a": "c"}
    again = compute.instances().setLabels(**place, instance="labelled", body=body)
    assert status_of(again.execute) == (412, "conditionNotMet")
    common = compute.projects().get(project=google.project).execute()["commonInstanceMetadata"]
    stale = {**common, "fingerprint": "x"}
    change = compute.projects().setCommonInstanceMetadata(project=google.project, body=stale)
    assert status_of(change.execute) == (412, "conditionNotMet")


def test_a_launch_beyond_a_quota_ends_in_an_error(google: GoogleApis, compute: Any, quota: Any) -> None:
    """Of the region for the kind of GPU and its market, then of the project; the operation says so, not the call."""
    quota("NVIDIA_L4_GPUS", 0)
    quota("PREEMPTIBLE_NVIDIA_L4_GPUS", 1)
    quota("GPUS_ALL_REGIONS", 1)
    fixed = {"scheduling": {"onHostMaintenance": "TERMINATE"}}
    (error,) = insert(compute, **L4, **fixed)["error"]["errors"]
    assert error["code"] == "QUOTA_EXCEEDED" and "'NVIDIA_L4_GPUS' exceeded.  Limit: 0.0" in error["message"]
    assert "error" not in insert(compute, **L4, **SPOT)
    quotas = compute.regions().get(project=google.project, region="us-central1").execute()["quotas"]
    assert [each["usage"] for each in quotas if each["metric"] == "PREEMPTIBLE_NVIDIA_L4_GPUS"] == [1]
    quota("PREEMPTIBLE_NVIDIA_L4_GPUS", 2)
    failed = insert(compute, **L4, **SPOT)
    assert "'GPUS_ALL_REGIONS' exceeded.  Limit: 1.0 globally" in failed["error"]["errors"][0]["message"]
    project = compute.projects().get(project=google.project).execute()
    assert [each["metric"] for each in project["quotas"]] == ["GPUS_ALL_REGIONS"]


def test_zones_differ_in_what_they_have(google: GoogleApis, compute: Any) -> None:
    """The last zone of a region has no GPUs."""
    for zone, there in (("us-central1-a", True), ("us-central1-c", False)):
        listed = compute.machineTypes().list(project=google.project, zone=zone).execute()["items"]
        assert ("g2-standard-4" in {each["name"] for each in listed}) is there
    found = compute.machineTypes().get(project=google.project, zone="us-central1-a", machineType="a2-highgpu-1g")
    assert found.execute()["accelerators"] == [
        {"guestAcceleratorType": "nvidia-tesla-a100", "guestAcceleratorCount": 1}
    ]
    absent = compute.machineTypes().get(project=google.project, zone="us-central1-z", machineType="a2-highgpu-1g")
    assert status_of(absent.execute) == (404, "notFound")


def test_images_are_found_by_their_family(google: GoogleApis, compute: Any) -> None:
    """Those that Google publishes, and those that are made of a disk here."""
    family = compute.images().getFromFamily(project="ubuntu-os-cloud", family="ubuntu-2404-lts-amd64").execute()
    assert (family["status"], family["diskSizeGb"]) == ("READY", "10")
    insert(compute, name="imaged")
    body = {"name": "own", "sourceDisk": f"projects/{google.project}/zones/{google.zone}/disks/imaged"}
    compute.images().insert(project=google.project, body=body).execute()
    assert compute.images().get(project=google.project, image="own").execute()["name"] == "own"
    compute.images().delete(project=google.project, image="own").execute()
    absent = compute.images().get(project=google.project, image="own")
    assert status_of(absent.execute) == (404, "notFound")


def test_a_network_goes_when_nothing_is_in_it(google: GoogleApis, compute: Any) -> None:
    """Subnets and rules keep it; lists are in pages."""
    project = google.project
    compute.networks().insert(project=project, body={"name": "own", "autoCreateSubnetworks": False}).execute()
    subnet = {"name": "own", "network": f"projects/{project}/global/networks/own", "ipCidrRange": "10.9.0.0/24"}
    compute.subnetworks().insert(project=project, region="us-central1", body=subnet).execute()
    delete = compute.networks().delete(project=project, network="own")
    assert status_of(delete.execute) == (400, "resourceInUseByAnotherResource")
    compute.subnetworks().delete(project=project, region="us-central1", subnetwork="own").execute()
    delete.execute()
    first = compute.firewalls().list(project=project, maxResults=2).execute()
    second = compute.firewalls().list(project=project, maxResults=2, pageToken=first["nextPageToken"]).execute()
    names = [each["name"] for each in (*first["items"], *second["items"])]
    assert {"default-allow-ssh", "default-allow-internal"} <= {*names} and len(names) == len({*names})


def test_another_project_is_not_there(google: GoogleApis, compute: Any) -> None:
    """Compute Engine says 404, Resource Manager 403."""
    assert status_of(compute.projects().get(project="another").execute) == (404, "notFound")
    manager = google.build("cloudresourcemanager")
    assert status_of(manager.projects().get(projectId="another").execute)[0] == 403
    assert status_of(manager.projects().get(projectId="FILL THIS: in").execute)[0] == 400


def test_an_api_that_is_not_enabled_says_how_to(google: GoogleApis, compute: Any) -> None:
    """Every call to it fails until it is enabled."""
    usage = google.build("serviceusage").services()
    name = f"projects/{google.project}/services/compute.googleapis.com"
    usage.disable(name=name, body={}).execute()
    try:
        assert usage.get(name=name).execute()["state"] == "DISABLED"
        assert status_of(compute.regions().list(project=google.project).execute) == (403, "accessNotConfigured")
    finally:
        usage.enable(name=name, body={}).execute()
    assert compute.regions().list(project=google.project).execute()["items"]
