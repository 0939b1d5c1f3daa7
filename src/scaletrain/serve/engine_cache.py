"""Keys and values of answers that run together, and the attention of a step in which each of them sees only its own.

A step's tokens, of all answers, are one row: the matrices of the model are read once for all, and nothing is padded.
Only attention goes answer by answer; so it does not depend on what else is in the row.
Shapes: T tokens of the row (or of one answer in it), S of one answer up to now, H query heads, K key-value heads, D
numbers a head.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from scaletrain.errors import ModelError

ATTENTION = "scaletrain_by_answer"
# Changes to the scores that some models ask of their attention, which torch's function does not know.
_UNKNOWN = ("softcap", "s_aux", "position_bias")


class KeyValueCache:
    """The keys and values of one answer, in memory of its own that grows to what is reserved."""

    def __init__(self) -> None:
        self.length = 0
        self.capacity = 0
        self._layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def reserve(self, tokens: int) -> None:
        """Make room for this many tokens, more than before; what is there is copied."""
        self.capacity = tokens
        self._layers = {
            layer: (self._moved(keys), self._moved(values)) for layer, (keys, values) in self._layers.items()
        }

    def clear(self) -> None:
        """Forget everything and give the memory back."""
        self.length = self.capacity = 0
        self._layers = {}

    def append(
        self, layer: int, keys_1KTD: torch.Tensor, values_1KTD: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write a layer's new keys and values behind `length`; returns all of the layer's, as views."""
        if layer not in self._layers:
            self._layers[layer] = (self._room_for(keys_1KTD), self._room_for(values_1KTD))
        keys, values = self._layers[layer]
        end = self.length + keys_1KTD.shape[2]
        keys[:, :, self.length : end] = keys_1KTD
        values[:, :, self.length : end] = values_1KTD
        return keys[:, :, :end], values[:, :, :end]

    def token_bytes(self) -> int:
        """What a token takes in all layers that were written."""
        tensors = [tensor for pair in self._layers.values() for tensor in pair]
        return sum(tensor.nbytes for tensor in tensors) // self.capacity

    def _room_for(self, tensor_1KTD: torch.Tensor) -> torch.Tensor:
        _, heads, _, size = tensor_1KTD.shape
        return tensor_1KTD.new_empty(1, heads, self.capacity, size)

    def _moved(self, tensor_1KSD: torch.Tensor) -> torch.Tensor:
        moved = self._room_for(tensor_1KSD)
        moved[:, :, : self.length] = tensor_1KSD[:, :, : self.length]
        return moved


@dataclass(frozen=True)
class Span:
    """The tokens of one answer in a step's row, from `start` to before `stop`, and the cache they belong to."""

    cache: KeyValueCache
    start: int
    stop: int


def attend(
    module: Any,
    query_1HTD: torch.Tensor,
    key_1KTD: torch.Tensor,
    value_1KTD: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    spans: Sequence[Span],
    scaling: float | None = None,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attention in the form that transformers' models call; returns 1, T, H, D."""
    if unknown := [name for name in _UNKNOWN if options.get(name) is not None]:
        raise ModelError(f"the model's attention needs {', '.join(unknown)}")
    _, heads, tokens, _ = query_1HTD.shape
    result_1THD = query_1HTD.new_empty(1, tokens, heads, value_1KTD.shape[-1])
    for span in spans:
        part = slice(span.start, span.stop)
        keys, values = span.cache.append(module.layer_idx, key_1KTD[:, :, part], value_1KTD[:, :, part])
        result_1THD[:, part] = _attend_to_own(query_1HTD[:, :, part], keys, values, scaling, sliding_window)
    return result_1THD, None


def _attend_to_own(
    query_1HTD: torch.Tensor,
    keys_1KSD: torch.Tensor,
    values_1KSD: torch.Tensor,
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    """The last T of S tokens look back, each on itself and all before it, or the last `window` of these."""
    _, heads, tokens, size = query_1HTD.shape
    groups, seen = keys_1KSD.shape[1], keys_1KSD.shape[2]
    if tokens == 1:
        if window is not None:
            keys_1KSD, values_1KSD = keys_1KSD[:, :, -window:], values_1KSD[:, :, -window:]
        # The heads that share keys are taken for so many queries, which spares a copy of the keys for each head.
        grouped = query_1HTD.reshape(1, groups, heads // groups, size)
        return scaled_dot_product_attention(grouped, keys_1KSD, values_1KSD, scale=scaling).reshape(1, 1, heads, -1)
    whole = tokens == seen and (window is None or seen <= window)
    mask_TS = None if whole else _mask(tokens, seen, window, query_1HTD.device)
    result_1HTD = scaled_dot_product_attention(
        query_1HTD,
        keys_1KSD,
        values_1KSD,
        attn_mask=mask_TS,
        is_causal=whole,
        scale=scaling,
        enable_gqa=groups != heads,
    )
    return result_1HTD.transpose(1, 2)


def _mask(tokens: int, seen: int, window: int | None, device: torch.device) -> torch.Tensor:
    """True where a query sees a key; the queries are the last `tokens` of the `seen` positions."""
    position_T1 = torch.arange(seen - tokens, seen, device=device)[:, None]
    key_S = torch.arange(seen, device=device)
    mask_TS = key_S <= position_T1
    return mask_TS if window is None else mask_TS & (key_S > position_T1 - window)
