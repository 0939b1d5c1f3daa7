"""Gradient checkpointing: which layers compute again, for their backward pass, what they did not keep of the forward.

A layer that recomputes keeps its input alone (Chen et al. 2016, arXiv:1604.06174). A selective one keeps the outputs of
its matrix products and of attention too, which are most of the work, and computes the rest again: norms, rotary
positions, activations (after Korthikanti et al. 2022, arXiv:2205.05198, who kept all but attention). The kernels are
those of the forward pass, so losses and gradients do not change.
"""

import math
from functools import partial
from typing import TYPE_CHECKING, Any

from scaletrain.config_recomputing import Recomputing, selective_problems
from scaletrain.errors import ModelError

if TYPE_CHECKING:
    from torch.utils.checkpoint import CheckpointPolicy

LADDER: tuple[Recomputing, ...] = (False, "selective", 0.25, 0.5, 0.75, True)  # from the least computing on

# Batched products are computed again: where attention is made of them they are its scores, of length times length.
_KEPT = frozenset(
    {
        "aten.mm.default",
        "aten.addmm.default",
        "aten._grouped_mm.default",
        "bitsandbytes.gemm_4bit.default",
        "aten._scaled_dot_product_flash_attention.default",
        "aten._scaled_dot_product_flash_attention_for_cpu.default",
        "aten._scaled_dot_product_efficient_attention.default",
        "aten._scaled_dot_product_cudnn_attention.default",
        "torch_attn._varlen_attn.default",
        "flex_attention",
    }
)


def ladder(*, kernels: str, zero_stage: int) -> tuple[Recomputing, ...]:
    """What "auto" may choose from, the least computing first."""
    return tuple(each for each in LADDER if not any(selective_problems(each, kernels=kernels, zero_stage=zero_stage)))


def layers_recomputed(wanted: Recomputing, num_layers: int) -> int:
    """How many of the layers keep nothing but their input; none where all are selective."""
    return 0 if wanted == "selective" else math.ceil(float(wanted) * num_layers - 1e-9)


def recompute(model: Any, wanted: Recomputing) -> None:
    """Have a transformers model recompute, in place, before adapters are put into it.

    Raises ModelError where a part is wanted and the model does not tell its layers apart.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    if not wanted:
        return
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers and wanted != 1:
        part = wanted if wanted == "selective" else f"{wanted:g}"
        raise ModelError(
            f"model.gradient_checkpointing={part}: a {model.config.model_type} does not tell its layers apart; use true"
        )
    if wanted == "selective":
        for layer in layers:  # within what torch.compile is given of a layer, which transformers before 5.23 is not
            layer.forward = partial(_selectively, layer.forward)
        return
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    kept = len(layers) - layers_recomputed(wanted, len(layers))
    for index, layer in enumerate(layers):
        # Kept ones evenly spread, the last one among them: its backward pass is the first, when memory is fullest.
        is_kept = (index + 1) * kept // len(layers) > index * kept // len(layers)
        layer.gradient_checkpointing = not is_kept


def _selectively(forward: Any, *arguments: Any, **options: Any) -> Any:
    from torch import is_grad_enabled
    from torch.utils.checkpoint import checkpoint

    if not is_grad_enabled():
        return forward(*arguments, **options)
    return checkpoint(forward, *arguments, use_reentrant=False, context_fn=_selective_contexts, **options)


def _selective_contexts() -> Any:
    from torch.utils.checkpoint import create_selective_checkpoint_contexts

    make: Any = create_selective_checkpoint_contexts
    return make(_policy)


_selective_contexts.cache_hash = ",".join(sorted(_KEPT))  # type: ignore[attr-defined]  # torch.compile's cache asks


def _policy(_context: Any, operator: Any, *_arguments: Any, **_options: Any) -> "CheckpointPolicy":
    from torch.utils.checkpoint import CheckpointPolicy

    return CheckpointPolicy.MUST_SAVE if str(operator) in _KEPT else CheckpointPolicy.PREFER_RECOMPUTE
