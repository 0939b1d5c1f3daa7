"""What the emulated Compute Engine offers: zones, machine types, GPUs, images, quotas; with the calls that tell it."""

from dataclasses import dataclass
from typing import Any

from scaletrain.emulator.google_filter import matches
from scaletrain.emulator.google_request import Call, Refusal, Resource, Route, not_found, page

URL = "https://www.googleapis.com/compute/v1/projects"
_GIB = 1024
# Family: memory of one CPU in MB, and the CPUs that there are.
_GENERAL = {
    "e2-standard": (4 * _GIB, (2, 4, 8, 16, 32)),
    "n1-standard": (3840, (1, 2, 4, 8, 16, 32)),
    "n2-standard": (4 * _GIB, (2, 4, 8, 16, 32, 48, 64)),
    "n2-highmem": (8 * _GIB, (2, 4, 8, 16, 32)),
    "n4-standard": (4 * _GIB, (2, 4, 8, 16, 32)),
    "c3-standard": (4 * _GIB, (4, 8, 22, 44)),
}
# CPUs, memory in GB, kind of GPU, how many.
_ACCELERATED = {
    "g2-standard-4": (4, 16, "nvidia-l4", 1),
    "g2-standard-8": (8, 32, "nvidia-l4", 1),
    "g2-standard-12": (12, 48, "nvidia-l4", 1),
    "g2-standard-16": (16, 64, "nvidia-l4", 1),
    "g2-standard-24": (24, 96, "nvidia-l4", 2),
    "g2-standard-48": (48, 192, "nvidia-l4", 4),
    "g2-standard-96": (96, 384, "nvidia-l4", 8),
    "a2-highgpu-1g": (12, 85, "nvidia-tesla-a100", 1),
    "a2-highgpu-2g": (24, 170, "nvidia-tesla-a100", 2),
    "a2-highgpu-4g": (48, 340, "nvidia-tesla-a100", 4),
    "a2-highgpu-8g": (96, 680, "nvidia-tesla-a100", 8),
    "a2-ultragpu-1g": (12, 170, "nvidia-a100-80gb", 1),
    "a2-ultragpu-8g": (96, 1360, "nvidia-a100-80gb", 8),
    "a3-highgpu-1g": (26, 234, "nvidia-h100-80gb", 1),
    "a3-highgpu-2g": (52, 468, "nvidia-h100-80gb", 2),
    "a3-highgpu-4g": (104, 936, "nvidia-h100-80gb", 4),
    "a3-highgpu-8g": (208, 1872, "nvidia-h100-80gb", 8),
}
_ATTACHED = ("nvidia-tesla-t4", "nvidia-tesla-v100", "nvidia-tesla-p100")  # to N1 machines
_GPU_QUOTAS = {
    "nvidia-l4": "NVIDIA_L4_GPUS",
    "nvidia-tesla-a100": "NVIDIA_A100_GPUS",
    "nvidia-a100-80gb": "NVIDIA_A100_80GB_GPUS",
    "nvidia-h100-80gb": "NVIDIA_H100_GPUS",
    "nvidia-tesla-t4": "NVIDIA_T4_GPUS",
    "nvidia-tesla-v100": "NVIDIA_V100_GPUS",
    "nvidia-tesla-p100": "NVIDIA_P100_GPUS",
}
_CPU_QUOTAS = {"n2": "N2_CPUS", "a2": "A2_CPUS", "c3": "C3_CPUS"}
# Zone suffixes of a region; the last one has no accelerated machines.
_ZONES = ("a", "b", "c")
_REGIONS = ("us-central1", "us-east4", "us-west1", "europe-west4", "asia-southeast1")
# Project, family, disk in GB.
_IMAGES = (
    ("ubuntu-os-cloud", "ubuntu-2204-lts", 10),
    ("ubuntu-os-cloud", "ubuntu-2404-lts-amd64", 10),
    ("debian-cloud", "debian-12", 10),
    ("debian-cloud", "debian-13", 10),
    ("deeplearning-platform-release", "common-cpu", 50),
    ("deeplearning-platform-release", "common-cu128-ubuntu-2204-nvidia-570", 50),
    ("deeplearning-platform-release", "common-cu129-ubuntu-2204-nvidia-580", 50),
    ("deeplearning-platform-release", "common-cu129-ubuntu-2404-nvidia-580", 50),
    ("deeplearning-platform-release", "pytorch-2-9-cu129-ubuntu-2404-nvidia-580", 50),
)


@dataclass(frozen=True)
class MachineType:
    """A kind of machine; `gpus` of a kind `gpu` are built in."""

    name: str
    cpus: int
    memory_mb: int
    gpu: str = ""
    gpus: int = 0


