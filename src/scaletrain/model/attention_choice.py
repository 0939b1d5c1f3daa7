"""Which attention a model is trained with: what was asked for, or what takes its place where the model cannot have it.

A model's class in transformers tells which kinds it knows; its configuration tells what the kernels cannot compute.
"""

from typing import TYPE_CHECKING, Any

from scaletrain.devices import Attention
from scaletrain.errors import ModelError
from scaletrain.log import get_logger
from scaletrain.model.attention import SLIDING, VARLEN, check_separable, layer_kinds, register_varlen

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_LARGEST_HEAD = 256  # of the flash kernels, forward and backward
_HEAD_MULTIPLE = 8  # they take no other sizes
_WITH_SINKS = {
    "deepseek_v4",
    "flint",
    "gpt_oss",
    "granite_swa",
    "granitemoe_swa",
    "hy_v4",
    "mimo_v2_flash",
}
_TELLS_NO_WINDOW = {"qwen2_moe"}  # its layers leave the window to the mask
_TELLS_NO_BOUNDS = {"nemotron"}  # its layers do not hand on where documents begin
_DROPOUTS = ("attention_dropout", "attn_pdrop", "attention_probs_dropout_prob")

log = get_logger(__name__)


def attention_name(config: "PreTrainedConfig", wanted: Attention) -> str:
    """transformers' name of the attention to use for a model with this configuration; raises ModelError for none."""
    if wanted == "sdpa":
        _check_sdpa(config)
        return "sdpa"
    lacks = varlen_lacks(config) if wanted == "varlen" else None
    if wanted == "varlen" and lacks is None:
        register_varlen()
        return VARLEN
    flex_lacks = _flex_lacks(config)
    if flex_lacks is None:
        if lacks is not None:
            log.info("the model has %s, which variable-length attention does not know: using flex attention", lacks)
        return "flex_attention"
    if not _class_of(config)._supports_sdpa:
        raise ModelError(
            f"a model of type {config.model_type} with {flex_lacks} has no attention that keeps packed documents "
            "apart; use a model of another family, or one without dropout in its attention"
        )
    log.info("the model has %s, which flex attention does not know: using SDPA", flex_lacks)
    return "sdpa"


def check_model(model_url: str, wanted: Attention) -> None:
    """Raise ModelError, before any work, for a model that the attention of this device cannot compute.

    Reads its config.json only; StorageError where that cannot be read.
    """
    from transformers import AutoConfig

    from scaletrain.model.settings import read_settings

    if wanted == "sdpa":
        _check_sdpa(AutoConfig.for_model(**read_settings(model_url)))


def check_attention(config: "PreTrainedConfig", source: str) -> None:
    """Raise ModelError for a model whose layers cannot keep packed documents apart, whatever computes attention."""
    check_separable(config, source)
    kind = _class_of(config)
    if getattr(config, "alibi", False):
        what = "linear biases (ALiBi) instead of positions"
    elif kind is not None and not (kind._supports_flex_attn or kind._supports_sdpa):
        what = f"an attention of its own ({kind.__name__}, with neither flex attention nor SDPA)"
    else:
        return
    raise ModelError(
        f"{source} has {what}, through which packed documents would see each other; use a model of another family, as "
        "Llama, Qwen, Mistral, Gemma or GPT-NeoX"
    )


def varlen_lacks(config: "PreTrainedConfig") -> str | None:
    """What a model has that variable-length attention cannot compute, in words; None where there is nothing."""
    kind = _class_of(config)
    if kind is not None and not kind.is_backend_compatible():
        return "an attention of its own"
    # Latent attention (DeepSeek-V2, arXiv:2405.04434) has heads of two parts, and values of another size.
    of_parts: list[Any] = [getattr(config, name, None) for name in ("qk_nope_head_dim", "qk_rope_head_dim")]
    head = sum(of_parts) if all(of_parts) else largest_head(config)
    if head != (getattr(config, "v_head_dim", None) or head):
        return f"heads of {head} with values of {config.v_head_dim}"
    if head > _LARGEST_HEAD:
        return f"heads of {head}, more than {_LARGEST_HEAD}"
    if head % _HEAD_MULTIPLE:
        return f"heads of {head}, no multiple of {_HEAD_MULTIPLE}"
    if getattr(config, "attn_logit_softcapping", None):
        return "soft-capped attention"
    if config.model_type in _WITH_SINKS:
        return "attention sinks"
    if config.model_type in _TELLS_NO_WINDOW and SLIDING in layer_kinds(config):
        return "a window that its layers do not hand on"
    if config.model_type in _TELLS_NO_BOUNDS:
        return "layers that do not hand on where documents begin"
    return "dropout in its attention" if _has_dropout(config) else None


def _check_sdpa(config: "PreTrainedConfig") -> None:
    kind = _class_of(config)
    if kind is not None and not kind._supports_sdpa:
        raise ModelError(
            f"a model of type {config.model_type} ({varlen_lacks(config) or 'with an attention of its own'}) cannot be "
            "trained with SDPA, which is what there is on a CPU; train it on a CUDA GPU with model.attention: auto, or "
            "use a model of another family, as Llama, Qwen or Mistral"
        )


def largest_head(config: Any) -> int:
    """The size of a model's attention heads; of the largest, where layers differ (as in Gemma 4)."""
    layers = config.per_layer_config if getattr(config, "is_heterogeneous", False) else None
    each = [config] if layers is None else [layers[index] for index in range(config.num_hidden_layers)]
    return max(int(getattr(one, "head_dim", None) or one.hidden_size // one.num_attention_heads) for one in each)


def _flex_lacks(config: "PreTrainedConfig") -> str | None:
    """What a model has that flex attention cannot compute, in words; None where there is nothing."""
    kind = _class_of(config)
    if kind is not None and not kind._supports_flex_attn:
        return "an attention of its own"
    return "dropout in its attention" if _has_dropout(config) else None


def _has_dropout(config: "PreTrainedConfig") -> bool:
    return any(getattr(config, name, None) for name in _DROPOUTS)


def _class_of(config: "PreTrainedConfig") -> Any:
    """transformers' class of a causal language model with this configuration; None where it has none."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    found: Any = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    return found[0] if isinstance(found, list | tuple) else found
