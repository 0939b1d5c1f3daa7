"""What the engine does to a transformers model: gives it the engine's attention, sees that it works, runs a step.

T: tokens of a step; R: answers that get a token; V: the vocabulary.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from scaletrain.errors import ModelError
from scaletrain.log import get_logger
from scaletrain.model.generate import context_tokens
from scaletrain.model.sources import errors_of_transformers, quiet_transformers
from scaletrain.serve.engine_attention import ATTENTION, attend, parts
from scaletrain.serve.engine_cache import KeyValueCache, Panel
from scaletrain.serve.engine_limits import EngineLimits

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_PROBE_TOKENS = 8
_CHUNKS = (5, 2, 1)
_TOLERANCE = {torch.float32: 1e-3}
_LOW_PRECISION_TOLERANCE = 0.1

log = get_logger(__name__)


@dataclass(frozen=True)
class Size:
    """What fits: tokens of one prompt with its answer, and tokens of all answers together."""

    context_tokens: int
    cache_tokens: int


def load_adapters(model: Any, adapters: Mapping[str, Path]) -> None:
    """Load LoRA adapters (folders that PEFT wrote) beside one another into a model. Raises ModelError."""
    for name, folder in adapters.items():
        with errors_of_transformers(str(folder)), quiet_transformers():
            model.load_adapter(str(folder), adapter_name=name)
    if adapters:
        use_adapter(model, None)


def use_adapter(model: Any, name: str | None) -> None:
    """Let the next forward passes be those of an adapter, or of the model itself; the model must have adapters."""
    if name is None:
        model.disable_adapters()
    else:
        model.enable_adapters()
        model.set_adapter(name)


@torch.inference_mode()
def prepare(model: "PreTrainedModel", limits: EngineLimits) -> Size:
    """Give a model the engine's attention, compare a short pass with its own, and see what fits into memory.

    Raises ModelError where the passes differ: such a model keeps more than keys and values of all its tokens, or has
    another attention, and cannot be run for many answers at once.
    """
    from transformers import AttentionInterface

    tokens = [token % model.config.get_text_config().vocab_size for token in range(3, 3 + _PROBE_TOKENS)]
    expected_TV = model(input_ids=torch.tensor([tokens], device=model.device), use_cache=False).logits[0].float()
    panel = Panel(_PROBE_TOKENS)
    cache = KeyValueCache(panel=panel)
    panel.caches.append(cache)
    try:
        AttentionInterface.register(ATTENTION, attend)
        model.set_attn_implementation(ATTENTION)
        logits_TV = torch.cat([_extend(model, cache, tokens, count) for count in _CHUNKS])
    except (TypeError, ValueError, ModelError) as exc:
        raise ModelError(f"{_cannot(model)}: {exc}") from exc
    difference = float((logits_TV - expected_TV).abs().max() / expected_TV.abs().max())
    if not difference <= _TOLERANCE.get(model.dtype, _LOW_PRECISION_TOLERANCE):
        raise ModelError(f"{_cannot(model)}: its output differs by {difference:.2g} from its own pass")
    return _size(model, panel.token_bytes(), limits)


def forward(
    model: Any,
    tokens: Sequence[int],
    positions: Sequence[int],
    answers: Sequence[tuple[KeyValueCache, int]],
    last: Sequence[int],
) -> torch.Tensor:
    """Run a step's row of tokens; returns the logits (R, V) behind the tokens `last` of the row.

    `answers`: whose tokens they are, and how many of each, in the order of `engine_attention.place`.
    """
    output = model(
        input_ids=torch.tensor([tokens], device=model.device),
        position_ids=torch.tensor([positions], device=model.device),
        use_cache=False,
        logits_to_keep=torch.tensor(last, dtype=torch.long, device=model.device),
        parts=parts(answers, model.device),
    )
    logits_RV: torch.Tensor = output.logits[0]
    return logits_RV


def _extend(model: Any, cache: KeyValueCache, tokens: Sequence[int], count: int) -> torch.Tensor:
    """The logits behind the next `count` tokens of an answer that runs alone."""
    start = cache.length
    positions = range(start, start + count)
    logits_TV = forward(model, tokens[start : start + count], positions, [(cache, count)], range(count))
    cache.length += count
    return logits_TV.float()


def _cannot(model: "PreTrainedModel") -> str:
    return f"{type(model).__name__} cannot be served in batches by this engine"


def _size(model: "PreTrainedModel", token_bytes: int, limits: EngineLimits) -> Size:
    free_bytes = _free_bytes(model.device)
    cache_tokens = limits.cache_tokens or int(free_bytes * limits.cache_memory) // token_bytes
    own = context_tokens(model) or cache_tokens
    context = min(own, limits.context_tokens or own)
    if cache_tokens < context:
        log.warning(
            "the context is cut from %d to %d tokens: there is room for no more (%d bytes a token, %.1f GB are free)",
            context, cache_tokens, token_bytes, free_bytes / 1e9,
        )  # fmt: skip
    return Size(min(context, cache_tokens), cache_tokens)


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    import psutil

    return int(psutil.virtual_memory().available)
