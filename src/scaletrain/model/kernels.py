"""Faster forms of what a model's layers compute (norms, rotary positions, gated activations), put into a loaded model.

`compile`: torch.compile of each decoder layer, whatever the family; it saves most of the work of launching kernels too,
which a small model spends most of its time on. `liger`: Triton kernels for the families that liger-kernel knows (Hsu et
al. 2024, arXiv:2410.10989). Neither changes a parameter's name or shape. Attention and the loss have modules of their
own.
"""

from importlib.util import find_spec
from typing import Any, Literal

from scaletrain.errors import DeviceError
from scaletrain.log import get_logger

Kernels = Literal["liger", "compile", "plain"]

log = get_logger(__name__)


def resolve_kernels(wanted: Literal["auto", "liger", "compile", "plain"], device: str, *, zero_stage: int) -> Kernels:
    """Compiled layers on CUDA, or Liger's kernels where ZeRO-3 gathers weights between the parts of a layer.

    Nothing special on the CPU, unless something was asked for. Raises DeviceError for what cannot be had.
    """
    if wanted == "auto":
        if device == "cpu":
            return "plain"
        return "compile" if zero_stage < 3 else _liger_if_installed()
    if wanted == "liger" and device == "cpu":
        raise DeviceError("model.kernels=liger needs a CUDA GPU; use auto")
    if wanted == "liger" and _liger_if_installed() == "plain":
        raise DeviceError("model.kernels=liger, and liger-kernel is not installed; `pip install liger-kernel`")
    if wanted == "compile" and zero_stage == 3:
        raise DeviceError("model.kernels=compile does not go with zero.stage=3; use auto, or a lower stage")
    return wanted


def _liger_if_installed() -> Kernels:
    return "liger" if find_spec("liger_kernel") else "plain"


def use_kernels(model: Any, kernels: Kernels) -> None:
    """Put faster kernels into a model, in place, before it is wrapped."""
    if kernels == "liger":
        _use_liger(model)
    elif kernels == "compile":
        _compile_layers(model)


def _use_liger(model: Any) -> None:
    from liger_kernel.transformers import _apply_liger_kernel_to_instance
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN

    kind = model.config.model_type
    if kind not in MODEL_TYPE_TO_APPLY_LIGER_FN:
        log.info("liger-kernel has nothing for models of type %s: using torch's own kernels", kind)
        return
    # The loss is ours: it sees the supervised tokens only.
    _apply_liger_kernel_to_instance(model=model, cross_entropy=False, fused_linear_cross_entropy=False)


def _compile_layers(model: Any) -> None:
    from transformers.modeling_layers import GradientCheckpointingLayer

    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.compile()
