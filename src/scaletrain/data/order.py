"""The order of training samples: a pure function of (seed, epoch, index), at a cost that grows with neither.

The order is endless: position p lies in epoch p // rows, and every epoch is another permutation of all rows. It
permutes the spans of 2,048 row groups, the row groups inside a span, and the rows inside a row group: whole row groups
are fetched at once, and since a span is a shard, a reader has one or two shards open at a time. (Rows come to the
shards shuffled already.) Short last row groups and spans take their turn as any other.

To permute is to sort by keys, which are the outputs of SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable
pseudorandom number generators"): it visits every 64-bit number once, so keys differ and there is one way to sort them.
The order must never change, which is why no library's generator is used.
"""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

SPAN_GROUPS = 2048  # part of the order

Int64s = npt.NDArray[np.int64]
UInt64s = npt.NDArray[np.uint64]

_GAMMA = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def sample_ids(split_rows: int, row_group_rows: int, *, seed: int, start: int, stop: int) -> Int64s:
    """Return the ids of the samples at positions start to stop of the endless order, shape [stop - start].

    Takes O(rows of a span) the first time a span is met, whatever the position.
    """
    assert split_rows > 0 and row_group_rows > 0 and 0 <= start <= stop, (split_rows, row_group_rows, start, stop)
    ids = np.empty(stop - start, dtype=np.int64)
    position = start
    while position < stop:
        epoch, offset = divmod(position, split_rows)
        spans, starts = _span_order(split_rows, row_group_rows * SPAN_GROUPS, _key(seed, epoch))
        visit = int(np.searchsorted(starts, offset, side="right")) - 1
        span, first = int(spans[visit]), int(starts[visit])
        num_rows = int(starts[visit + 1]) - first
        rows = _row_order(num_rows, row_group_rows, _key(seed, epoch, span))[offset - first :][: stop - position]
        filled = position - start
        ids[filled : filled + len(rows)] = rows + span * row_group_rows * SPAN_GROUPS
        position += len(rows)
    return ids


def mix(values: UInt64s) -> UInt64s:
    """Return SplitMix64's finaliser of each value, a bijection whose every output bit depends on every input bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: UInt64s = values ^ (values >> np.uint64(31))
    return mixed


@lru_cache(maxsize=16)
def _span_order(split_rows: int, span_rows: int, key: int) -> tuple[Int64s, Int64s]:
    """Return the spans in the order of their visits, and the offsets in the epoch at which visits begin and end."""
    spans = np.argsort(_splitmix(key, np.arange(-(-split_rows // span_rows))))
    sizes = np.minimum(span_rows, split_rows - spans * span_rows)
    return spans, np.concatenate(([0], np.cumsum(sizes)))


@lru_cache(maxsize=16)
def _row_order(num_rows: int, row_group_rows: int, key: int) -> Int64s:
    """Return the rows of a span in the order of their visits, counted from the span's first."""
    rows = np.arange(num_rows)
    groups = rows // row_group_rows
    order: Int64s = np.lexsort((_splitmix(key ^ _MASK, rows), _splitmix(key, groups)))
    return order


def _key(*numbers: int) -> int:
    """Mix numbers into one of 64 bits; another order of the same numbers gives another."""
    key = 0
    for number in numbers:
        key = int(_splitmix(key ^ (number & _MASK), np.zeros(1, dtype=np.int64))[0])
    return key


def _splitmix(seed: int, index: Int64s) -> UInt64s:
    """Return the outputs of SplitMix64 at the given indices of the stream that starts with `seed`."""
    return mix(np.uint64(seed) + (index.astype(np.uint64) + np.uint64(1)) * np.uint64(_GAMMA))
