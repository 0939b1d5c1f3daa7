"""The README of an exported model: what it was made from, how, and what was measured."""

from typing import Any

import orjson

from scaletrain import storage
from scaletrain.checkpoint import Manifest
from scaletrain.config import Config
from scaletrain.errors import ModelError
from scaletrain.layout import RunLayout
from scaletrain.model.sources import locate


def model_card(run: RunLayout, manifest: Manifest, config: Config) -> str:
    """Return Markdown with the hub's metadata (https://huggingface.co/docs/hub/model-cards); the licence is yours."""
    return "\n".join(
        [
            "---",
            *_metadata(config),
            "---",
            "",
            f"# {run.name}",
            "",
            f"A chat model, made with scaletrain from {_base(config)}.",
            "",
            "| | |",
            "| --- | --- |",
            *(f"| {name} | {value} |" for name, value in _facts(manifest, config).items()),
            "",
            *_perplexities(run, manifest),
            "Its licence follows from those of the base model and of the data: state it above before you share it.",
            "",
        ]
    )


def _metadata(config: Config) -> list[str]:
    source = config.model.source
    return [
        "library_name: transformers",
        "pipeline_tag: text-generation",
        *([f"base_model: {source}"] if source is not None and _is_on_the_hub(source) else []),
        "tags: [scaletrain, chat]",
        "# license: ...",
    ]


def _is_on_the_hub(source: str) -> bool:
    try:
        return locate(source).kind == "hub"
    except ModelError:
        return False


def _base(config: Config) -> str:
    if config.model.source is None:
        return "random weights"
    revision = f" at {config.model.revision}" if config.model.revision else ""
    return f"`{config.model.source}`{revision}"


def _facts(manifest: Manifest, config: Config) -> dict[str, str]:
    train, lora = config.train, config.model.lora
    tokens = int(manifest.scalars.get("tokens", 0))
    supervised = int(manifest.scalars.get("supervised_tokens", 0))
    facts = {
        "data": ", ".join(f"{corpus.name or corpus.format} (`{corpus.source}`)" for corpus in config.data.corpora),
        "steps": f"{manifest.step:,}",
        "packed rows seen": f"{manifest.samples_seen:,} of {config.data.seq_len:,} tokens",
        "tokens seen": f"{tokens:,}, {supervised:,} of them supervised",
        "global batch": f"{train.global_batch_size:,} packed rows",
        "learning rate": f"{train.learning_rate:g}, {train.schedule}, {train.warmup_steps:,} steps of warm-up",
        "method": f"LoRA of rank {lora.rank}, merged" if lora else "all weights",
        "seed": str(config.seed),
    }
    if config.data.system_prompt is not None:
        facts["system prompt"] = config.data.system_prompt.replace("\n", " ").replace("|", "\\|")
    return facts


def _perplexities(run: RunLayout, manifest: Manifest) -> list[str]:
    """A table of what was measured of this checkpoint and of the model before training; nothing where nothing was."""
    after, before = _measured(run, manifest.manifest_hash), _measured(run, "")
    if not after:
        return []
    lines = ["## Perplexity on held-out conversations", "", "| corpus | before | after | supervised tokens |"]
    lines.append("| --- | ---: | ---: | ---: |")
    for corpus, found in after.items():
        earlier = f"{before[corpus]['perplexity']:.2f}" if corpus in before else "not measured"
        lines.append(f"| {corpus} | {earlier} | {found['perplexity']:.2f} | {found['tokens']:,} |")
    return [*lines, ""]


def _measured(run: RunLayout, checkpoint_hash: str) -> dict[str, dict[str, Any]]:
    """The perplexities of each corpus in the evaluation of one checkpoint; its hash is "" for the base model."""
    for file in storage.list_objects(run.evaluation):
        if file.url.endswith(".json"):
            record = orjson.loads(storage.read_bytes(file.url))
            if record.get("subject", {}).get("checkpoint") == checkpoint_hash:
                return {each["corpus"]: each for each in record["perplexities"]}
    return {}
