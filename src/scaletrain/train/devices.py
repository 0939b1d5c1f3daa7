"""What a worker trains on: its device, its memory, and how fast that device could be at best."""

import os
import resource
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from scaletrain.config import Config
from scaletrain.errors import DeviceError
from scaletrain.train.extensions import build_extensions

if TYPE_CHECKING:
    import torch

# Dense bf16 peaks in FLOP/s, from NVIDIA's data sheets; the first name that the device's name contains counts.
_PEAK_BF16_FLOPS = (
    ("B200", 2250e12),
    ("H200", 989e12),
    ("H100 PCIe", 756e12),
    ("H100", 989e12),
    ("L40S", 362e12),
    ("A100", 312e12),
    ("A10G", 70e12),
    ("A10", 125e12),
    ("L4", 121e12),
    ("T4", 65e12),
)


@dataclass(frozen=True)
class Worker:
    """One member of a group of workers; `device` is where it computes."""

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    device: "torch.device"


def resolve_device(wanted: Literal["auto", "cuda", "cpu"], *, gpus: int) -> Literal["cuda", "cpu"]:
    """Decide what to train on, `gpus` being the number of GPUs that can be had.

    Raises DeviceError where a GPU was asked for and there is none: a run never falls back to the CPU unasked.
    """
    if wanted == "cuda" and gpus == 0:
        raise DeviceError(
            "train.device=cuda, but there is no CUDA GPU here; see `scaletrain doctor`, or set train.device=cpu"
        )
    if wanted == "auto":
        return "cuda" if gpus else "cpu"
    return wanted


def check_gpus(config: Config, device: Literal["cuda", "cpu"]) -> None:
    """Raise DeviceError where the configuration asks for GPUs that `device` rules out."""
    if device == "cpu" and config.scaling.gpus_per_worker:
        raise DeviceError(
            f"scaling.gpus_per_worker={config.scaling.gpus_per_worker}, but training would run on the CPU: "
            "remove it, or use a machine with a GPU (see `scaletrain doctor`)"
        )


def resolve_precision(wanted: Literal["auto", "fp32", "bf16"], device: str) -> Literal["fp32", "bf16"]:
    """bf16 on CUDA, fp32 on the CPU, unless one was asked for."""
    if wanted == "auto":
        return "bf16" if device == "cuda" else "fp32"
    return wanted


def resolve_attention(wanted: Literal["auto", "sdpa", "flex"], device: str) -> Literal["sdpa", "flex"]:
    """Flex attention skips the blocks between documents, but needs CUDA to be fast."""
    if wanted == "auto":
        return "flex" if device == "cuda" else "sdpa"
    return wanted


def prepare_process(worker: Worker, *, deterministic: bool) -> None:
    """Set this process up for training: threads, determinism, the accelerator that DeepSpeed sees."""
    import logging

    import torch

    os.environ["DS_ACCELERATOR"] = worker.device.type
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    if worker.device.type == "cpu":
        torch.set_num_threads(max(1, available_cpus() // worker.local_world_size))
        build_extensions()
    else:
        torch.cuda.set_device(worker.device)
        torch.backends.cuda.matmul.allow_tf32 = not deterministic
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=worker.device.type == "cuda")
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # buffers that are written before they are read


def count_local_gpus() -> int:
    """The CUDA GPUs of this machine."""
    import torch

    return int(torch.cuda.device_count())


def available_cpus() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))


def memory_bytes(device: "torch.device") -> int:
    """The most memory this process has used: allocated by torch on a GPU, resident on a CPU."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def peak_flops(device: "torch.device") -> float | None:
    """The device's dense bf16 peak in FLOP/s, or None where it is not known."""
    if device.type != "cuda":
        return None
    import torch

    name = torch.cuda.get_device_name(device)
    return next((flops for part, flops in _PEAK_BF16_FLOPS if part in name), None)
