"""What there is to compute on: which device, precision and kind of attention a run uses, and how fast it could be."""

import resource
from typing import TYPE_CHECKING, Literal

from scaletrain.config import Config
from scaletrain.errors import DeviceError

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
    if wanted == "flex" and device == "cpu":
        raise DeviceError("model.attention=flex cannot train on a CPU (torch has no backward for it there); use sdpa")
    if wanted == "auto":
        return "flex" if device == "cuda" else "sdpa"
    return wanted


def count_local_gpus() -> int:
    """The CUDA GPUs of this machine."""
    import torch

    return int(torch.cuda.device_count())


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
