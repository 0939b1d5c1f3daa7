"""Can the file's machines be had on Google Cloud: do their types and images exist, and do the quotas suffice."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from scaletrain.cluster.cluster_file import ClusterFile, NodeType
from scaletrain.cluster.gcp_account import Project, all_pages, execute, get_or_none, google_errors, last_part
from scaletrain.cluster.gcp_network import machine_type
from scaletrain.cluster.schema import did_you_mean
from scaletrain.machine_types import too_old

_IMAGE = re.compile(r"(?:.*/)?projects/(?P<project>[^/]+)/global/images/(?:family/(?P<family>[^/]+)|(?P<name>[^/]+))$")
# Quotas on CPUs, by the first part of a type; https://cloud.google.com/compute/resource-usage
_CPUS = {"a2": "A2_CPUS", "c2": "C2_CPUS", "c2d": "C2D_CPUS", "c3": "C3_CPUS", "e2": "CPUS", "n1": "CPUS"}
_CPUS |= {"n2": "N2_CPUS", "n2d": "N2D_CPUS", "t2d": "T2D_CPUS"}
_GPUS = {
    "nvidia-a100-80gb": "NVIDIA_A100_80GB_GPUS",
    "nvidia-h100-80gb": "NVIDIA_H100_GPUS",
    "nvidia-l4": "NVIDIA_L4_GPUS",
    "nvidia-tesla-a100": "NVIDIA_A100_GPUS",
    "nvidia-tesla-p100": "NVIDIA_P100_GPUS",
    "nvidia-tesla-p4": "NVIDIA_P4_GPUS",
    "nvidia-tesla-t4": "NVIDIA_T4_GPUS",
    "nvidia-tesla-v100": "NVIDIA_V100_GPUS",
}
_ALL_GPUS = "GPUS_ALL_REGIONS"


@dataclass(frozen=True)
class MachineFacts:
    """What Google says of a machine type, with the GPUs that belong to it or that the file adds."""

    vcpus: int
    memory_gib: float
    gpus: int
    gpu_type: str | None


def find_machine_types(project: Project, file: ClusterFile) -> tuple[dict[str, MachineFacts], list[str]]:
    """Return what Google says of each node type's machine, and a problem for each that the zone does not have."""
    zone = zone_of(file)
    facts, problems = {}, []
    compute = project.service("compute")
    for kind in file.node_types:
        if kind.instance_type is None or (kind.name != file.head_node_type and kind.max_workers == 0):
            continue
        place = f"available_node_types.{kind.name}"
        with google_errors(f"looking at machine type {kind.instance_type}"):
            found = machine_type(project, zone, kind.instance_type)
            if found is None:
                there = all_pages(compute.machineTypes(), project=project.project_id, zone=zone)
                advice = did_you_mean(kind.instance_type, [str(each["name"]) for each in there])
                advice = advice if advice.startswith("did") else "choose another type or zone"
                problems.append(f"{place}: {zone} has no {kind.instance_type}; {advice}")
                continue
        facts[kind.name] = _facts(kind, found)
        problems += _resource_problems(kind, facts[kind.name], place)
    return facts, problems


def image_problems(project: Project, file: ClusterFile) -> Iterator[str]:
    """Each image must be there, and each machine's disk must be as large as its image."""
    seen: dict[str, dict[str, Any] | str] = {}
    for kind in file.node_types:
        for index, disk in enumerate(kind.node_config.get("disks") or ()):
            parameters = disk.get("initializeParams") or {}
            image = str(parameters.get("sourceImage", ""))
            if not disk.get("boot") or not image:
                continue
            if image not in seen:
                seen[image] = _find_image(project, image)
            found = seen[image]
            place = f"available_node_types.{kind.name}.node_config.disks.{index}"
            if isinstance(found, str):
                yield f"{place}: {found}"
                continue
            needed = float(found.get("diskSizeGb", 0))
            if float(parameters.get("diskSizeGb", needed)) < needed:
                yield f"{place}: has {parameters['diskSizeGb']} GB, its image needs {needed:g}; raise diskSizeGb"


