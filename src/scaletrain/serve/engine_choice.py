"""Which engine serves a model here: vLLM on a GPU where it is installed, else the one for transformers' models."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from scaletrain.errors import ConfigError, DeviceError
from scaletrain.log import get_logger
from scaletrain.serve.engine_limits import EngineLimits
from scaletrain.serve.protocol import Engine

EngineKind = Literal["auto", "batch", "vllm"]

log = get_logger(__name__)


def choose_engine(
    folder: Path,
    *,
    device: Literal["auto", "cuda", "cpu"] = "auto",
    kind: EngineKind = "auto",
    limits: EngineLimits | None = None,
    adapters: Mapping[str, Path] | None = None,
) -> Engine:
    """Load a Hugging Face folder into an engine, which takes seconds to minutes; says in the log which it is, and why.

    `adapters` (folders of LoRA adapters by name) are served by the engine "batch" only, each through its `adapter`.
    Raises ConfigError, DeviceError and ModelError.
    """
    limits = limits or EngineLimits()
    reason = _why_not_vllm(device, kind, adapters or {})
    if reason is None:
        from scaletrain.serve.engine_vllm import VllmEngine

        log.info("%s is served by vLLM", folder)
        return VllmEngine(folder, limits=limits)
    if kind == "vllm":
        raise (DeviceError if "GPU" in reason else ConfigError)(f"vLLM was asked for, but {reason}")
    from scaletrain.model.generate import load_for_chat
    from scaletrain.serve.engine import BatchEngine

    model, tokenizer = load_for_chat(folder, device=device)
    engine = BatchEngine(model, tokenizer, limits=limits, adapters=adapters)
    log.info(
        "%s is served by the engine for transformers' models on %s, since %s: %d answers at once, "
        "%d tokens of context, %d tokens of all answers together",
        folder, model.device, "it was asked for" if kind == "batch" else reason,
        limits.max_running, engine.context_tokens, engine.status().cache_tokens,
    )  # fmt: skip
    return engine


def _why_not_vllm(device: str, kind: EngineKind, adapters: Mapping[str, Path]) -> str | None:
    """None where vLLM is to be used."""
    import torch

    if kind == "batch":
        return "it was asked for"
    if device == "cpu" or not torch.cuda.is_available():
        return "no GPU is used"
    if find_spec("vllm") is None:
        return "vllm is not installed (pip install vllm)"
    return "it has LoRA adapters" if adapters else None
