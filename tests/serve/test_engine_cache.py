"""serve.engine_cache and serve.engine_attention: an answer keeps what is its own, and sees that alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from scaletrain.serve.engine_attention import attend, parts, place
from scaletrain.serve.engine_cache import KeyValueCache, KeyValueStore

LAYERS, HEADS, KEY_HEADS, SIZE = 2, 4, 2, 3
CPU = torch.device("cpu")


class Layer:
    """What the attention asks of a model's module."""

    def __init__(self, number: int) -> None:
        self.layer_idx = number


def numbers(heads: int, tokens: int) -> torch.Tensor:
    return torch.randn(1, heads, tokens, SIZE)


class Answers:
    """Answers in a store, beside plain copies of all their keys and values by layer."""

    def __init__(self, count: int, *, longest: int) -> None:
        self.store = KeyValueStore(longest=longest)
        self.caches = [KeyValueCache() for _ in range(count)]
        self.own = [[(numbers(KEY_HEADS, 0), numbers(KEY_HEADS, 0)) for _ in range(LAYERS)] for _ in range(count)]

    def step(self, counts: dict[int, int], *, window: int | None = None) -> None:
        """Give some answers so many tokens more, and compare what attention finds with each answer's alone."""
        for index, count in counts.items():
            self.store.reserve(self.caches[index], self.caches[index].length + count)
        order = sorted(counts, key=lambda index: place(self.caches[index], counts[index]))
        parted = parts([(self.caches[index], counts[index]) for index in order], CPU)
        ends = torch.tensor([counts[index] for index in order]).cumsum(0).tolist()
        for layer in range(LAYERS):
            query, key, value = (numbers(heads, ends[-1]) for heads in (HEADS, KEY_HEADS, KEY_HEADS))
            found, _ = attend(Layer(layer), query, key, value, None, parts=parted, sliding_window=window)
            for index, end in zip(order, ends, strict=True):
                own = slice(end - counts[index], end)
                pair = zip(self.own[index][layer], (key[:, :, own], value[:, :, own]), strict=True)
                keys, values = self.own[index][layer] = tuple(torch.cat(both, dim=2) for both in pair)
                expected = alone(query[:, :, own], keys, values, window)
                torch.testing.assert_close(found[:, own], expected)
        for index, count in counts.items():
            self.caches[index].length += count

    def clear(self, index: int) -> None:
        self.store.clear(self.caches[index])
        self.own[index] = [(numbers(KEY_HEADS, 0), numbers(KEY_HEADS, 0)) for _ in range(LAYERS)]

    def check(self) -> None:
        """Every answer has its own keys and values, and behind them is nothing but zeros."""
        for cache, own in zip(self.caches, self.own, strict=True):
            assert cache.capacity >= cache.length
            for layer, (keys, values) in enumerate(own):
                if cache.panel is None:
                    continue
                assert cache.panel.caches[cache.row] is cache
                for there, expected in zip(cache.panel.layer(layer, keys, values), (keys, values), strict=True):
                    torch.testing.assert_close(there[cache.row : cache.row + 1, :, : cache.length], expected)
                    assert not there[cache.row, :, cache.length :].any()
                    assert not there[len(cache.panel.caches) :].any()


def alone(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, window: int | None) -> torch.Tensor:
    """The attention of one answer's last tokens, from all of its keys and values."""
    tokens, seen = query.shape[2], keys.shape[2]
    position, key = torch.arange(seen - tokens, seen)[:, None], torch.arange(seen)
    mask = (key <= position) & (key > position - (window or seen))
    keys, values = (each.repeat_interleave(HEADS // KEY_HEADS, dim=1) for each in (keys, values))
    return scaled_dot_product_attention(query, keys, values, attn_mask=mask).transpose(1, 2)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_every_answer_keeps_what_is_its_own(data: st.DataObject) -> None:
    """Answers that come, grow, move and leave in any order each see their own tokens, and all of them."""
    answers = Answers(20, longest=700)
    for _ in range(data.draw(st.integers(1, 8))):
        chosen = data.draw(st.sets(st.integers(0, 19), min_size=1))
        room = {index: 700 - answers.caches[index].length for index in chosen}
        counts = {index: data.draw(st.sampled_from((1, 1, 1, 2, 90, 150))) for index in sorted(chosen)}
        answers.step({i: n for i, n in counts.items() if n <= room[i]} or {min(chosen): 1})
        for index in data.draw(st.sets(st.integers(0, 19), max_size=6)):
            answers.clear(index)
        answers.check()


@pytest.mark.parametrize("window", [1, 5, 64])
def test_a_window_hides_what_is_older(window: int) -> None:
    """Side by side as alone, with answers shorter and longer than the window, and some that wait."""
    answers = Answers(5, longest=300)
    answers.step({index: 3 + 10 * index for index in range(5)}, window=window)
    for taking_part in ({0, 1, 2, 3, 4}, {1, 3}, {0}):
        answers.step(dict.fromkeys(taking_part, 1), window=window)
    answers.check()


def test_of_each_capacity_only_one_panel_has_gaps() -> None:
    """Whoever leaves, the rest closes up: so room that nobody uses is bounded."""
    store, caches = KeyValueStore(longest=1000), [KeyValueCache() for _ in range(50)]
    for cache in caches:
        store.reserve(cache, 100)
    for cache in caches[::2]:
        store.clear(cache)
    panels = {id(cache.panel): cache.panel for cache in caches if cache.panel is not None}
    assert len(panels) == 2
    assert sum(not panel.is_full for panel in panels.values()) == 1


@pytest.mark.parametrize(
    ("tokens", "capacity"), [(1, 128), (128, 128), (129, 192), (193, 256), (700, 768), (769, 1000)]
)
def test_capacities(tokens: int, capacity: int) -> None:
    """Powers of two and one and a half of them, up to the longest answer."""
    assert KeyValueStore(longest=1000).capacity_for(tokens) == capacity
