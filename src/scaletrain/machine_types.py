"""The clouds' machine types that training meets: what is in each of them. What they cost is in price_table.

Figures are those of the clouds' own pages: https://aws.amazon.com/ec2/instance-types/ and its "accelerated computing",
https://docs.aws.amazon.com/ec2/latest/instancetypes/ac.html (network), https://cloud.google.com/compute/docs/gpus and
https://cloud.google.com/compute/docs/machine-resource. A GPU that Google attaches to an N1 machine is part of the name
here, as `n1-standard-8+1xT4`: the machine type alone does not tell.
"""

from dataclasses import dataclass
from typing import Literal

Cloud = Literal["aws", "gcp"]

_GIB = 2**30
_GPU_MEMORY_GIB = {"T4": 16, "V100": 16, "A10G": 24, "L4": 24, "L40S": 48, "A100": 40, "H100": 80, "H200": 141}

# name, vCPUs, memory in GiB, GPUs, which, network in Gbit/s
_AWS: tuple[tuple[str, int, float, int, str | None, float], ...] = (
    ("g4dn.xlarge", 4, 16, 1, "T4", 25),
    ("g4dn.2xlarge", 8, 32, 1, "T4", 25),
    ("g4dn.4xlarge", 16, 64, 1, "T4", 25),
    ("g4dn.8xlarge", 32, 128, 1, "T4", 50),
    ("g4dn.12xlarge", 48, 192, 4, "T4", 50),
    ("g4dn.16xlarge", 64, 256, 1, "T4", 50),
    ("g4dn.metal", 96, 384, 8, "T4", 100),
    ("g5.xlarge", 4, 16, 1, "A10G", 10),
    ("g5.2xlarge", 8, 32, 1, "A10G", 10),
    ("g5.4xlarge", 16, 64, 1, "A10G", 25),
    ("g5.8xlarge", 32, 128, 1, "A10G", 25),
    ("g5.12xlarge", 48, 192, 4, "A10G", 40),
    ("g5.16xlarge", 64, 256, 1, "A10G", 25),
    ("g5.24xlarge", 96, 384, 4, "A10G", 50),
    ("g5.48xlarge", 192, 768, 8, "A10G", 100),
    ("g6.xlarge", 4, 16, 1, "L4", 10),
    ("g6.2xlarge", 8, 32, 1, "L4", 10),
    ("g6.4xlarge", 16, 64, 1, "L4", 25),
    ("g6.8xlarge", 32, 128, 1, "L4", 25),
    ("g6.12xlarge", 48, 192, 4, "L4", 40),
    ("g6.16xlarge", 64, 256, 1, "L4", 25),
    ("g6.24xlarge", 96, 384, 4, "L4", 50),
    ("g6.48xlarge", 192, 768, 8, "L4", 100),
    ("g6e.xlarge", 4, 32, 1, "L40S", 20),
    ("g6e.2xlarge", 8, 64, 1, "L40S", 20),
    ("g6e.4xlarge", 16, 128, 1, "L40S", 20),
    ("g6e.8xlarge", 32, 256, 1, "L40S", 25),
    ("g6e.12xlarge", 48, 384, 4, "L40S", 100),
    ("g6e.16xlarge", 64, 512, 1, "L40S", 35),
    ("g6e.24xlarge", 96, 768, 4, "L40S", 200),
    ("g6e.48xlarge", 192, 1536, 8, "L40S", 400),
    ("p3.2xlarge", 8, 61, 1, "V100", 10),
    ("p3.8xlarge", 32, 244, 4, "V100", 10),
    ("p3.16xlarge", 64, 488, 8, "V100", 25),
    ("p4d.24xlarge", 96, 1152, 8, "A100", 400),
    ("p4de.24xlarge", 96, 1152, 8, "A100", 400),
    ("p5.4xlarge", 16, 256, 1, "H100", 100),
    ("p5.48xlarge", 192, 2048, 8, "H100", 3200),
    ("p5e.48xlarge", 192, 2048, 8, "H200", 3200),
    ("p5en.48xlarge", 192, 2048, 8, "H200", 3200),
    ("m5.large", 2, 8, 0, None, 10),
    ("m5.xlarge", 4, 16, 0, None, 10),
    ("m5.2xlarge", 8, 32, 0, None, 10),
    ("m5.4xlarge", 16, 64, 0, None, 10),
    ("m7i.large", 2, 8, 0, None, 12.5),
    ("m7i.xlarge", 4, 16, 0, None, 12.5),
    ("m7i.2xlarge", 8, 32, 0, None, 12.5),
    ("m7i.4xlarge", 16, 64, 0, None, 12.5),
    ("c5.large", 2, 4, 0, None, 10),
    ("c5.xlarge", 4, 8, 0, None, 10),
    ("c5.2xlarge", 8, 16, 0, None, 10),
    ("r5.large", 2, 16, 0, None, 10),
    ("r5.xlarge", 4, 32, 0, None, 10),
    ("r5.2xlarge", 8, 64, 0, None, 10),
)
_GCP: tuple[tuple[str, int, float, int, str | None, float], ...] = (
    ("g2-standard-4", 4, 16, 1, "L4", 10),
    ("g2-standard-8", 8, 32, 1, "L4", 16),
    ("g2-standard-12", 12, 48, 1, "L4", 16),
    ("g2-standard-16", 16, 64, 1, "L4", 32),
    ("g2-standard-24", 24, 96, 2, "L4", 32),
    ("g2-standard-32", 32, 128, 1, "L4", 32),
    ("g2-standard-48", 48, 192, 4, "L4", 50),
    ("g2-standard-96", 96, 384, 8, "L4", 100),
    ("a2-highgpu-1g", 12, 85, 1, "A100", 24),
    ("a2-highgpu-2g", 24, 170, 2, "A100", 32),
    ("a2-highgpu-4g", 48, 340, 4, "A100", 50),
    ("a2-highgpu-8g", 96, 680, 8, "A100", 100),
    ("a2-megagpu-16g", 96, 1360, 16, "A100", 100),
    ("a2-ultragpu-1g", 12, 170, 1, "A100", 24),
    ("a2-ultragpu-2g", 24, 340, 2, "A100", 32),
    ("a2-ultragpu-4g", 48, 680, 4, "A100", 50),
    ("a2-ultragpu-8g", 96, 1360, 8, "A100", 100),
    ("a3-highgpu-1g", 26, 234, 1, "H100", 25),
    ("a3-highgpu-2g", 52, 468, 2, "H100", 50),
    ("a3-highgpu-4g", 104, 936, 4, "H100", 100),
    ("a3-highgpu-8g", 208, 1872, 8, "H100", 1000),
    ("a3-megagpu-8g", 208, 1872, 8, "H100", 1800),
    ("a3-ultragpu-8g", 224, 2952, 8, "H200", 3600),
    ("n1-standard-4+1xT4", 4, 15, 1, "T4", 10),
    ("n1-standard-8+1xT4", 8, 30, 1, "T4", 16),
    ("n1-standard-16+4xT4", 16, 60, 4, "T4", 32),
    ("n1-standard-8+1xV100", 8, 30, 1, "V100", 16),
    ("n1-standard-32+4xV100", 32, 120, 4, "V100", 32),
    ("n1-standard-64+8xV100", 64, 240, 8, "V100", 32),
    ("e2-standard-2", 2, 8, 0, None, 4),
    ("e2-standard-4", 4, 16, 0, None, 8),
    ("e2-standard-8", 8, 32, 0, None, 16),
    ("e2-standard-16", 16, 64, 0, None, 16),
    ("n1-standard-4", 4, 15, 0, None, 10),
    ("n1-standard-8", 8, 30, 0, None, 16),
    ("n2-standard-2", 2, 8, 0, None, 10),
    ("n2-standard-4", 4, 16, 0, None, 10),
    ("n2-standard-8", 8, 32, 0, None, 16),
    ("n2-standard-16", 16, 64, 0, None, 32),
)
_WITH_80_GIB = ("p4de.", "a2-ultragpu-")  # the larger A100
# CUDA 13, which PyPI's torch is built for, has nothing for GPUs before Turing:
# https://docs.nvidia.com/cuda/archive/13.0.0/cuda-toolkit-release-notes/ and pytorch/pytorch#172352
_BEFORE_TURING = ("K80", "M60", "P100", "P4", "V100")


