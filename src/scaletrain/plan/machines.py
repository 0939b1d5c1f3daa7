"""What a plan is made for: machines of one kind, with their GPUs, memory, network and prices."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from scaletrain.errors import ConfigError
from scaletrain.machine_types import MachineType, machine_type, machine_types, too_old

# GDDR6 keeps its error correction in the memory itself: one part in 16 (nvidia-smi shows 23,034 MiB of an L4's 24 GiB).
_CORRECTED_IN_MEMORY = ("T4", "A10", "A10G", "L4", "L40S")
_WITHOUT_BF16 = ("T4", "V100")
_RESERVED_HOST_BYTES = 2 * 2**30  # the system, Ray's own processes and its object store at rest


@dataclass(frozen=True)
class Machines:
    """Machines of one kind; `gpus` of each, `gpu` their name as in devices.py.

    `network_bytes_per_s` is one way between machines, None where it is unknown; `name` is how a plan calls them.
    """

    name: str
    gpus: int
    gpu: str | None
    gpu_memory_bytes: int
    vcpus: int
    memory_bytes: int
    network_bytes_per_s: float | None
    instance_type: str | None = None
    market: Literal["spot", "on-demand"] | None = None
    region: str | None = None
    head_type: str | None = None

    @property
    def device(self) -> Literal["cuda", "cpu"]:
        """What is trained on."""
        return "cuda" if self.gpus else "cpu"

    @property
    def usable_gpu_bytes(self) -> int:
        """What a process can have of a GPU's memory."""
        share = 15 / 16 if self.gpu in _CORRECTED_IN_MEMORY else 0.99
        return int(share * self.gpu_memory_bytes)

    @property
    def usable_host_bytes(self) -> int:
        """What the workers of one machine can have of its memory together."""
        return max(0, self.memory_bytes - _RESERVED_HOST_BYTES)

    def workers_here(self, num_workers: int) -> int:
        """Workers on one machine: one a GPU; without GPUs all of them on one, as far as its CPUs go."""
        return min(num_workers, self.gpus or max(1, self.vcpus))

    def count(self, num_workers: int) -> int:
        """Machines that so many workers need."""
        return -(-num_workers // self.workers_here(num_workers))


def of_type(
    name: str,
    *,
    market: Literal["spot", "on-demand"] | None = None,
    region: str | None = None,
    head_type: str | None = None,
) -> Machines:
    """Machines of a cloud's type; raises ConfigError for one that is not known, or that torch cannot use."""
    if problem := type_problem(name):
        raise ConfigError(problem)
    found = machine_type(name)
    assert found is not None
    return _made(found, market=market, region=region, head_type=head_type)


def type_problem(name: str) -> str | None:
    """What is wrong with a machine type that is not known, or whose GPU torch cannot use; None where it is right."""
    import difflib

    found = machine_type(name)
    if found is not None:
        return f"{name}: {problem}" if (problem := too_old(found.gpu)) else None
    known = [each.name for each in machine_types() if each.gpus and not too_old(each.gpu)]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    advice = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(known)}"
    return f"{name}: no machine type that is known here; {advice}"


def comparable(num_workers: int) -> tuple[Machines, ...]:
    """For each cloud and kind of GPU that trains in bf16, the type with fewest GPUs, and the largest that is filled."""
    found: dict[tuple[str, str | None, int, bool], MachineType] = {}
    for each in sorted(machine_types(), key=lambda one: (one.gpus, one.vcpus)):
        if each.gpus and each.gpu not in _WITHOUT_BF16 and each.gpus <= num_workers:
            kind = (each.cloud, each.gpu, each.gpu_memory_bytes)
            found.setdefault((*kind, False), each)
            largest = found.setdefault((*kind, True), each)
            if each.gpus > largest.gpus:
                found[(*kind, True)] = each
    for each in machine_types():  # kinds that only come as large machines
        if each.gpus and each.gpu not in _WITHOUT_BF16:
            found.setdefault((each.cloud, each.gpu, each.gpu_memory_bytes, False), each)
    return tuple(_made(each) for each in dict.fromkeys(found.values()))


def this_machine() -> Machines:
    """The machine that this runs on."""
    from scaletrain.container_limits import memory_limit_bytes

    gpus, gpu, gpu_memory = 0, None, 0
    if Path("/dev/nvidiactl").exists():
        import torch

        from scaletrain.devices import gpu_name

        gpus = torch.cuda.device_count()
        if gpus:
            gpu = gpu_name(torch.cuda.get_device_name(0))
            gpu_memory = torch.cuda.get_device_properties(0).total_memory
    return Machines("this machine", gpus, gpu, gpu_memory, len(os.sched_getaffinity(0)), memory_limit_bytes(), None)


def _made(
    each: MachineType,
    *,
    market: Literal["spot", "on-demand"] | None = None,
    region: str | None = None,
    head_type: str | None = None,
) -> Machines:
    return Machines(
        name=each.name,
        gpus=each.gpus,
        gpu=each.gpu,
        gpu_memory_bytes=each.gpu_memory_bytes,
        vcpus=each.vcpus,
        memory_bytes=each.memory_bytes,
        network_bytes_per_s=each.network_bytes_per_s,
        instance_type=each.name,
        market=market,
        region=region,
        head_type=head_type,
    )
