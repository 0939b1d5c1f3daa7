"""An image of a worker on Google Cloud: made of its boot disk while the machine is stopped, so that it is whole."""

from collections.abc import Callable
from typing import Any

from scaletrain.cluster.cluster_file import ClusterFile, NodeType
from scaletrain.cluster.gcp_account import LABEL, Project, all_pages, execute, finish, google_errors
from scaletrain.cluster.gcp_machines import zone_of
from scaletrain.cluster.image import (
    BakedImage,
    Wipe,
    choose_type,
    ended_if_it_fails,
    image_name,
    none_is_set_up,
    wipe_over_ssh,
)
from scaletrain.errors import ClusterError


def bake_image(
    project: Project,
    file: ClusterFile,
    node_type: str | None,
    *,
    tell: Callable[[str], None],
    wipe: Wipe = wipe_over_ssh,
) -> BakedImage:
    """Make an image of a running worker of a type (the first with GPUs by default); it is deleted, also on failure.

    Raises ClusterError where none is set up.
    """
    kind = choose_type(file, node_type)
    compute = project.service("compute")
    machine = _find_worker(project, file, kind)
    name, machine_name = image_name(file, kind), str(machine["name"])
    place = {"project": project.project_id, "zone": zone_of(file), "instance": machine_name}
    labels = {**machine["labels"], "ray-cluster-name": f"{file.name}-image", LABEL: file.name}
    tell(f"take {machine_name} out of the cluster")
    with google_errors(f"taking {machine_name} out of the cluster"):
        body = {"labels": labels, "labelFingerprint": machine["labelFingerprint"]}
        finish(project, compute.instances().setLabels(**place, body=body))

    def end() -> None:
        with google_errors(f"ending {machine_name}"):
            finish(project, compute.instances().delete(**place))

    with ended_if_it_fails(file, machine_name, end, tell=tell):
        tell("wipe token, keys and histories")
        wipe(file, _address_of(machine))
        tell(f"stop {machine_name} and make the image {name}: some minutes")
        _make_image(project, file, kind, machine, name)
        end()
    path = f"projects/{project.project_id}/global/images/{name}"
    removal = f"gcloud compute images delete {name} --project {project.project_id}"
    return BakedImage(path, name, kind.name, f"sourceImage: {path}", removal)


def _make_image(project: Project, file: ClusterFile, kind: NodeType, machine: dict[str, Any], name: str) -> None:
    compute = project.service("compute")
    with google_errors(f"making an image of {machine['name']}"):
        # A worker on spot that is stopped by its owner is not deleted by that.
        place = {"project": project.project_id, "zone": zone_of(file), "instance": str(machine["name"])}
        finish(project, compute.instances().stop(**place))
        disk = next(each["source"] for each in machine["disks"] if each.get("boot"))
        image = {
            "name": name,
            "sourceDisk": disk,
            "description": f"scaletrain: {kind.name} of {file.name}, set up",
            "labels": {LABEL: file.name},
        }
        finish(project, compute.images().insert(project=project.project_id, body=image), timeout_s=2400)
        made = execute(compute.images().get(project=project.project_id, image=name))
        if made.get("status", "READY") != "READY":
            raise ClusterError(f"the image {name} is {made['status']}; look at it in the console, and try again")


def _find_worker(project: Project, file: ClusterFile, kind: NodeType) -> dict[str, Any]:
    wanted = {
        "ray-cluster-name": file.name,
        "ray-user-node-type": kind.name,
        "ray-node-status": "up-to-date",
    }
    labels = " AND ".join(f"(labels.{key} = {value})" for key, value in wanted.items())
    instances = project.service("compute").instances()
    with google_errors("looking for a machine that is set up"):
        found = all_pages(
            instances, project=project.project_id, zone=zone_of(file), filter=f"{labels} AND (status = RUNNING)"
        )
        machine = next(iter(found), None)
    if machine is None:
        raise none_is_set_up(file, kind)
    return machine


def _address_of(machine: dict[str, Any]) -> str:
    interface = machine["networkInterfaces"][0]
    public = [each["natIP"] for each in interface.get("accessConfigs", ()) if "natIP" in each]
    return str(public[0] if public else interface["networkIP"])
