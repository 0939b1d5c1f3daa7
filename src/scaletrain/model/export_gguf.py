"""A model as one GGUF file, for llama.cpp and what is built on it: the Llama family, with byte-level tokenizers.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. llama.cpp turns neighbouring pairs of a head in its
rotary positions where transformers turns the two halves, so the rows of query and key are put in its order. Other
families take more than a renaming: llama.cpp's own convert_hf_to_gguf.py makes those of an exported folder.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import orjson

from scaletrain.errors import ModelError
from scaletrain.model.prompt import end_of_turn
from scaletrain.model.tokenizer import END_OF_TURN

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

GgufPrecision = Literal["fp32", "fp16", "bf16", "q8_0"]

_TYPES = {"fp32": "F32", "fp16": "F16", "bf16": "BF16", "q8_0": "Q8_0"}
_FILE_TYPES = {"fp32": "ALL_F32", "fp16": "MOSTLY_F16", "bf16": "MOSTLY_BF16", "q8_0": "MOSTLY_Q8_0"}
_Q8_BLOCK = 32
_REMEDY = "export a folder instead, and convert it with llama.cpp's convert_hf_to_gguf.py"


def write_gguf(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    path: Path,
    *,
    dtype: GgufPrecision,
    name: str,
    licence: str | None = None,
) -> None:
    """Write a model and its tokenizer to a file; `dtype` is of the matrices, vectors stay fp32.

    q8_0: blocks of 32 numbers of 8 bits with a common scale; a matrix whose rows are no multiple of 32 stays fp16.
    Raises ModelError for a model or a tokenizer that cannot be written exactly.
    """
    import gguf

    check_family(model, tokenizer)
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.LLAMA], use_temp_file=True)
    try:
        writer.add_name(name)
        if licence is not None:
            writer.add_license(licence)
        writer.add_file_type(gguf.LlamaFileType[_FILE_TYPES[dtype]])
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        _add_shape(writer, model.config)
        _add_tokenizer(writer, tokenizer, rows=model.config.vocab_size)
        _add_weights(writer, model, dtype)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def check_family(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> None:
    """Raise ModelError, with every reason, for what cannot be written."""
    config: Any = model.config
    problems = []
    if config.model_type != "llama":
        problems.append(f"its architecture is {config.model_type}, not llama")
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if rope != "default":
        problems.append(f"its rotary positions are scaled ({rope})")
    if any(name.endswith(".bias") for name, _ in model.named_parameters()):
        problems.append("its layers have biases")
    if _pre_tokenizer(tokenizer) is None:
        problems.append("its tokenizer splits text in a way that has no name here")
    if problems:
        raise ModelError(f"the model cannot be written as GGUF: {'; '.join(problems)}. {_REMEDY}")


def _add_shape(writer: Any, config: Any) -> None:
    heads = config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)


def _add_tokenizer(writer: Any, tokenizer: "PreTrainedTokenizerBase", *, rows: int) -> None:
    """Every row of the embeddings gets a token: those that the tokenizer lacks are marked as unused."""
    from gguf import TokenType

    token_of = {number: token for token, number in tokenizer.get_vocab().items()}
    tokens, types = [], []
    for number in range(rows):
        added = tokenizer.added_tokens_decoder.get(number)
        if number not in token_of:
            kind = TokenType.UNUSED
        elif added is None:
            kind = TokenType.NORMAL
        else:
            kind = TokenType.CONTROL if added.special else TokenType.USER_DEFINED
        tokens.append(token_of.get(number, f"[PAD{number}]"))
        types.append(kind)
    merges = _backend(tokenizer)["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_pre_tokenizer(tokenizer))
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    end = end_of_turn(tokenizer)
    ids = {
        "bos": tokenizer.bos_token_id,
        "eos": tokenizer.eos_token_id,
        "unk": tokenizer.unk_token_id,
        "pad": tokenizer.pad_token_id,
        "eot": tokenizer.get_vocab().get(END_OF_TURN) if end is None else end,
    }
    for kind_of_token, number in ids.items():
        if number is not None:
            getattr(writer, f"add_{kind_of_token}_token_id")(number)
    writer.add_add_bos_token(tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id])
    writer.add_chat_template(tokenizer.chat_template)


def _add_weights(writer: Any, model: Any, dtype: GgufPrecision) -> None:
    import gguf

    config = model.config
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    heads = {"q_proj.weight": config.num_attention_heads, "k_proj.weight": config.num_key_value_heads}
    for name, parameter in model.named_parameters():  # tied ones once: what is not there is the embedding's
        found = names.get_name(name, try_suffixes=(".weight",))
        if found is None:
            raise ModelError(f"the model cannot be written as GGUF: {name} has no name there. {_REMEDY}")
        values = parameter.detach().float().cpu().numpy()
        for ending, count in heads.items():
            if name.endswith(ending):
                values = _as_pairs(values, count)
        stored, kind = _stored(values, dtype)
        writer.add_tensor(found, stored, raw_dtype=kind)


def _as_pairs(values: "npt.NDArray[np.float32]", heads: int) -> "npt.NDArray[np.float32]":
    """Put the rows of each head in llama.cpp's order: the i-th of the first half, then the i-th of the second."""
    halves = values.reshape(heads, 2, values.shape[0] // heads // 2, values.shape[1])
    return halves.swapaxes(1, 2).reshape(values.shape)


def _stored(values: "npt.NDArray[np.float32]", dtype: GgufPrecision) -> tuple[Any, Any]:
    import gguf

    kind = gguf.GGMLQuantizationType[_TYPES[dtype]]
    if values.ndim == 1:
        kind = gguf.GGMLQuantizationType.F32
    elif dtype == "q8_0" and values.shape[-1] % _Q8_BLOCK:
        kind = gguf.GGMLQuantizationType.F16
    return gguf.quants.quantize(values, kind), kind


def _pre_tokenizer(tokenizer: "PreTrainedTokenizerBase") -> str | None:
    """llama.cpp's name for how a byte-level tokenizer splits text into words; None where it is not known here."""
    backend = _backend(tokenizer)
    if backend.get("normalizer") is not None or backend.get("model", {}).get("type") != "BPE":
        return None
    outer = backend.get("pre_tokenizer") or {}
    steps = outer.get("pretokenizers", []) if outer.get("type") == "Sequence" else [outer]
    if not steps or steps[-1].get("type") != "ByteLevel":
        return None
    last = steps[-1]
    if last.get("add_prefix_space") or not last.get("use_regex", True):
        return None
    if len(steps) == 1:
        return "gpt-2"
    is_smollm = len(steps) == 2 and steps[0].get("type") == "Digits" and steps[0].get("individual_digits")
    return "smollm" if is_smollm else None


def _backend(tokenizer: "PreTrainedTokenizerBase") -> dict[str, Any]:
    """The settings of a fast tokenizer, as in its tokenizer.json; {} for another."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    settings: dict[str, Any] = orjson.loads(backend.to_str()) if backend is not None else {}
    return settings
