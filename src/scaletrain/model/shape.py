"""What a model is made of, told by its configuration alone: every parameter's shape, and no weight is read.

The plain decoder families are written down from their config.json, in milliseconds and without torch; any other one is
built by transformers on torch's meta device, where tensors have shapes and no memory. A test holds the first way equal
to the second.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

from scaletrain.config_model import LoraSection, ModelSize
from scaletrain.errors import ModelError
from scaletrain.model import sources

# Families whose layers are written down here: which of their projections have a bias, and whether heads are normed.
_QUERY_KEY_VALUE_BIAS = {"qwen2"}
_HEAD_NORMS = {"qwen3"}
_PLAIN = {"llama", "mistral", "qwen2", "qwen3"}
_NEEDED = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")


@dataclass(frozen=True)
class Parameter:
    """One parameter by its name in the causal language model."""

    name: str
    shape: tuple[int, ...]

    @property
    def numel(self) -> int:
        """Its elements."""
        return math.prod(self.shape)


@dataclass(frozen=True, eq=False)  # one is as good as its hash: what is counted is kept with it
class ModelShape:
    """A model's parameters, and the sizes that activations and FLOPs depend on.

    `mlp_size` is the width of a layer's feed-forward part, `attention_size` heads times their size, `kv_size` the same
    of keys and values; `gated` where the feed-forward part has two input projections. `is_mixture`: experts, of which a
    token sees some. `whole_logits`: the model does something with its logits (scales or caps them), so that the loss
    has to have all of them at once.
    """

    model_type: str
    parameters: tuple[Parameter, ...]
    vocab_size: int
    hidden_size: int
    num_layers: int
    attention_size: int
    kv_size: int
    mlp_size: int
    gated: bool = True
    tied: bool = True
    is_mixture: bool = False
    whole_logits: bool = False

    @cached_property
    def numel(self) -> int:
        """All elements; tied ones count once."""
        return sum(each.numel for each in self.parameters)


def shape_of(settings: Mapping[str, Any], *, source: str = "the model") -> ModelShape:
    """The shape that the content of a config.json describes. Raises ModelError."""
    if settings.get("model_type") in _PLAIN and all(settings.get(name) for name in _NEEDED):
        return _written_down(settings)
    return _built_on_meta(settings, source)


def model_on_meta(settings: Mapping[str, Any], *, source: str) -> Any:
    """The model that the content of a config.json describes, its tensors without memory. Raises ModelError."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    if not isinstance(settings.get("model_type"), str):
        raise ModelError(f"{source}: its config.json has no model_type; copy it again")
    with sources.errors_of_transformers(source), sources.quiet_transformers(), torch.device("meta"):
        config: Any = AutoConfig.for_model(**settings)
        build: Any = AutoModelForCausalLM
        return build.from_config(config)