def machine_types() -> dict[str, MachineType]:
    """Return every machine type by its name."""
    found = [
        MachineType(f"{family}-{cpus}", cpus, cpus * memory)
        for family, (memory, sizes) in _GENERAL.items()
        for cpus in sizes
    ]
    found += [MachineType(f"e2-{name}", 2, memory) for name, memory in (("small", 2048), ("medium", 4096))]
    found += [MachineType(name, cpus, gb * _GIB, gpu, n) for name, (cpus, gb, gpu, n) in _ACCELERATED.items()]
    return {each.name: each for each in found}


class Catalog:
    """The offer; `limits` and `usage` are those of each quota's metric, in every region the same."""

    def __init__(self, project: str, region: str) -> None:
        self.project = project
        self.region = region
        self.regions = tuple(dict.fromkeys((region, *_REGIONS)))
        self.types = machine_types()
        self.images: dict[tuple[str, str], Resource] = {}
        metrics = [f"{kind}{metric}" for metric in _GPU_QUOTAS.values() for kind in ("", "PREEMPTIBLE_")]
        self.limits = dict.fromkeys(("CPUS", *_CPU_QUOTAS.values(), "PREEMPTIBLE_CPUS"), 1000.0)
        self.limits |= dict.fromkeys(metrics, 16.0) | {"GPUS_ALL_REGIONS": 32.0, "SSD_TOTAL_GB": 100_000.0}
        self.usage: dict[str, float] = {}
        for owner, family, size_gb in _IMAGES:
            self.add_image(owner, f"{family}-v20261101", family=family, size_gb=size_gb)

    def zones(self, region: str) -> list[str]:
        """Return a region's zones."""
        return [f"{region}-{suffix}" for suffix in _ZONES]

    def zone(self, name: str) -> str:
        """Check a zone."""
        if name.rpartition("-")[0] not in self.regions or name not in self.zones(name.rpartition("-")[0]):
            raise not_found(f"projects/{self.project}/zones/{name}")
        return name

    def machine_type(self, zone: str, name: str) -> MachineType:
        """Return a machine type that a zone has."""
        found = self.types.get(name)
        if found is None or (found.gpus and not self.gpu_kinds(self.zone(zone))):
            raise not_found(f"projects/{self.project}/zones/{zone}/machineTypes/{name}")
        return found

    def gpu_kinds(self, zone: str) -> list[str]:
        """Return the kinds of GPUs that a zone has."""
        return [] if zone.endswith(_ZONES[-1]) else [*_GPU_QUOTAS]

    def quota_metrics(self, kind: MachineType, gpus: dict[str, int], *, spot: bool) -> dict[str, float]:
        """Return how much of each quota a machine takes."""
        prefix = "PREEMPTIBLE_" if spot else ""
        cpus = _CPU_QUOTAS.get(kind.name.partition("-")[0], "CPUS")
        taken: dict[str, float] = {"PREEMPTIBLE_CPUS" if spot else cpus: kind.cpus}
        for gpu, count in gpus.items():
            taken |= {f"{prefix}{_GPU_QUOTAS[gpu]}": count}
            taken["GPUS_ALL_REGIONS"] = taken.get("GPUS_ALL_REGIONS", 0) + count
        return taken

    def add_image(self, owner: str, name: str, *, family: str = "", size_gb: int = 10, **more: Any) -> Resource:
        """Publish an image in a project."""
        image = {
            "kind": "compute#image",
            "name": name,
            "family": family,
            "status": "READY",
            "diskSizeGb": str(size_gb),
            "architecture": "X86_64",
            "selfLink": f"{URL}/{owner}/global/images/{name}",
            **more,
        }
        self.images[owner, name] = {key: value for key, value in image.items() if value != ""}
        return self.images[owner, name]

    def image(self, reference: str) -> Resource:
        """Return the image that a `sourceImage` names: in full, by family, or by a short name in this project."""
        parts = reference.removeprefix("https://www.googleapis.com/compute/v1/").split("/")
        owner = parts[parts.index("projects") + 1] if "projects" in parts else self.project
        for (project, name), image in reversed(self.images.items()):
            wanted = image.get("family") if "family" in parts else name
            if (project, wanted) == (owner, parts[-1]):
                return image
        kind = "images/family" if "family" in parts else "images"
        raise not_found(f"projects/{owner}/global/{kind}/{parts[-1]}")

    # --- Calls -------------------------------------------------------------------------------------------------------

    def routes(self) -> list[Route]:
        """What Compute Engine answers about its offer."""
        own = "/compute/v1/projects/{project}"
        zone = f"{own}/zones/{{zone}}"
        images = f"{own}/global/images"
        return [
            Route("compute", "GET", f"{own}/regions", "compute.regions.list", self._list_regions),
            Route("compute", "GET", f"{own}/regions/{{region}}", "compute.regions.get", self._get_region),
            Route("compute", "GET", f"{own}/zones", "compute.zones.list", self._list_zones),
            Route("compute", "GET", zone, "compute.zones.get", lambda call: self._zone(call.names["zone"])),
            Route("compute", "GET", f"{zone}/machineTypes", "compute.machineTypes.list", self._list_types),
            Route("compute", "GET", f"{zone}/machineTypes/{{name}}", "compute.machineTypes.get", self._get_type),
            Route("compute", "GET", f"{zone}/acceleratorTypes", "compute.acceleratorTypes.list", self._list_gpus),
            Route("compute", "GET", images, "compute.images.list", self._list_images),
            Route("compute", "GET", f"{images}/family/{{name}}", "compute.images.getFromFamily", self._get_image),
            Route("compute", "GET", f"{images}/{{name}}", "compute.images.get", self._get_image),
        ]

    def quotas(self, *, of_project: bool) -> list[Resource]:
        """Return the project's quotas, or a region's."""
        return [
            {"metric": metric, "limit": limit, "usage": self.usage.get(metric, 0.0)}
            for metric, limit in self.limits.items()
            if metric.endswith("_ALL_REGIONS") is of_project
        ]

    def _list_regions(self, call: Call) -> Resource:
        return page(call, "compute#regionList", [self._region(each) for each in self.regions])

    def _get_region(self, call: Call) -> Resource:
        if call.names["region"] not in self.regions:
            raise not_found(f"projects/{self.project}/regions/{call.names['region']}")
        return self._region(call.names["region"])

    def _region(self, name: str) -> Resource:
        zones = [f"{URL}/{self.project}/zones/{each}" for each in self.zones(name)]
        return {
            "kind": "compute#region",
            "name": name,
            "status": "UP",
            "zones": zones,
            "quotas": self.quotas(of_project=False),
            "selfLink": f"{URL}/{self.project}/regions/{name}",
        }

    def _list_zones(self, call: Call) -> Resource:
        found = [self._zone(zone) for region in self.regions for zone in self.zones(region)]
        return page(call, "compute#zoneList", [each for each in found if matches(call.query.get("filter", ""), each)])

    def _zone(self, name: str) -> Resource:
        base = f"{URL}/{self.project}"
        region = f"{base}/regions/{self.zone(name).rpartition('-')[0]}"
        return {
            "kind": "compute#zone",
            "name": name,
            "status": "UP",
            "region": region,
            "selfLink": f"{base}/zones/{name}",
        }

    def _list_types(self, call: Call) -> Resource:
        zone = self.zone(call.names["zone"])
        there = [each for each in self.types.values() if not each.gpus or self.gpu_kinds(zone)]
        found = [self._type(zone, each) for each in there]
        wanted = [each for each in found if matches(call.query.get("filter", ""), each)]
        return page(call, "compute#machineTypeList", wanted)

    def _get_type(self, call: Call) -> Resource:
        zone = self.zone(call.names["zone"])
        return self._type(zone, self.machine_type(zone, call.names["name"]))

    def _type(self, zone: str, kind: MachineType) -> Resource:
        gpus = [{"guestAcceleratorType": kind.gpu, "guestAcceleratorCount": kind.gpus}] if kind.gpus else []
        return {
            "kind": "compute#machineType",
            "name": kind.name,
            "guestCpus": kind.cpus,
            "memoryMb": kind.memory_mb,
            "zone": zone,
            "selfLink": f"{URL}/{self.project}/zones/{zone}/machineTypes/{kind.name}",
            **({"accelerators": gpus} if gpus else {}),
        }

    def _list_gpus(self, call: Call) -> Resource:
        zone = self.zone(call.names["zone"])
        found = [{"kind": "compute#acceleratorType", "name": each, "zone": zone} for each in self.gpu_kinds(zone)]
        return page(call, "compute#acceleratorTypeList", found)

    def _list_images(self, call: Call) -> Resource:
        found = [image for (owner, _), image in self.images.items() if owner == call.names["project"]]
        return page(call, "compute#imageList", [each for each in found if matches(call.query.get("filter", ""), each)])

    def _get_image(self, call: Call) -> Resource:
        return self.image(call.path.removeprefix("/compute/v1/"))


def attachable(kind: MachineType, gpu: str) -> None:
    """Refuse a GPU that cannot be attached to a machine type."""
    if kind.name.partition("-")[0] != "n1" or gpu not in _ATTACHED:
        message = f"[{kind.name}, {gpu}] features are not compatible for creating instance."
        raise Refusal(400, "badRequest", message)
