"""devices: what was asked for is what is used, or an error; never a silent fallback."""

import pytest

from scaletrain import devices
from scaletrain.config import TrainSection
from scaletrain.errors import DeviceError


def test_a_gpu_that_is_not_there_is_an_error() -> None:
    """Asking for CUDA without one never becomes a CPU run."""
    with pytest.raises(DeviceError, match="no CUDA GPU here"):
        devices.resolve_device("cuda", gpus=0)


@pytest.mark.parametrize(("wanted", "gpus", "device"), [("auto", 0, "cpu"), ("auto", 2, "cuda"), ("cpu", 2, "cpu")])
def test_auto_takes_the_gpu_where_there_is_one(wanted: str, gpus: int, device: str) -> None:
    """Only auto decides; the CPU can be asked for on a GPU machine."""
    assert devices.resolve_device(wanted, gpus=gpus) == device  # type: ignore[arg-type]


def test_precision_and_attention_follow_the_device() -> None:
    """bf16 and variable-length attention on CUDA, fp32 and SDPA on the CPU, unless one was asked for."""
    assert devices.resolve_precision("auto", "cuda") == "bf16"
    assert devices.resolve_precision("auto", "cpu") == "fp32"
    assert devices.resolve_precision("fp32", "cuda") == "fp32"
    assert devices.resolve_attention("auto", "cuda", "bf16") == "varlen"
    assert devices.resolve_attention("auto", "cuda", "fp32") == "flex"
    assert devices.resolve_attention("auto", "cpu", "bf16") == "sdpa"
    assert devices.resolve_attention("sdpa", "cuda", "bf16") == "sdpa"


@pytest.mark.parametrize("wanted", ["flex", "varlen"])
def test_attention_for_gpus_is_refused_on_a_cpu(wanted: str) -> None:
    """torch has no backward for it there, which would show at the first step only."""
    with pytest.raises(DeviceError, match="use sdpa"):
        devices.resolve_attention(wanted, "cpu", "fp32")  # type: ignore[arg-type]


def test_varlen_attention_in_fp32_is_refused() -> None:
    """The flash kernels know half precision only."""
    with pytest.raises(DeviceError, match="not in fp32; use flex"):
        devices.resolve_attention("varlen", "cuda", "fp32")


def test_without_bitsandbytes_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is started; ordinary AdamW does not ask for it."""
    monkeypatch.setattr(devices, "find_spec", lambda name: None)
    devices.check_optimizer(TrainSection(steps=1))
    with pytest.raises(DeviceError, match="pip install bitsandbytes"):
        devices.check_optimizer(TrainSection(steps=1, optimizer="adamw_8bit"))
