"""What there is to compute on: which device, precision and kind of attention a run uses, and how fast it could be."""

import resource
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

from scaletrain.config import Config, TrainSection
from scaletrain.errors import DeviceError

if TYPE_CHECKING:
    import torch

Attention = Literal["sdpa", "flex", "varlen"]

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


def check_optimizer(train: TrainSection) -> None:
    """Raise DeviceError where moments of 8 bits are wanted and the package that has them is missing."""
    if train.optimizer == "adamw_8bit" and not find_spec("bitsandbytes"):
        raise DeviceError(
            "train.optimizer=adamw_8bit, and bitsandbytes is not installed; `pip install bitsandbytes`, or use adamw"
        )


def check_quantization(wanted: Literal["none", "nf4"]) -> None:
    """Raise DeviceError where a base in 4 bits is wanted and the package that makes it is missing."""
    if wanted == "nf4" and not find_spec("bitsandbytes"):
        raise DeviceError(
            "model.lora.quantization=nf4, and bitsandbytes is not installed; `pip install bitsandbytes`, or use none"
        )


def dtype_of(precision: str) -> "torch.dtype":
    """The type that a run of this precision, fp32 or bf16, computes in."""
    import torch

    return torch.bfloat16 if precision == "bf16" else torch.float32


def resolve_precision(wanted: Literal["auto", "fp32", "bf16"], device: str) -> Literal["fp32", "bf16"]:
    """bf16 on CUDA, fp32 on the CPU, unless one was asked for."""
    if wanted == "auto":
        return "bf16" if device == "cuda" else "fp32"
    return wanted


def resolve_attention(wanted: Literal["auto", "sdpa", "flex", "varlen"], device: str, precision: str) -> Attention:
    """On CUDA kernels that compute nothing between documents, on the CPU a dense mask, unless one was asked for.

    Raises DeviceError for what the device, the precision or this torch cannot train with.
    """
    problem = _attention_problem(wanted, device, precision)
    if problem is not None:
        raise DeviceError(problem)
    if wanted != "auto":
        return wanted
    if device == "cpu":
        return "sdpa"
    return "flex" if _attention_problem("varlen", device, precision) else "varlen"


def _attention_problem(wanted: str, device: str, precision: str) -> str | None:
    if wanted in ("flex", "varlen") and device == "cpu":
        return f"model.attention={wanted} is for CUDA GPUs (on a CPU torch has no backward for it); use sdpa"
    if wanted != "varlen":
        return None
    from scaletrain.model.attention import varlen_available

    if precision != "bf16":
        return f"model.attention=varlen computes in bf16, not in {precision}; use flex"
    return None if varlen_available() else "model.attention=varlen needs torch 2.11 or newer; use flex"


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

    return peak_flops_of(torch.cuda.get_device_name(device))


def peak_flops_of(name: str) -> float | None:
    """The dense bf16 peak in FLOP/s of a GPU by its name, or None where it is not known."""
    return next((flops for part, flops in _PEAK_BF16_FLOPS if part in name), None)


def gpu_name(device_name: str) -> str:
    """The short name of a GPU, as H100 for what its driver calls NVIDIA H100 80GB HBM3; else the driver's own."""
    return next((part for part, _ in _PEAK_BF16_FLOPS if part in device_name), device_name)
