"""Attention of a step in which many answers take part, and each of them sees only its own tokens.

A step's tokens, of all answers, are one row: the matrices of the model are read once for all, and nothing is padded.
Attention goes part by part: one call for all answers of a panel that take one token, one for each that takes more.
Shapes: T tokens of the row (or of a part of it), S of one answer up to now, A answers of a part, N rows of a panel that
are used, H query heads, K key-value heads, D numbers a head.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from scaletrain.errors import ModelError
from scaletrain.serve.engine_cache import KeyValueCache, Panel

ATTENTION = "scaletrain_by_answer"
# Changes to the scores that some models ask of their attention, which torch's function does not know.
_UNKNOWN = ("softcap", "s_aux", "position_bias")


def place(cache: KeyValueCache, count: int) -> tuple[bool, int, int]:
    """What to sort the answers of a step by, so that `parts` finds those of a panel side by side."""
    return (count != 1, id(cache.panel), cache.row)


def parts(sorted_answers: Sequence[tuple[KeyValueCache, int]], device: torch.device) -> list["Abreast | Alone"]:
    """The parts of a step's row, from each answer's cache and number of tokens, in the order of `place`."""
    found: list[Abreast | Alone] = []
    start = 0
    for (several, _), group in groupby(sorted_answers, key=lambda each: place(*each)[:2]):
        if several:
            for cache, count in group:
                found.append(Alone(cache, start, start + count))
                start += count
        else:
            caches = [cache for cache, _ in group]
            assert caches[0].panel is not None
            found.append(Abreast(caches[0].panel, caches, start, device))
            start += len(caches)
    return found


class Alone:
    """One answer with several tokens, from `start` to before `stop` of the row: a prompt, or a part of one."""

    def __init__(self, cache: KeyValueCache, start: int, stop: int) -> None:
        self.start, self.stop = start, stop
        self._cache = cache

    def attend(
        self,
        layer: int,
        query_1HTD: torch.Tensor,
        key_1KTD: torch.Tensor,
        value_1KTD: torch.Tensor,
        *,
        scaling: float | None,
        window: int | None,
    ) -> torch.Tensor:
        """Each token looks back on itself and all before it, or the last `window` of these; returns 1, T, H, D."""
        cache, tokens = self._cache, self.stop - self.start
        assert cache.panel is not None
        seen = cache.length + tokens
        keys_1KSD, values_1KSD = (
            rows[cache.row : cache.row + 1, :, :seen] for rows in cache.panel.layer(layer, key_1KTD, value_1KTD)
        )
        keys_1KSD[:, :, cache.length :] = key_1KTD
        values_1KSD[:, :, cache.length :] = value_1KTD
        whole = tokens == seen and (window is None or seen <= window)
        result_1HTD = scaled_dot_product_attention(
            query_1HTD,
            keys_1KSD,
            values_1KSD,
            attn_mask=None if whole else _mask(tokens, seen, window, query_1HTD.device),
            is_causal=whole,
            scale=scaling,
            enable_gqa=query_1HTD.shape[1] != keys_1KSD.shape[1],
        )
        return result_1HTD.transpose(1, 2)


class Abreast:
    """Answers of one panel, in the order of its rows, with one token each: the row's tokens from `start` on."""

    def __init__(self, panel: Panel, caches: Sequence[KeyValueCache], start: int, device: torch.device) -> None:
        self.start, self.stop = start, start + len(caches)
        self._panel = panel
        self._used = len(panel.caches)
        self._rows_A = None  # where the part has all rows that are used, it needs no copies of them
        if len(caches) < self._used:
            self._rows_A = torch.tensor([cache.row for cache in caches], device=device)
        lengths = {cache.row: cache.length for cache in caches}
        # A row that takes no part looks at its first place, for nothing.
        self._lengths_N = torch.tensor([lengths.get(row, 0) for row in range(self._used)], device=device)
        self._end = max(lengths.values()) + 1
        self._even = len(set(lengths.values())) == 1 and self._rows_A is None
        self._masks: dict[int | None, torch.Tensor] = {}

    def attend(
        self,
        layer: int,
        query_1HAD: torch.Tensor,
        key_1KAD: torch.Tensor,
        value_1KAD: torch.Tensor,
        *,
        scaling: float | None,
        window: int | None,
    ) -> torch.Tensor:
        """Each answer's token looks back on that answer's tokens, or the last `window` of them; returns 1, A, H, D."""
        heads, groups = query_1HAD.shape[1], key_1KAD.shape[1]
        keys_NKSD, values_NKSD = (rows[: self._used] for rows in self._panel.layer(layer, key_1KAD, value_1KAD))
        self._write(keys_NKSD, key_1KAD[0].transpose(0, 1))
        self._write(values_NKSD, value_1KAD[0].transpose(0, 1))
        # The heads that share keys are taken for so many queries, which spares a copy of the keys for each head.
        query_AKGD = query_1HAD[0].transpose(0, 1).reshape(self.stop - self.start, groups, heads // groups, -1)
        if self._rows_A is not None:
            query_NKGD = query_AKGD.new_zeros(self._used, *query_AKGD.shape[1:])
            query_NKGD[self._rows_A] = query_AKGD
        else:
            query_NKGD = query_AKGD
        result_NKGD = scaled_dot_product_attention(
            query_NKGD,
            keys_NKSD[:, :, : self._end],
            values_NKSD[:, :, : self._end],
            attn_mask=self._mask(window, query_NKGD),
            scale=scaling,
        )
        result_AKGD = result_NKGD if self._rows_A is None else result_NKGD[self._rows_A]
        return result_AKGD.flatten(1, 2)[None]

    def _write(self, rows_NKCD: torch.Tensor, new_AKD: torch.Tensor) -> None:
        """Put each answer's new keys or values behind those that it has."""
        if self._rows_A is None:
            index_NKTD = self._lengths_N[:, None, None, None].expand(-1, *rows_NKCD.shape[1:2], 1, rows_NKCD.shape[3])
            rows_NKCD.scatter_(2, index_NKTD, new_AKD[:, :, None])
        else:
            rows_NKCD[self._rows_A, :, self._lengths_N[self._rows_A]] = new_AKD

    def _mask(self, window: int | None, query: torch.Tensor) -> torch.Tensor | None:
        """What is added to the scores (N, 1, 1, S); nothing where every row sees all that there is."""
        if self._even and (window is None or self._end <= window):
            return None
        if window not in self._masks:
            key_S = torch.arange(self._end, device=query.device)
            seen_NS = key_S <= self._lengths_N[:, None]
            if window is not None:
                seen_NS &= key_S > self._lengths_N[:, None] - window
            mask_NS = query.new_zeros(seen_NS.shape).masked_fill_(~seen_NS, float("-inf"))
            self._masks[window] = mask_NS[:, None, None]
        return self._masks[window]


def attend(
    module: Any,
    query_1HTD: torch.Tensor,
    key_1KTD: torch.Tensor,
    value_1KTD: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    parts: Sequence[Abreast | Alone],
    scaling: float | None = None,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attention in the form that transformers' models call; returns 1, T, H, D."""
    if unknown := [name for name in _UNKNOWN if options.get(name) is not None]:
        raise ModelError(f"the model's attention needs {', '.join(unknown)}")
    results = [
        part.attend(module.layer_idx, *cut, scaling=scaling, window=sliding_window)
        for part, *cut in _cut(parts, query_1HTD, key_1KTD, value_1KTD)
    ]
    return results[0] if len(results) == 1 else torch.cat(results, dim=1), None


def _cut(parts: Sequence[Abreast | Alone], *tensors: torch.Tensor) -> Iterator[tuple[Any, ...]]:
    """Each part with its tokens of some tensors (1, heads, T, D)."""
    for part in parts:
        yield part, *(tensor[:, :, part.start : part.stop] for tensor in tensors)


def _mask(tokens: int, seen: int, window: int | None, device: torch.device) -> torch.Tensor:
    """True where a query sees a key; the queries are the last `tokens` of the `seen` positions."""
    position_T1 = torch.arange(seen - tokens, seen, device=device)[:, None]
    key_S = torch.arange(seen, device=device)
    mask_TS = key_S <= position_T1
    return mask_TS if window is None else mask_TS & (key_S > position_T1 - window)
