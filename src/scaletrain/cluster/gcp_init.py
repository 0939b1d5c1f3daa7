"""`scaletrain cluster init gcp`: plans what a cluster file needs in a Google Cloud project and here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scaletrain.cluster import auth_token, places
from scaletrain.cluster.gcp_account import LABEL, Project, all_scopes, connect, google_errors, last_part
from scaletrain.cluster.gcp_bucket import bucket_removal_steps, bucket_steps
from scaletrain.cluster.gcp_network import (
    find_network,
    find_subnet,
    find_zone,
    firewall_removal_steps,
    firewall_steps,
    private_access_step,
)
from scaletrain.cluster.gcp_plan import Wanted
from scaletrain.cluster.gcp_roles import role_removal_steps, role_steps
from scaletrain.cluster.init import (
    empty_steps,
    fill_step,
    find_project,
    is_filled,
    left_behind,
    read_file,
    rewrite,
    secret_removal_steps,
    secret_steps,
    split_bucket_url,
    ssh_addresses,
)
from scaletrain.cluster.plan import Step
from scaletrain.errors import ClusterError, ConfigError

_LONGEST_NAME = 23  # a service account's name has at most 30 characters, and ours end with -worker


@dataclass(frozen=True)
class GcpRequest:
    """What the user asked for; None where the file or the project decides."""

    path: Path
    project_id: str | None = None
    region: str | None = None
    zone: str | None = None
    bucket: str | None = None
    network: str = "default"
    ssh_from: tuple[str, ...] = ()


def plan_gcp(request: GcpRequest) -> tuple[Project, list[Step]]:
    """Look at everything that the file needs and return what is to be done; changes nothing."""
    tree, current = _read(request)
    project = _connect(request, current)
    cluster = tree["cluster_name"]
    bucket, prefix = _bucket(request, project, current)
    network = find_network(project, request.network)
    zone = find_zone(project, _machine_types(tree), wanted=request.zone, current=current.get("zone"))
    _refuse_to_leave_machines(request.path, project, cluster, zone)
    wanted = Wanted(
        cluster=cluster,
        project_id=project.project_id,
        project_number=project.number,
        region=project.region,
        zone=zone,
        bucket=bucket,
        prefix=prefix,
        ssh_user=tree["auth"]["ssh_user"],
        ssh_from=ssh_addresses(request.ssh_from),
        network=network,
        subnet=find_subnet(project, network, current=current.get("subnet")),
        public_key=lambda: Path(f"{auth_token.key_path(cluster)}.pub").read_text().strip(),
    )
    steps = [
        *secret_steps(cluster),
        *firewall_steps(project, wanted),
        private_access_step(project, wanted),
        *role_steps(project, wanted),
        *bucket_steps(project, wanted),
        _fill_gcp(request.path, wanted),
    ]
    return project, steps


def plan_destroy_gcp(request: GcpRequest, *, with_objects: bool) -> tuple[Project, list[Step]]:
    """Look for everything that init made and return what is to be removed; changes nothing.

    Raises ClusterError while machines of the cluster are there.
    """
    tree, current = _read(request)
    project = _connect(request, current)
    cluster = tree["cluster_name"]
    if machines := machines_of(project, cluster):
        raise ClusterError(
            f"{', '.join(name for _, name in machines)} still there; first: ray down {request.path}; machines that it "
            f"does not see are ended by `scaletrain cluster sweep-leaks {request.path} --delete`"
        )
    bucket, prefix = _bucket(request, project, current)
    wanted = Wanted(
        cluster=cluster,
        project_id=project.project_id,
        project_number=project.number,
        region=project.region,
        zone="",
        bucket=bucket,
        prefix=prefix,
        ssh_user="",
        ssh_from=(),
        network=request.network,
        subnet="",
        public_key=lambda: "",
    )
    steps = [
        *firewall_removal_steps(project, wanted),
        *bucket_removal_steps(project, wanted, with_objects=with_objects),
        *role_removal_steps(project, wanted),
        *secret_removal_steps(cluster),
        *empty_steps(request.path, current),
    ]
    return project, steps


def machines_of(project: Project, cluster: str) -> list[tuple[str, str]]:
    """Return zone and name of the machines with Ray's label of a cluster, or ours; stopped ones cost money, too."""
    instances = project.service("compute").instances()
    labels = f"(labels.ray-cluster-name = {cluster}) OR (labels.{LABEL} = {cluster})"
    with google_errors("looking for machines"):
        found = all_scopes(instances, "instances", project=project.project_id, filter=labels)
        return sorted((last_part(each["zone"]), str(each["name"])) for each in found)


