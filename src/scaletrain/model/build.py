"""The model that training starts from: put in the bucket once, then loaded by every worker.

`materialise` turns what the configuration names (a folder, a URL, a GGUF file, a hub id, or sizes for a random start)
into <root>/models/<name>-<hash>/, a Hugging Face folder that is reused as long as the hash of what determines it stays.
"""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

import orjson

from scaletrain import layout, storage
from scaletrain.config_model import LoraSection, ModelSection, ModelSize, quantizes
from scaletrain.devices import Attention
from scaletrain.errors import ConfigError, ModelError
from scaletrain.log import get_logger
from scaletrain.model import quantization, sources, store, tokenizer
from scaletrain.model.kernels import Kernels, use_kernels
from scaletrain.model.recomputing import recompute
from scaletrain.model.store import fetch, load_index
from scaletrain.model.template_defaults import with_thinking

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from scaletrain.model.sequence_parallel import SequenceGroup

__all__ = ["fetch", "load_index", "load_model", "load_tokenizer", "materialise"]

RECIPE_VERSION = 1
_CONTEXT_TOKENS = 8192

log = get_logger(__name__)


def materialise(
    section: ModelSection, *, root: str, seed: int, corpus_texts: Callable[[], Iterable[str]] | None = None
) -> str:
    """Put the model into the bucket, if it is not there yet, and return its URL.

    `corpus_texts` gives the texts that the tokenizer of a random start is trained on; `seed` its weights. Any number
    of processes may call this at once. Raises ModelError, ConfigError, StorageError.
    """
    if section.init == "random":
        return _materialise_random(section, root, seed, corpus_texts)
    assert section.source is not None
    source = sources.locate(section.source, section.revision)
    url = pretrained_url(source, root)
    _make_once(url, section.source, lambda folder: sources.assemble(source, folder))
    return url


def pretrained_url(source: sources.Source, root: str) -> str:
    """Where a pretrained model lies in the bucket, once it is there."""
    return _url(root, source.name, source.fingerprint())


def check_seq_len(model_url: str, seq_len: int) -> None:
    """Raise ConfigError where rows would be longer than the positions that the model knows."""
    from transformers import AutoConfig

    settings = orjson.loads(storage.read_bytes(storage.join(model_url, "config.json")))
    with sources.errors_of_transformers(model_url), sources.quiet_transformers():
        config: Any = AutoConfig.for_model(**settings)
    positions = getattr(config, "max_position_embeddings", None)  # GPT-2's n_positions, too
    if isinstance(positions, int) and seq_len > positions:
        raise ConfigError(
            f"data.seq_len={seq_len} is longer than the {positions} positions of {model_url}; "
            f"use data.seq_len={positions} or less"
        )


def load_tokenizer(
    model_url: str, *, chat_template: str | None = None, thinking: bool | None = None
) -> "PreTrainedTokenizerBase":
    """Load a model's tokenizer, without fetching its weights.

    `chat_template` is the URL of a Jinja file to use. `thinking` is what a template that knows it does by default; None
    leaves that as it is.
    """
    from transformers import AutoTokenizer

    folder = fetch(model_url, weights=False)
    with sources.errors_of_transformers(model_url), sources.quiet_transformers():
        words: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    if chat_template is not None:
        words.chat_template = storage.read_text(chat_template)
    if thinking is not None and words.chat_template:
        words.chat_template = with_thinking(words.chat_template, thinking=thinking)
    return words


def load_model(
    model_url: str,
    section: ModelSection,
    *,
    dtype: "torch.dtype",
    attention: Attention,
    kernels: Kernels = "plain",
    seed: int = 0,
    zero3: dict[str, Any] | None = None,
    group: "SequenceGroup | None" = None,
    computing: "torch.dtype | None" = None,
    device: str = "cpu",
) -> "PreTrainedModel":
    """Load a model for training, with LoRA adapters (drawn from `seed`) and gradient checkpointing as configured.

    Where the model has something that variable-length attention cannot compute, flex attention or SDPA takes its
    place. A base in 4 bits is made on `device`, and computes in `computing` (`dtype` where that is None); any other is
    on the CPU.

    `zero3` is the DeepSpeed configuration of a ZeRO-3 run: the weights are then partitioned as they are read, so that
    no rank holds them all; every rank must call this, after the process group exists. `group` are the workers that
    share rows. Raises ModelError.
    """
    import torch
    from transformers import AutoModelForCausalLM

    folder = fetch(model_url)
    partitioning = _partitioned_loading(zero3) if zero3 is not None else None
    with sources.errors_of_transformers(model_url), sources.quiet_transformers():
        kernel = _attention_for(folder, attention, group)
        if quantizes(section.lora):
            where = torch.device(device)
            model: Any = quantization.load_quantized(
                folder, computing=computing or dtype, device=where, attention=kernel
            )
        else:
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation=kernel)
        model.config.use_cache = False
        use_kernels(model, kernels)
        assert section.gradient_checkpointing != "auto", "gradient checkpointing has not been settled yet"
        recompute(model, section.gradient_checkpointing)
        if section.lora is not None:
            model = add_adapters(model, section.lora, seed=seed)
        if quantizes(section.lora):
            quantization.cast(model, dtype)
    del partitioning
    model.train()
    return cast("PreTrainedModel", model)