@dataclass(frozen=True)
class MachineType:
    """What one machine of a type has; `gpu` is a name of devices.py's table of peaks (V100 has none: no bf16).

    `gpu_memory_bytes` is each GPU's; `network_bytes_per_s` the most that the cloud states ("up to", where it bursts),
    one way, between machines.
    """

    name: str
    cloud: Cloud
    vcpus: int
    memory_bytes: int
    gpus: int
    gpu: str | None
    gpu_memory_bytes: int
    network_bytes_per_s: float


def machine_type(name: str) -> MachineType | None:
    """The machine type of a name; None for one that is not known here."""
    return next((each for each in machine_types() if each.name == name), None)


def machine_types() -> tuple[MachineType, ...]:
    """Every machine type that is known here."""
    return tuple(_made("aws", *row) for row in _AWS) + tuple(_made("gcp", *row) for row in _GCP)


def too_old(gpu: str | None) -> str | None:
    """Why torch cannot use a GPU that is called so, here or by a cloud (nvidia-tesla-v100); None where it can."""
    name = (gpu or "").rpartition("-")[2].upper()
    if name not in _BEFORE_TURING:
        return None
    return (
        f"its GPU, {name}, is too old: torch is built for CUDA 13, which begins with Turing; take a T4, an L4 or newer"
    )


def cloud_of(region: str) -> Cloud:
    """The cloud whose region has such a name: us-east-1 is AWS's, us-central1 Google's."""
    return "aws" if region.rpartition("-")[2].isdigit() else "gcp"


def _made(
    cloud: Cloud, name: str, vcpus: int, memory_gib: float, gpus: int, gpu: str | None, gbit_per_s: float
) -> MachineType:
    gpu_memory_gib = 0 if gpu is None else 80 if name.startswith(_WITH_80_GIB) else _GPU_MEMORY_GIB[gpu]
    return MachineType(
        name=name,
        cloud=cloud,
        vcpus=vcpus,
        memory_bytes=int(memory_gib * _GIB),
        gpus=gpus,
        gpu=gpu,
        gpu_memory_bytes=gpu_memory_gib * _GIB,
        network_bytes_per_s=gbit_per_s * 1e9 / 8,
    )
