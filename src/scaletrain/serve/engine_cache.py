"""Keys and values of the answers that run: answers of one capacity lie side by side, so that one call attends for all.

A panel holds rows of one capacity: a power of two, or one and a half of that. An answer that outgrows its row moves to
a panel of longer ones, and whoever leaves has the newest row of its capacity put in the gap: so of each capacity all
panels but one are full.
Shapes: N rows of a panel, K key-value heads, C tokens that a row has room for, D numbers a head.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

_SMALLEST_TOKENS = 128
_PANEL_TOKENS = 2048  # of its rows together: what a capacity takes at most without having answers for it


@dataclass(eq=False)
class KeyValueCache:
    """Where one answer's keys and values are: the first `length` places in a row of a panel; nowhere at first."""

    length: int = 0
    panel: "Panel | None" = None
    row: int = 0

    @property
    def capacity(self) -> int:
        """Tokens that there is room for."""
        return 0 if self.panel is None else self.panel.capacity


class Panel:
    """Rows of one capacity, those that are used first.

    What lies behind an answer's tokens is zero: it is hidden from attention, but a NaN there would not be.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.caches: list[KeyValueCache] = []
        self._most = max(1, _PANEL_TOKENS // capacity)
        self._layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    @property
    def is_full(self) -> bool:
        return len(self.caches) == self._most

    def layer(
        self, number: int, keys_1KTD: torch.Tensor, values_1KTD: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A layer's keys and values (N, K, C, D); the first time they are made for such keys and values."""
        if number not in self._layers:
            self._layers[number] = (self._rows_for(keys_1KTD), self._rows_for(values_1KTD))
        return self._layers[number]

    def token_bytes(self) -> int:
        """What a token takes in all layers."""
        return sum(tensor.nbytes for tensor in self._tensors()) // (self._most * self.capacity)

    def copy_row(self, row: int, source: "Panel", source_row: int, length: int) -> None:
        """Take over the first `length` places of another panel's row into an empty one."""
        for number, (keys, values) in source._layers.items():
            own_keys, own_values = self.layer(number, keys, values)
            own_keys[row, :, :length] = keys[source_row, :, :length]
            own_values[row, :, :length] = values[source_row, :, :length]

    def empty_row(self, row: int, length: int) -> None:
        """Make the first `length` places of a row zero again."""
        for tensor in self._tensors():
            tensor[row, :, :length] = 0

    def _tensors(self) -> Iterator[torch.Tensor]:
        for pair in self._layers.values():
            yield from pair

    def _rows_for(self, tensor_1KTD: torch.Tensor) -> torch.Tensor:
        _, heads, _, size = tensor_1KTD.shape
        return tensor_1KTD.new_zeros(self._most, heads, self.capacity, size)


class KeyValueStore:
    """Gives answers room and takes it back. Over the answers' own rows, a capacity takes less than one panel more."""

    def __init__(self, *, longest: int) -> None:
        """`longest`: the most tokens that an answer can have."""
        self._longest = longest
        self._panels: dict[int, list[Panel]] = {}

    def capacity_for(self, tokens: int) -> int:
        """What an answer with this many tokens has room for."""
        capacity = _SMALLEST_TOKENS
        while capacity < tokens:
            capacity *= 2
        smaller = capacity // 4 * 3
        return min(smaller if _SMALLEST_TOKENS < tokens <= smaller else capacity, self._longest)

    def reserve(self, cache: KeyValueCache, tokens: int) -> None:
        """Make room for this many tokens; what the answer has moves with it."""
        capacity = self.capacity_for(tokens)
        if capacity <= cache.capacity:
            return
        panels = self._panels.setdefault(capacity, [])
        if not panels or panels[-1].is_full:
            panels.append(Panel(capacity))
        panel, row = panels[-1], len(panels[-1].caches)
        if cache.panel is not None:
            panel.copy_row(row, cache.panel, cache.row, cache.length)
            self._leave(cache.panel, cache)
        panel.caches.append(cache)
        cache.panel, cache.row = panel, row

    def clear(self, cache: KeyValueCache) -> None:
        """Forget what an answer has, and take its room back."""
        if cache.panel is not None:
            self._leave(cache.panel, cache)
        cache.length, cache.panel = 0, None

    def _leave(self, panel: Panel, cache: KeyValueCache) -> None:
        panels = self._panels[panel.capacity]
        newest = panels[-1].caches.pop()
        if newest is not cache:
            panel.empty_row(cache.row, cache.length)
            panel.copy_row(cache.row, panels[-1], newest.row, newest.length)
        if panels[-1].caches:
            panels[-1].empty_row(newest.row, newest.length)
        else:
            panels.pop()
        if newest is not cache:
            panel.caches[cache.row] = newest
            newest.panel, newest.row = panel, cache.row
