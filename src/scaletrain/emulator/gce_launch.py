"""A launch of Compute Engine: what may stand in it, what it needs, and the machine that comes of it."""

import re
import secrets
import time
from collections.abc import Sequence

from scaletrain.emulator.gce_catalog import URL, Catalog, MachineType, attachable
from scaletrain.emulator.google_request import Call, Refusal, Resource

_NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_LABEL = (re.compile(r"[a-z][-_a-z0-9]{0,62}"), re.compile(r"[-_a-z0-9]{0,63}"))


def check_launch(body: Resource) -> None:
    """Refuse what Compute Engine refuses of a launch's own fields."""
    name = body.get("name", "")
    if not _NAME.fullmatch(name):
        raise _invalid("name", name, "must be a match of regex '(?:[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?)'")
    check_labels(body.get("labels", {}))
    disks = body.get("disks", [])
    boots = [each for each in disks if each.get("boot")]
    if len(boots) != 1 or not boots[0].get("initializeParams", {}).get("sourceImage"):
        raise _invalid("disks", str(len(boots)), "exactly one boot disk with an image")
    if not body.get("networkInterfaces"):
        raise _invalid("networkInterfaces", "[]", "at least one network interface is required")
    scheduling = body.get("scheduling", {})
    if not isinstance(scheduling, dict):
        message = "Unknown name \"scheduling\" at 'resource': Proto field is not repeating, cannot start list."
        raise Refusal(400, "invalid", f"Invalid JSON payload received. {message}")
    if scheduling.get("instanceTerminationAction") and not is_spot(body) and "maxRunDuration" not in scheduling:
        raise _invalid("scheduling.instanceTerminationAction", "", "needs provisioningModel SPOT")
    if is_spot(body) and scheduling.get("automaticRestart"):
        raise _invalid("scheduling.automaticRestart", "true", "Spot VMs cannot be restarted automatically")
    if is_spot(body) and scheduling.get("onHostMaintenance") == "MIGRATE":
        raise _invalid("scheduling.onHostMaintenance", "MIGRATE", "Spot VMs are terminated")


def check_labels(labels: dict[str, str]) -> None:
    """Refuse labels that are none."""
    for key, value in labels.items():
        if not _LABEL[0].fullmatch(key) or not _LABEL[1].fullmatch(value):
            raise _invalid("labels", f"{key}={value}", "lower-case letters, digits, - and _ only")


def gpus_of(body: Resource, kind: MachineType, zone: str, catalog: Catalog) -> dict[str, int]:
    """Return how many GPUs of which kinds a launch gets; refuses what cannot be."""
    found = {kind.gpu: kind.gpus} if kind.gpus else {}
    for each in body.get("guestAccelerators", []):
        gpu = each["acceleratorType"].rpartition("/")[2]
        if gpu not in catalog.gpu_kinds(zone):
            raise Refusal(404, "notFound", f"The resource '{each['acceleratorType']}' was not found")
        if gpu != kind.gpu:
            attachable(kind, gpu)
        found[gpu] = int(each["acceleratorCount"])
    if found and not is_spot(body) and body.get("scheduling", {}).get("onHostMaintenance") != "TERMINATE":
        message = "Instances with guest accelerators do not support live migration."
        raise Refusal(400, "badRequest", message)
    return found


def needed_permissions(call: Call, body: Resource, subnet: Resource, catalog: Catalog) -> list[tuple[str, str]]:
    """Return what a launch needs beside compute.instances.create: (permission, name of the resource).

    https://cloud.google.com/compute/docs/reference/rest/v1/instances/insert#iam-permissions
    """
    place = f"projects/{call.names['project']}/zones/{call.names['zone']}"
    instance = f"{place}/instances/{body['name']}"
    needed = [(f"compute.instances.{verb}", instance) for key, verb in _VERBS.items() if body.get(key)]
    for disk in body["disks"]:
        parameters = disk.get("initializeParams")
        if parameters is None:
            needed.append(("compute.disks.use", disk.get("source", "").removeprefix(f"{URL}/")))
            continue
        name = f"{place}/disks/{parameters.get('diskName') or body['name']}"
        needed.append(("compute.disks.create", name))
        if parameters.get("labels"):
            needed.append(("compute.disks.setLabels", name))
        image = catalog.image(parameters["sourceImage"])["selfLink"].removeprefix(f"{URL}/")
        if image.startswith(f"{call.names['project']}/"):
            needed.append(("compute.images.useReadOnly", f"projects/{image}"))
    name = f"projects/{subnet['selfLink'].removeprefix(f'{URL}/')}"
    needed.append(("compute.subnetworks.use", name))
    if any(each.get("accessConfigs") for each in body["networkInterfaces"]):
        needed.append(("compute.subnetworks.useExternalIp", name))
    return needed