def _attention_for(folder: Path, wanted: Attention, group: "SequenceGroup | None") -> str:
    """transformers' name of the attention to use for the model in a folder."""
    from transformers import AutoConfig

    from scaletrain.model.attention_choice import attention_name
    from scaletrain.model.sequence_parallel import attention_over

    name = attention_name(AutoConfig.from_pretrained(folder), wanted)
    return name if group is None else attention_over(group, name)


def add_adapters(model: "PreTrainedModel", lora: LoraSection, *, seed: int) -> "PreTrainedModel":
    """Freeze a model and give it trainable low-rank adapters, in the weights' own type."""
    import torch
    from peft import LoraConfig, TaskType, get_peft_model

    modules = lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules)
    config = LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # a float is as good: it is only divided by the rank
        lora_dropout=lora.dropout,
        target_modules=modules,
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        adapted = get_peft_model(model, config, autocast_adapter_dtype=False)
    return cast("PreTrainedModel", adapted)


def _partitioned_loading(zero3: dict[str, Any]) -> object:
    """Make from_pretrained partition weights as it reads them, for as long as the returned object lives."""
    from transformers.integrations.deepspeed import HfDeepSpeedConfig

    make: Any = HfDeepSpeedConfig
    loading: object = make(zero3)
    return loading


def _materialise_random(
    section: ModelSection, root: str, seed: int, corpus_texts: Callable[[], Iterable[str]] | None
) -> str:
    assert section.size is not None
    if corpus_texts is None:
        raise ModelError("a model with init: random needs a corpus to train its tokenizer on, and there is none here")
    size, texts = section.size, corpus_texts
    determined_by = [size.model_dump(), seed, tokenizer.texts_hash(tokenizer.training_texts(texts))]
    fingerprint = hashlib.sha256(orjson.dumps(determined_by, option=orjson.OPT_SORT_KEYS)).hexdigest()
    url = _url(root, f"random-{size.hidden_size}x{size.num_layers}", fingerprint)
    _make_once(url, "init: random", lambda folder: _write_random(size, seed, texts, folder))
    return url


def _make_once(url: str, source: str, make: Callable[[Path], None]) -> None:
    if store.is_published(url):
        return
    log.info("making %s from %s, once", url, source)
    with TemporaryDirectory(prefix="scaletrain-model-") as folder:
        make(Path(folder))
        store.publish(Path(folder), url, source=source)


def _url(root: str, name: str, fingerprint: str) -> str:
    key = hashlib.sha256(f"{RECIPE_VERSION}:{fingerprint}".encode()).hexdigest()[:12]
    return layout.model_url(root, f"{name}-{key}")


def _write_random(size: ModelSize, seed: int, texts: Callable[[], Iterable[str]], folder: Path) -> None:
    """Write a Llama (Touvron et al. 2023, arXiv:2302.13971) with random weights and a tokenizer of its own."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    words = tokenizer.train_tokenizer(tokenizer.training_texts(texts), size.vocab_size)
    config = LlamaConfig(
        vocab_size=size.vocab_size,
        hidden_size=size.hidden_size,
        intermediate_size=size.intermediate_size or -(-size.hidden_size * 8 // 3 // 32) * 32,
        num_hidden_layers=size.num_layers,
        num_attention_heads=size.num_heads,
        num_key_value_heads=size.num_kv_heads or size.num_heads,
        max_position_embeddings=_CONTEXT_TOKENS,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]), sources.quiet_transformers():
        torch.default_generator.manual_seed(seed)
        LlamaForCausalLM(config).save_pretrained(folder)
    words.save_pretrained(folder)
