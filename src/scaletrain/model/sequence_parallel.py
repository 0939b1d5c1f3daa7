"""Ulysses: workers that share the tokens of each row, and exchange heads for tokens where tokens meet (attention).

Each of N workers carries 1/N of every row's tokens through the model. For attention an all-to-all gives each of them
all tokens of 1/N of the heads, and another one takes the result back (Jacobs et al. 2023, arXiv:2309.14509). Between
the two runs whatever kernel the machine has, on whole rows: the bounds and masks of documents are those of whole rows.

Shapes: B rows, T tokens of a row, t = T / N of them on one worker, H heads, h = H / N of them on one worker, K
key-value heads, D size of a head.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from scaletrain.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

SHARED = "scaletrain_ulysses_"  # as transformers knows it, with the name of the kernel behind


@dataclass(frozen=True)
class SequenceGroup:
    """A worker's place among the `size` that share rows; `name` is the process group's, as the exchange finds it."""

    size: int
    rank: int
    name: str

    def columns(self, length: int) -> slice:
        """This worker's tokens of rows of so many."""
        share = length // self.size
        return slice(self.rank * share, (self.rank + 1) * share)


def form_group(size: int) -> SequenceGroup | None:
    """Put consecutive ranks into groups of `size`, and return this rank's; None where rows are not shared.

    Every rank must call it, with the process group up. A process that trains alone has nobody to share with.
    """
    dist: Any = torch.distributed
    if size == 1 or dist.get_world_size() == 1:
        return None
    from deepspeed.sequence.layer import register_all_to_all_group

    group, _ = dist.new_subgroups(size)
    return SequenceGroup(size, dist.get_rank() % size, register_all_to_all_group(group))


def check_model(model_url: str, size: int) -> None:
    """Raise ConfigError where a model's heads do not divide among `size` workers, ModelError where it cannot be shared.

    Reads its config.json only; StorageError where that cannot be read.
    """
    from transformers import AutoConfig

    from scaletrain.model.settings import read_settings

    check_settings(AutoConfig.for_model(**read_settings(model_url)), size, source=model_url)


def check_settings(settings: "PreTrainedConfig", size: int, *, source: str) -> None:
    """The same of settings that were read; `source` is how messages call the model."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    text = settings.get_text_config()
    heads = text.num_attention_heads
    if heads % size:
        fitting = [str(number) for number in range(2, heads + 1) if heads % number == 0]
        use = f"use {', '.join(fitting[:-1])} or {fitting[-1]}" if len(fitting) > 1 else f"use 1 or {heads}"
        raise ConfigError(
            f"scaling.sequence_parallel={size} does not divide the {heads} attention heads of {source}, which its "
            f"workers share; {use}"
        )
    kind: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(settings)]
    if not kind.is_backend_compatible():
        raise ModelError(
            f"{source}: models of type {text.model_type} do not take their attention from transformers' interface, so "
            "that workers cannot share rows; use scaling.sequence_parallel=1"
        )
    if text.model_type == "gpt_oss":
        raise ModelError(f"{source} has attention sinks, which workers cannot share; use scaling.sequence_parallel=1")
    kinds = _rope_kinds(getattr(text, "rope_parameters", None) or {})
    growing = sorted(kind for kind in kinds if "dynamic" in kind or kind == "longrope")
    if growing:
        raise ModelError(
            f"{source} has {growing[0]} rotary positions, which depend on the longest document of a whole row, and a "
            "worker sees a part; use scaling.sequence_parallel=1"
        )


def attention_over(group: SequenceGroup, kernel: str) -> str:
    """Make attention of shared rows known to transformers, with one of its own kernels inside; returns its name."""
    from transformers import AttentionInterface
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    attend = partial(_attend, kernel=ALL_ATTENTION_FUNCTIONS[kernel], size=group.size, group=group.name)
    AttentionInterface.register(SHARED + kernel, attend)
    return SHARED + kernel


def _attend(
    module: torch.nn.Module,
    query_BHtD: torch.Tensor,
    key_BKtD: torch.Tensor,
    value_BKtD: torch.Tensor,
    attention_mask: Any,
    *,
    kernel: Callable[..., tuple[torch.Tensor, Any]],
    size: int,
    group: str,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attention over whole rows, in the form of transformers' attention functions; returns [B, t, H, D].

    Key-value heads that do not divide are repeated until they do; the query heads of a worker then still are those
    that belong to its key-value heads.
    """
    repeats = size // math.gcd(size, key_BKtD.shape[1])
    if repeats > 1:
        key_BKtD, value_BKtD = (each.repeat_interleave(repeats, dim=1) for each in (key_BKtD, value_BKtD))
    query, key, value = (_heads_for_tokens(each, size, group) for each in (query_BHtD, key_BKtD, value_BKtD))
    if repeats > 1:  # torch's own kernel reads there how many queries a key-value head has
        module.num_key_value_groups = query.shape[1] // key.shape[1]  # type: ignore[assignment]
    out_BThD, _ = kernel(module, query, key, value, attention_mask, **options)
    return _tokens_for_heads(out_BThD, size, group), None


def _heads_for_tokens(own_BHtD: torch.Tensor, size: int, group: str) -> torch.Tensor:
    """All heads of some tokens become some heads of all tokens: [B, H, t, D] -> [B, h, T, D]."""
    rows, heads, tokens, width = own_BHtD.shape
    sent = own_BHtD.view(rows, size, heads // size, tokens, width).movedim(1, 0)
    got = _exchange(sent, group)  # from each worker its tokens
    return got.permute(1, 2, 0, 3, 4).reshape(rows, heads // size, size * tokens, width)


def _tokens_for_heads(own_BThD: torch.Tensor, size: int, group: str) -> torch.Tensor:
    """The way back: [B, T, h, D] -> [B, t, H, D]."""
    rows, tokens, heads, width = own_BThD.shape
    sent = own_BThD.reshape(rows, size, tokens // size, heads, width).movedim(1, 0)
    got = _exchange(sent, group)  # from each worker its heads
    return got.permute(1, 2, 0, 3, 4).reshape(rows, tokens // size, size * heads, width)


def _exchange(sent: torch.Tensor, group: str) -> torch.Tensor:
    """Give part i of the first dimension to worker i, by DeepSpeed's operator.

    Its autograd functions would not do: torch.compile looks inside them, and gradients are lost without a word
    (https://github.com/deepspeedai/DeepSpeed/pull/8491).
    """
    got: torch.Tensor = torch.ops.deepspeed.dim_zero_all_to_all(sent.contiguous(), group)
    return got


def _rope_kinds(parameters: dict[str, Any]) -> set[str]:
    """The kinds of rotary positions of a model: one for all layers, or one for each kind of layer."""
    each = [parameters, *(value for value in parameters.values() if isinstance(value, dict))]
    return {str(one["rope_type"]) for one in each if "rope_type" in one}
