"""A tiny run with a corpus, whose checkpoints tests commit themselves."""

from pathlib import Path
from typing import Any

import orjson
import torch

from saved_checkpoint import Slice, write_shard
from scaletrain import checkpoint, storage
from scaletrain.checkpoint import Manifest
from scaletrain.config import Config
from scaletrain.config_file import dump_config
from scaletrain.data.prepare import prepare
from scaletrain.layout import RunLayout
from scaletrain.model.build import load_model


def write_corpus(path: Path, *, conversations: int = 80) -> Path:
    """Short conversations as JSON lines."""
    with path.open("wb") as file:
        for number in range(conversations):
            turns = [
                {"role": "user", "content": f"What comes after {number}?"},
                {"role": "assistant", "content": f"After {number} comes {number + 1}."},
            ]
            file.write(orjson.dumps({"messages": turns}) + b"\n")
    return path


def small_config(root: Path, corpus: Path, **changes: Any) -> Config:
    """A random model of 320 tokens, with a quarter of the corpus held out."""
    tree = {
        "name": "count",
        "storage": {"root": str(root)},
        "model": {"init": "random", "size": {"vocab_size": 320, "hidden_size": 32, "num_layers": 1, "num_heads": 2}},
        "data": {"corpora": [{"format": "messages", "source": str(corpus)}], "seq_len": 64, "validation": 0.25},
        "train": {"steps": 4, "global_batch_size": 4, "learning_rate": 1e-3},
        "evaluate": {"prompts": ["What comes after 3?"], "max_new_tokens": 4},
    }
    return Config.model_validate(tree | changes)


def commit_scaled(config: Config, *, step: int, scale: float) -> Manifest:
    """Commit the base model with its weights scaled, as a checkpoint of one rank; the run's configuration too."""
    run = RunLayout(config.storage.root, config.name)
    inputs = prepare(config, use_ray=False)
    model = load_model(inputs.model_url, config.model, dtype=torch.float32, attention="sdpa", seed=config.seed)
    trained = {name: p.detach() * scale for name, p in model.named_parameters() if p.requires_grad}
    slices = [Slice("fp32", name, 0, values.flatten().numpy()) for name, values in trained.items()]
    record = write_shard(run.checkpoint(step), "rank-00000.safetensors", slices)
    if not storage.exists(run.config):
        storage.write_text(run.config, dump_config(config))
    manifest = Manifest(
        step=step,
        samples_seen=4 * step,
        attempt=1,
        world_size=1,
        zero_stage=0,
        precision="fp32",
        dataset_url=inputs.dataset_url,
        model_url=inputs.model_url,
        ledger_hash="0" * 64,
        parent_step=None,
        created="2026-01-01T00:00:00+00:00",
        parameters={name: tuple(values.shape) for name, values in trained.items()},
        scalars={"optimizer_step": step, "tokens": 1000, "supervised_tokens": 400},
        files=(record,),
    )
    return checkpoint.commit(run.checkpoint(step), manifest)