def random_settings(size: ModelSize) -> dict[str, Any]:
    """The config.json of a model with `init: random`, as far as shapes go."""
    return {
        "model_type": "llama",
        "vocab_size": size.vocab_size,
        "hidden_size": size.hidden_size,
        "intermediate_size": size.intermediate_size or -(-size.hidden_size * 8 // 3 // 32) * 32,
        "num_hidden_layers": size.num_layers,
        "num_attention_heads": size.num_heads,
        "num_key_value_heads": size.num_kv_heads or size.num_heads,
        "tie_word_embeddings": True,
    }


@lru_cache(maxsize=16)
def split_trained(shape: ModelShape, lora: LoraSection | None) -> tuple[tuple[Parameter, ...], tuple[Parameter, ...]]:
    """What is trained and what is frozen: all and nothing; or LoRA's two factors of each adapted matrix, and all else.

    `all-linear` adapts every matrix of the layers, not embeddings nor the output layer (as peft does).
    """
    if lora is None:
        return shape.parameters, ()
    adapted = [each for each in shape.parameters if _is_adapted(each, lora.target_modules)]
    factors = []
    for each in adapted:
        rows, columns = each.shape[-2:]
        copies = math.prod(each.shape[:-2])
        stem = each.name.removesuffix(".weight")
        factors.append(Parameter(f"{stem}.lora_A.weight", (lora.rank, columns * copies)))
        factors.append(Parameter(f"{stem}.lora_B.weight", (rows * copies, lora.rank)))
    factors += _of_experts(shape, lora)
    return tuple(factors), shape.parameters


@dataclass(frozen=True)
class Totals:
    """Elements of a model: `trained`, `frozen`, those `in_layers` (adapters aside), and of the `largest` parameter."""

    trained: int
    frozen: int
    in_layers: int
    largest: int


@lru_cache(maxsize=16)
def count(shape: ModelShape, lora: LoraSection | None) -> Totals:
    """Count a model's elements."""
    trained, frozen = split_trained(shape, lora)
    return Totals(
        trained=sum(each.numel for each in trained),
        frozen=sum(each.numel for each in frozen),
        in_layers=sum(each.numel for each in shape.parameters if not _is_outside(each.name)),
        largest=max((each.numel for each in (*trained, *frozen)), default=0),
    )


def in_linear_layer(parameter: Parameter) -> bool:
    """Whether it is the weight of one of the layers' linear maps: what model/quantization.py keeps in 4 bits."""
    return len(parameter.shape) == 2 and _is_adapted(parameter, "all-linear")


def _of_experts(shape: ModelShape, lora: LoraSection) -> Iterator[Parameter]:
    """The factors of experts that lie in one tensor: as peft has them, for each expert those of its former matrices."""
    experts = [each for each in shape.parameters if len(each.shape) == 3 and ".experts." in each.name]
    if not experts:
        return
    from peft.utils import transformers_weight_conversion

    of_peft: Any = transformers_weight_conversion  # its tables have no other name
    kind = of_peft._MODEL_TO_CONVERSION_PATTERN.get(shape.model_type)
    tensors = of_peft._MOE_TARGET_MODULE_MAPPING.get(kind or "", {}).items()
    targets = lora.target_modules
    adapted = Counter(tensor for matrix, tensor in tensors if isinstance(targets, str) or matrix in targets)
    for each in experts:
        copies, rows, columns = each.shape
        rank = lora.rank * copies * adapted[each.name.rsplit(".", 1)[-1]]
        if rank:
            yield Parameter(f"{each.name}.lora_A.weight", (rank, columns))
            yield Parameter(f"{each.name}.lora_B.weight", (rows, rank))


def _is_outside(name: str) -> bool:
    """Whether a parameter is an embedding or the output layer."""
    return "embed" in name or name.startswith("lm_head") or ".wte." in name or ".wpe." in name


def _is_adapted(parameter: Parameter, targets: Sequence[str] | str) -> bool:
    module = parameter.name.removesuffix(".weight")
    if len(parameter.shape) < 2 or not parameter.name.endswith(".weight"):
        return False
    if isinstance(targets, str):
        return ".layers." in module or ".h." in module
    return any(module == target or module.endswith(f".{target}") for target in targets)


# ---- from a configuration to shapes ----------------------------------------------------------------------------------


def _written_down(settings: Mapping[str, Any]) -> ModelShape:
    heads, hidden = int(settings["num_attention_heads"]), int(settings["hidden_size"])
    kind = str(settings["model_type"])
    head = int(settings.get("head_dim") or (128 if kind == "qwen3" else hidden // heads))
    kv_heads = int(settings.get("num_key_value_heads") or heads)
    shape = ModelShape(
        model_type=kind,
        parameters=(),
        vocab_size=int(settings["vocab_size"]),
        hidden_size=hidden,
        num_layers=int(settings["num_hidden_layers"]),
        attention_size=heads * head,
        kv_size=kv_heads * head,
        mlp_size=int(settings["intermediate_size"]),
        tied=bool(settings.get("tie_word_embeddings", False)),
    )
    return replace(shape, parameters=tuple(_decoder(shape, settings, head)))


def _decoder(shape: ModelShape, settings: Mapping[str, Any], head: int) -> Iterator[Parameter]:
    hidden, wide = shape.hidden_size, shape.mlp_size
    attention_bias = bool(settings.get("attention_bias", False)) and shape.model_type != "mistral"
    input_bias = attention_bias or shape.model_type in _QUERY_KEY_VALUE_BIAS
    output_bias = attention_bias and shape.model_type not in _QUERY_KEY_VALUE_BIAS
    mlp_bias = bool(settings.get("mlp_bias", False)) and shape.model_type == "llama"
    attention = (
        ("self_attn.q_proj", shape.attention_size, hidden, input_bias),
        ("self_attn.k_proj", shape.kv_size, hidden, input_bias),
        ("self_attn.v_proj", shape.kv_size, hidden, input_bias),
        ("self_attn.o_proj", hidden, shape.attention_size, output_bias),
    )
    feed_forward = (
        ("mlp.gate_proj", wide, hidden, mlp_bias),
        ("mlp.up_proj", wide, hidden, mlp_bias),
        ("mlp.down_proj", hidden, wide, mlp_bias),
    )
    head_norms = ("self_attn.q_norm", "self_attn.k_norm") if shape.model_type in _HEAD_NORMS else ()
    yield Parameter("model.embed_tokens.weight", (shape.vocab_size, hidden))
    for layer in range(shape.num_layers):
        place = f"model.layers.{layer}"
        yield from _linear(place, attention)
        yield from (Parameter(f"{place}.{name}.weight", (head,)) for name in head_norms)
        yield from _linear(place, feed_forward)
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield Parameter(f"{place}.{name}.weight", (hidden,))
    yield Parameter("model.norm.weight", (hidden,))
    if not shape.tied:
        yield Parameter("lm_head.weight", (shape.vocab_size, hidden))


def _linear(place: str, layers: Sequence[tuple[str, int, int, bool]]) -> Iterator[Parameter]:
    for name, rows, columns, has_bias in layers:
        yield Parameter(f"{place}.{name}.weight", (rows, columns))
        if has_bias:
            yield Parameter(f"{place}.{name}.bias", (rows,))


def _built_on_meta(settings: Mapping[str, Any], source: str) -> ModelShape:
    """Any family that transformers knows, built without memory."""
    from scaletrain.model.attention_choice import largest_head
    from scaletrain.model.loss import ends_with_its_head

    model = model_on_meta(settings, source=source)
    text = model.config.get_text_config()
    heads = int(text.num_attention_heads)
    head = largest_head(text)
    names = [name for name, _ in model.named_parameters()]
    return ModelShape(
        model_type=settings["model_type"],
        parameters=tuple(Parameter(name, tuple(each.shape)) for name, each in model.named_parameters()),
        vocab_size=int(text.vocab_size),
        hidden_size=int(text.hidden_size),
        num_layers=int(text.num_hidden_layers),
        attention_size=heads * head,
        kv_size=int(getattr(text, "num_key_value_heads", None) or heads) * head,
        mlp_size=int(getattr(text, "intermediate_size", None) or 4 * text.hidden_size),
        gated=any("gate_proj" in name or "gate_up_proj" in name for name in names),
        tied=not any(name.startswith("lm_head") for name in names),
        is_mixture=any(".experts" in name for name in names),
        whole_logits=not ends_with_its_head(model),
    )