def _refuse_to_leave_machines(path: Path, project: Project, cluster: str, zone: str) -> None:
    """Ray knows machines of one zone only, and the head may end those there alone: others would run on for ever."""
    if left := [(old, name) for old, name in machines_of(project, cluster) if old != zone]:
        raise left_behind(path, left[0][0], [name for _, name in left], option="--zone")


def _read(request: GcpRequest) -> tuple[dict[str, Any], dict[str, str]]:
    tree, current = read_file(request.path, provider="gcp")
    if len(tree["cluster_name"]) > _LONGEST_NAME:
        raise ConfigError(
            f"{request.path}: cluster_name: got {tree['cluster_name']}; at most {_LONGEST_NAME} characters, since "
            "Google's service accounts have short names"
        )
    return tree, current


def _connect(request: GcpRequest, current: dict[str, str]) -> Project:
    region = request.region or (current["region"] if is_filled(current.get("region")) else None)
    if region is None:
        raise ConfigError("no region; give --region us-central1, or another one that has the GPUs that you want")
    project_id = request.project_id or (current["project_id"] if is_filled(current.get("project_id")) else None)
    return connect(project_id, region)


def _bucket(request: GcpRequest, project: Project, current: dict[str, str]) -> tuple[str, str]:
    """Return the bucket's name and the prefix of the storage root in it."""
    url = request.bucket
    if url is None and is_filled(current.get("bucket")):
        url = current["bucket"]
    if url is None:
        url = f"scaletrain-{project.project_id}-{project.region}/scaletrain"
    return split_bucket_url(url, scheme="gs://")


def _machine_types(tree: dict[str, Any]) -> set[str]:
    """The types of the machines that may run; those that are switched off are not looked for."""
    head = tree["head_node_type"]
    return {
        str(kind["node_config"]["machineType"])
        for name, kind in tree["available_node_types"].items()
        if "machineType" in kind["node_config"] and (name == head or kind.get("max_workers", 1) > 0)
    }


def _fill_gcp(path: Path, wanted: Wanted) -> Step:
    values: dict[str, str | list[str]] = {
        "bucket": wanted.bucket_root,
        "project_id": wanted.project_id,
        "region": wanted.region,
        "zone": wanted.zone,
        "disk_types": f"zones/{wanted.zone}/diskTypes",
        "ssh_key": str(auth_token.key_path(wanted.cluster)),
        "head_account": wanted.head_account,
        "worker_account": wanted.worker_account,
        "subnet": wanted.subnet,
        "cluster": wanted.cluster,
        "token": str(auth_token.token_path(wanted.cluster)),
        "project": str(find_project(path)),
    }
    if not auth_token.key_path(wanted.cluster).exists():
        places.fill_places(path.read_text(encoding="utf-8"), {**values, "ssh_keys": ""}, source=str(path))
        return Step(
            str(path), "change", "fill its places", lambda: rewrite(path, {**values, "ssh_keys": _ssh_keys(wanted)})
        )
    return fill_step(path, {**values, "ssh_keys": _ssh_keys(wanted)})


def _ssh_keys(wanted: Wanted) -> str:
    """The key as Google's guest agent reads it from a machine's metadata."""
    return f"{wanted.ssh_user}:{wanted.public_key()}"