def quota_problems(project: Project, file: ClusterFile, facts: dict[str, MachineFacts]) -> tuple[list[str], list[str]]:
    """Return a problem for each quota that does not admit max_workers, and a line for each that Google did not tell."""
    compute = project.service("compute")
    with google_errors("looking at the quotas"):
        regional = _limits(execute(compute.regions().get(project=project.project_id, region=project.region)))
        everywhere = _limits(execute(compute.projects().get(project=project.project_id)))
    problems, unknown = [], []
    for (metric, spot), count in _needed(file, facts).items():
        limits = everywhere if metric == _ALL_GPUS else regional
        # Spot counts against a quota of its own where the project has one, and against the ordinary one otherwise.
        names = [f"PREEMPTIBLE_{_spot_metric(metric)}", metric] if spot else [metric]
        told = [name for name in names if name in limits]
        used = next((name for name in told if limits[name] > 0), told[0] if told else None)
        if used is None:
            unknown.append(f"{metric}{' on spot' if spot else ''}: not told")
        elif limits[used] < count:
            where = "in all regions together" if metric == _ALL_GPUS else f"in {project.region}"
            problems.append(
                f"quota: the project may have {limits[used]:g} of {used} {where}, the file's max_workers need {count}; "
                f"ask for more at https://console.cloud.google.com/iam-admin/quotas?project={project.project_id}, or "
                "lower max_workers"
            )
    return problems, unknown


def zone_of(file: ClusterFile) -> str:
    """The one zone of a file's machines."""
    return str(file.raw["provider"].get("availability_zone", ""))


def _facts(kind: NodeType, found: dict[str, Any]) -> MachineFacts:
    cards = [
        (last_part(each["guestAcceleratorType"]), each["guestAcceleratorCount"])
        for each in found.get("accelerators", ())
    ]
    added = kind.node_config.get("guestAccelerators") or ()
    cards += [(last_part(str(each["acceleratorType"])), each.get("acceleratorCount", 1)) for each in added]
    gpus = sum(int(count) for _, count in cards)
    return MachineFacts(int(found["guestCpus"]), found["memoryMb"] / 1024, gpus, cards[0][0] if cards else None)


def _resource_problems(kind: NodeType, facts: MachineFacts, place: str) -> Iterator[str]:
    if kind.cpus > facts.vcpus:
        yield f"{place}.resources: CPU: {kind.cpus:g}, but a {kind.instance_type} has {facts.vcpus}; lower it"
    if kind.gpus > facts.gpus:
        yield f"{place}.resources: GPU: {kind.gpus:g}, but a {kind.instance_type} has {facts.gpus}; lower it"
    if problem := too_old(facts.gpu_type):
        yield f"{place}: {kind.instance_type}: {problem}"


def _find_image(project: Project, image: str) -> dict[str, Any] | str:
    """Return Google's description of an image, or what is wrong with it."""
    parts = _IMAGE.match(image)
    if parts is None:
        return f"{image} is no image; write projects/PROJECT/global/images/family/FAMILY, or .../images/NAME"
    images = project.service("compute").images()
    with google_errors(f"looking for the image {image}"):
        if parts["family"]:
            found = get_or_none(images.getFromFamily(project=parts["project"], family=parts["family"]))
        else:
            found = get_or_none(images.get(project=parts["project"], image=parts["name"]))
    if found is not None:
        return found
    kind = f"image family {parts['family']}" if parts["family"] else f"image {parts['name']}"
    return (
        f"{parts['project']} has no {kind}; see: gcloud compute images list --project {parts['project']} "
        "--no-standard-images"
    )


def _needed(file: ClusterFile, facts: dict[str, MachineFacts]) -> dict[tuple[str, bool], int]:
    """How much of each quota the file's largest cluster takes, by metric and whether on spot."""
    needed: dict[tuple[str, bool], int] = {}
    for kind in file.node_types:
        if kind.name not in facts:
            continue
        count = 1 if kind.name == file.head_node_type else min(kind.max_workers, file.max_workers)
        spot = kind.market == "spot"
        family = (kind.instance_type or "").partition("-")[0]
        amounts = [(_CPUS[family], spot, facts[kind.name].vcpus)] if family in _CPUS else []
        if facts[kind.name].gpus:
            metric = _GPUS.get(facts[kind.name].gpu_type or "", f"quota of {facts[kind.name].gpu_type}")
            amounts += [(metric, spot, facts[kind.name].gpus), (_ALL_GPUS, False, facts[kind.name].gpus)]
        for metric, on_spot, each in amounts:
            needed[metric, on_spot] = needed.get((metric, on_spot), 0) + count * each
    return needed


def _spot_metric(metric: str) -> str:
    return "CPUS" if metric.endswith("CPUS") else metric


def _limits(answer: dict[str, Any]) -> dict[str, float]:
    return {str(each["metric"]): float(each["limit"]) for each in answer.get("quotas", ())}
