"""Each model gets an attention that can compute it and keeps packed documents apart, or is refused with the reason."""

from typing import Any

import pytest
from transformers import AutoConfig

from scaletrain.errors import ModelError
from scaletrain.model.attention import VARLEN
from scaletrain.model.attention_choice import attention_name, check_attention, largest_head, varlen_lacks
from scaletrain.model.shape import shape_of


def config_of(family: str, **settings: Any) -> Any:
    return AutoConfig.for_model(family, **settings)


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "mistral", "gemma", "gemma3_text", "gpt_neox"])
def test_the_documented_families_have_variable_length_attention(family: str) -> None:
    """The fast path is the default for what most people train."""
    assert attention_name(config_of(family), "varlen") == VARLEN
    check_attention(config_of(family), "some model")


@pytest.mark.parametrize(
    ("family", "settings", "lacks"),
    [
        ("llama", {"head_dim": 512}, "heads of 512, more than 256"),
        ("llama", {"head_dim": 20}, "heads of 20, no multiple of 8"),
        ("gemma2", {}, "soft-capped attention"),
        ("gemma4_text", {}, "heads of 512, more than 256"),
        ("gpt_oss", {}, "attention sinks"),
        ("granite_swa", {}, "attention sinks"),
        ("granitemoe_swa", {}, "attention sinks"),
        ("nemotron", {}, "layers that do not hand on where documents begin"),
        ("deepseek_v2", {}, "heads of 192 with values of 128"),
        ("deepseek_v3", {}, "heads of 192 with values of 128"),
        ("minicpm3", {}, "heads of 96 with values of 64"),
        ("qwen2_moe", {"use_sliding_window": True, "sliding_window": 64}, "a window that its layers do not hand on"),
    ],
)
def test_what_variable_length_attention_lacks_goes_to_flex_attention(
    family: str, settings: dict[str, Any], lacks: str
) -> None:
    """What the flash kernels would crash on, or leave out in silence, is named."""
    config = config_of(family, **settings)
    assert varlen_lacks(config) == lacks
    assert attention_name(config, "varlen") == "flex_attention"


@pytest.mark.parametrize("wanted", ["varlen", "flex"])
@pytest.mark.parametrize(
    ("family", "settings"),
    [("llama", {"attention_dropout": 0.1}), ("gpt2", {}), ("stablelm", {}), ("falcon", {})],
    ids=["dropout", "gpt2", "stablelm", "falcon"],
)
def test_what_flex_attention_lacks_goes_to_sdpa(family: str, settings: dict[str, Any], wanted: Any) -> None:
    """Dropout, and families that do not know flex attention, train with a dense mask instead of crashing."""
    assert attention_name(config_of(family, **settings), wanted) == "sdpa"


@pytest.mark.parametrize(("family", "why"), [("gemma2", "soft-capped attention"), ("gpt_oss", "attention sinks")])
def test_a_family_that_sdpa_cannot_compute_is_refused_on_a_cpu(family: str, why: str) -> None:
    """With the reason, and where it can be trained, in place of transformers' advice on how to load models."""
    with pytest.raises(ModelError, match=rf"type {family} \({why}\) cannot be trained with SDPA.*on a CUDA GPU"):
        attention_name(config_of(family), "sdpa")


def test_a_model_without_any_attention_that_fits_is_refused() -> None:
    """Sinks need flex attention, which has no dropout, and the family has no SDPA."""
    with pytest.raises(ModelError, match="dropout in its attention"):
        attention_name(config_of("gpt_oss", attention_dropout=0.1), "varlen")


@pytest.mark.parametrize("family", ["bloom", "codegen", "gptj", "gpt_neo", "mpt", "mimo_v2_flash", "falcon"])
def test_families_whose_documents_would_see_each_other_are_refused(family: str) -> None:
    """An attention that takes no masks of ours, or biases by distance in the row, would leak in silence."""
    config = config_of(family, alibi=True) if family == "falcon" else config_of(family)
    with pytest.raises(ModelError, match="packed documents would see each other; use a model of another family"):
        check_attention(config, "some model")


def test_heads_of_two_sizes_count_as_the_larger() -> None:
    """Gemma 4 has wider heads in some layers; its shape is told all the same."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 6, "num_attention_heads": 2, "num_key_value_heads": 1}
    settings = {**sizes, "intermediate_size": 64, "head_dim": 16, "global_head_dim": 32, "vocab_size": 64}
    assert largest_head(config_of("gemma4_text", **settings)) == 32
    assert shape_of({"model_type": "gemma4_text", **settings}).attention_size == 2 * 32