_VERBS = {
    "labels": "setLabels",
    "metadata": "setMetadata",
    "serviceAccounts": "setServiceAccount",
    "tags": "setTags",
}


def is_spot(body: Resource) -> bool:
    """Tell whether a machine is a Spot VM, or a preemptible one."""
    scheduling = body.get("scheduling", {})
    return bool(scheduling.get("preemptible") or scheduling.get("provisioningModel") == "SPOT")


def boot_disks(call: Call, body: Resource, catalog: Catalog) -> list[Resource]:
    """Return the disks that a launch makes."""
    base = f"{URL}/{call.names['project']}/zones/{call.names['zone']}"
    found = []
    for disk in body["disks"]:
        parameters = disk.get("initializeParams")
        if parameters is None:
            continue
        image = catalog.image(parameters["sourceImage"])
        name = parameters.get("diskName") or body["name"]
        size_gb = str(parameters.get("diskSizeGb") or image["diskSizeGb"])
        if int(size_gb) < int(image["diskSizeGb"]):
            message = f"Requested disk size cannot be smaller than the image size ({image['diskSizeGb']} GB)"
            raise Refusal(400, "invalid", message)
        found.append(
            {
                "kind": "compute#disk",
                "name": name,
                "status": "READY",
                "sizeGb": size_gb,
                "labels": parameters.get("labels", {}),
                "sourceImage": image["selfLink"],
                "type": parameters.get("diskType") or f"{base}/diskTypes/pd-standard",
                "zone": base,
                "users": [f"{base}/instances/{body['name']}"],
                "selfLink": f"{base}/disks/{name}",
            }
        )
    return found


def new_instance(
    call: Call, body: Resource, subnet: Resource, disks: Sequence[Resource], *, address: str, public: str
) -> Resource:
    """Return the resource of a machine that was asked for."""
    base = f"{URL}/{call.names['project']}/zones/{call.names['zone']}"
    interface = {**body["networkInterfaces"][0]}
    interface |= {
        "kind": "compute#networkInterface",
        "name": "nic0",
        "network": subnet["network"],
        "subnetwork": subnet["selfLink"],
        "networkIP": address,
    }
    if interface.get("accessConfigs"):
        interface["accessConfigs"] = [{**interface["accessConfigs"][0], "natIP": public}]
    made = iter(disks)
    attached = []
    for index, disk in enumerate(body["disks"]):
        source = next(made)["selfLink"] if "initializeParams" in disk else disk["source"]
        kept = {key: value for key, value in disk.items() if key != "initializeParams"}
        attached.append({"autoDelete": False, **kept, "source": source, "index": index, "deviceName": f"disk-{index}"})
    return {
        **body,
        "kind": "compute#instance",
        "id": str(secrets.randbits(62)),
        "creationTimestamp": time.strftime("%Y-%m-%dT%H:%M:%S.000-00:00", time.gmtime()),
        "status": "PROVISIONING",
        "machineType": f"{base}/machineTypes/{body['machineType'].rpartition('/')[2]}",
        "labels": {**body.get("labels", {})},
        "tags": {**body.get("tags", {}), "fingerprint": secrets.token_urlsafe(8)},
        "metadata": {**body.get("metadata", {}), "fingerprint": secrets.token_urlsafe(8)},
        "networkInterfaces": [interface],
        "disks": attached,
        "scheduling": {"onHostMaintenance": "TERMINATE" if is_spot(body) else "MIGRATE", **body.get("scheduling", {})},
        "zone": base,
        "selfLink": f"{base}/instances/{body['name']}",
    }


def _invalid(field: str, value: str, why: str) -> Refusal:
    return Refusal(400, "invalid", f"Invalid value for field 'resource.{field}': '{value}'. {why}")
