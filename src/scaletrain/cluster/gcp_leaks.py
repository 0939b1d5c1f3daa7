"""What a Google Cloud project pays for: what is left of clusters that are gone, and heads, by our label or Ray's.

Stopped machines count too: Ray does not see one that Google has taken back and not deleted, and its disk costs.
"""

from collections.abc import Callable, Collection, Iterator
from datetime import datetime
from typing import Any

from scaletrain.cluster.cluster_file import ClusterFile
from scaletrain.cluster.gcp_account import LABEL, Project, all_pages, all_scopes, finish, google_errors, last_part
from scaletrain.cluster.leaks import Costs, Leak, Machine, living_clusters, remove_each

_RAY_LABEL = "ray-cluster-name"
_LIVING = ("PROVISIONING", "STAGING", "RUNNING", "REPAIRING")


def find_costs(
    project: Project,
    cluster: str | None = None,
    *,
    zone: str | None = None,
    images_in_use: Collection[str] | None = None,
) -> Costs:
    """Return what is left over from one cluster, or from every one of the project that bears our or Ray's label.

    And the clusters whose head starts or runs. A head sees the machines of its own zone only, and Ray sees a head only
    in the `zone` that its file names. Prepared images are looked at where `images_in_use` has the names of those that
    are still wanted.
    """
    compute = project.service("compute")
    with google_errors("looking for what costs money"):
        machines = list(_machines(compute, project.project_id))
        heads = {_seen_by_ray_in(each) for _, each in machines if _is_living_head(each, zone)}
        leaks = [
            Leak("machine", _id_of(each), name, f"{last_part(each['machineType'])}, {each['status']}")
            for name, each in machines
            if _seen_by_ray_in(each) not in heads or each["status"] not in (*_LIVING, "STOPPING")
        ]
        leaks += _loose_parts(compute, project.project_id)
        if images_in_use is not None:
            leaks += _images(compute, project.project_id, images_in_use)
    running = [
        Machine(
            _id_of(each),
            *_seen_by_ray_in(each),
            _is_living_head(each, zone),
            datetime.fromisoformat(each["creationTimestamp"]),
        )
        for _, each in machines
        if each["status"] in _LIVING
    ]
    return Costs([leak for leak in leaks if cluster in (None, leak.cluster)], living_clusters(running, cluster))


def remove_leaks(project: Project, leaks: list[Leak], *, tell: Callable[[str], None]) -> None:
    """Remove them for good."""
    compute = project.service("compute")

    def remove(leak: Leak) -> None:
        scope, _, name = leak.id.rpartition("/")
        place: dict[str, Any] = {"project": project.project_id}
        with google_errors(f"removing {leak.kind} {leak.id}"):
            if leak.kind == "machine":
                finish(project, compute.instances().delete(**place, zone=scope, instance=name))
            elif leak.kind == "disk":
                finish(project, compute.disks().delete(**place, zone=scope, disk=name))
            elif leak.kind == "image":
                finish(project, compute.images().delete(**place, image=name))
            else:
                finish(project, compute.addresses().delete(**place, region=scope, address=name))

    remove_each(leaks, remove, tell=tell)


def images_of(file: ClusterFile) -> set[str]:
    """Return the names of the images that a file's machines start from."""
    disks = [disk for kind in file.node_types for disk in kind.node_config.get("disks") or ()]
    return {last_part(str((disk.get("initializeParams") or {}).get("sourceImage", ""))) for disk in disks}


def _machines(compute: Any, project_id: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for machine in all_scopes(compute.instances(), "instances", project=project_id):
        if (name := _cluster_of(machine)) is not None:
            yield name, machine


def _is_living_head(machine: dict[str, Any], zone: str | None) -> bool:
    is_head = machine["labels"].get("ray-node-type") == "head" and machine["status"] in _LIVING
    return is_head and zone in (None, last_part(machine["zone"]))


def _seen_by_ray_in(machine: dict[str, Any]) -> tuple[str, str]:
    """The cluster and the zone whose head sees the machine: no head does once it was taken out to make an image."""
    labels = machine["labels"]
    return labels.get(_RAY_LABEL) or labels[LABEL], last_part(machine["zone"])


def _loose_parts(compute: Any, project_id: str) -> Iterator[Leak]:
    for disk in all_scopes(compute.disks(), "disks", project=project_id):
        name = _cluster_of(disk)
        if name is not None and not disk.get("users") and "zone" in disk:
            yield Leak("disk", _id_of(disk), name, f"{disk['sizeGb']} GB, not attached")
    for address in all_scopes(compute.addresses(), "addresses", project=project_id):
        name = _cluster_of(address)
        if name is not None and not address.get("users") and "region" in address:
            yield Leak("address", _id_of(address), name, f"{address['address']}, leads nowhere")


def _images(compute: Any, project_id: str, in_use: Collection[str]) -> Iterator[Leak]:
    for image in all_pages(compute.images(), project=project_id, filter=f"labels.{LABEL}:*"):
        if image["name"] not in in_use:
            detail = f"{image['diskSizeGb']} GB, not named in the file"
            yield Leak("image", image["name"], image["labels"][LABEL], detail)


def _id_of(thing: dict[str, Any]) -> str:
    """The zone or region and the name, since a name is unique only there."""
    return f"{last_part(thing.get('zone') or thing['region'])}/{thing['name']}"


def _cluster_of(thing: dict[str, Any]) -> str | None:
    labels = thing.get("labels", {})
    name: str | None = labels.get(LABEL) or labels.get(_RAY_LABEL)
    return name
