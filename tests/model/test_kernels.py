"""kernels: what a run uses is what can be had, or an error that says why not."""

import pytest
import torch

from scaletrain.errors import DeviceError
from scaletrain.model.kernels import resolve_kernels, use_kernels
from scaletrain.model.loss import LossModel
from tiny import VOCAB_SIZE, tiny_model


def test_auto_follows_the_device_and_the_stage() -> None:
    """Compiled layers on a GPU, but not where ZeRO-3 gathers their weights; nothing special on a CPU."""
    assert resolve_kernels("auto", "cpu", zero_stage=2) == "plain"
    assert resolve_kernels("auto", "cuda", zero_stage=2) == "compile"
    assert resolve_kernels("auto", "cuda", zero_stage=3) in ("liger", "plain")


@pytest.mark.parametrize(
    ("wanted", "device", "stage", "said"),
    [("liger", "cpu", 2, "needs a CUDA GPU"), ("compile", "cuda", 3, "does not go with zero.stage=3")],
)
def test_what_cannot_be_had_is_an_error(wanted: str, device: str, stage: int, said: str) -> None:
    """A run never computes with something else than was asked for."""
    with pytest.raises(DeviceError, match=said):
        resolve_kernels(wanted, device, zero_stage=stage)  # type: ignore[arg-type]


def test_compiled_layers_keep_names_losses_and_gradients() -> None:
    """torch.compile of each layer changes how it is computed, and nothing that a checkpoint would see."""
    ids = torch.randint(VOCAB_SIZE, (2, 24), generator=torch.Generator().manual_seed(0))
    inputs = {
        "input_ids": ids,
        "labels": ids,
        "positions": torch.arange(24).expand(2, -1),
        "documents": torch.ones_like(ids),
    }
    found = []
    for kernels in ("plain", "compile"):
        model = tiny_model()
        use_kernels(model, kernels)  # type: ignore[arg-type]
        with torch.compiler.set_stance("force_eager"):  # compiling for a CPU takes a minute
            loss = LossModel(model)(**inputs)
            loss.backward()
        found.append((loss.detach(), {name: p.grad for name, p in model.named_parameters()}))
    torch.testing.assert_close(found[0], found[1])
