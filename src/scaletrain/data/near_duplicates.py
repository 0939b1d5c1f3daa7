"""Conversations that say almost the same: a fingerprint of each, made where it is encoded, and clusters of them.

Two conversations are alike as far as they share their runs of three words (Jaccard's index of the sets). Those that are
worth comparing are found by MinHash (Broder 1997) in bands (Leskovec, Rajaraman and Ullman, "Mining of Massive
Datasets", 3.4): alike in all rows of one band. They are then compared by the 512 smallest hashes of their runs, which
are the whole set where a conversation has no more. Clusters are joined one by one, so that a cluster's ends may be less
alike than `similarity`. Nothing here depends on the order in which conversations arrive.

System turns are not looked at, nor is who speaks; a conversation of less than three words has no fingerprint.
"""

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scaletrain.data.ngrams import Hashes, hash_ngrams

Ints = npt.NDArray[np.int64]
Words32 = npt.NDArray[np.uint32]

RUN_LENGTH = 3
SKETCH_SIZE = 512
_RECALL = 0.99  # of pairs that are exactly as alike as asked for
_MAX_HASHES = 128
# In a crowd that shares a band without being alike (one template, filled in differently), members are compared with so
# many of them only: all with all would take for ever, and what is really alike meets again in other bands.
_MAX_HEADS = 32


@dataclass(frozen=True)
class Banding:
    """How many bands there are, and how many MinHashes in each."""

    bands: int
    rows: int


@dataclass(frozen=True)
class Fingerprint:
    """bands: one uint32 for each band, or none. sketch: the smallest hashes of its runs, ascending."""

    bands: Words32
    sketch: Words32


NO_FINGERPRINT = Fingerprint(np.zeros(0, np.uint32), np.zeros(0, np.uint32))


def banding(similarity: float) -> Banding:
    """Return the longest bands that find 99 of 100 pairs of just this similarity, with 128 hashes at most."""
    found = Banding(math.ceil(math.log(1 - _RECALL) / math.log1p(-similarity)), 1)
    for rows in range(2, _MAX_HASHES):
        bands = math.ceil(math.log(1 - _RECALL) / math.log1p(-(similarity**rows)))
        if bands * rows <= _MAX_HASHES:
            found = Banding(bands, rows)
    return found


def fingerprint(said: Hashes, how: Banding) -> Fingerprint:
    """Return the fingerprint of a conversation, given the hashes of its units."""
    runs = (hash_ngrams(said, RUN_LENGTH) >> np.uint64(32)).astype(np.uint32)
    if not len(runs):
        return NO_FINGERPRINT
    runs.sort()
    is_new = np.ones(len(runs), np.bool_)
    np.not_equal(runs[1:], runs[:-1], out=is_new[1:])
    runs = runs[is_new]
    factors, summands, mixers = _constants(how)
    smallest = np.full(how.bands * how.rows, 2**32 - 1, np.uint32)
    for start in range(0, len(runs), 1024):  # the products of a part stay in the processor's cache
        hashes = factors * runs[start : start + 1024]
        hashes += summands
        np.minimum(smallest, hashes.min(axis=1), out=smallest)
    mixed = (smallest.astype(np.uint64).reshape(how.bands, how.rows) * mixers).sum(axis=1, dtype=np.uint64)
    return Fingerprint((mixed >> np.uint64(32)).astype(np.uint32), runs[:SKETCH_SIZE])


def find_survivors(
    rank: Ints,
    bands: Iterable[Words32],
    sketch_of: Callable[[int], Words32],
    *,
    similarity: float,
) -> Ints:
    """Return for each conversation that of its cluster which ranks first (the lowest); itself where it is alone.

    rank: [conversations], no two alike. bands: for each band its value of every conversation. sketch_of: by number.
    Holds some 70 bytes a conversation.
    """
    parent = np.arange(len(rank), dtype=np.int64)
    for values in bands:
        order = np.lexsort((rank, values))
        ordered = values[order]
        starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
        stops = np.append(starts[1:], len(ordered))
        crowded = stops - starts > 1
        for start, stop in zip(starts[crowded].tolist(), stops[crowded].tolist(), strict=True):
            _join(parent, rank, order[start:stop].tolist(), sketch_of, similarity)
    while not np.array_equal(roots := parent[parent], parent):
        parent = roots
    return parent


def similarity_of(first: Words32, second: Words32) -> float:
    """Return Jaccard's index of two sets, given their sketches: exact where both are whole, else estimated."""
    if max(len(first), len(second)) < SKETCH_SIZE:
        shared = _count_shared(first, second)
        return shared / (len(first) + len(second) - shared)
    smallest = np.union1d(first, second)[:SKETCH_SIZE]
    bound = smallest[-1]
    return _count_shared(first[first <= bound], second[second <= bound]) / len(smallest)


def _count_shared(first: Words32, second: Words32) -> int:
    both = np.concatenate([first, second])
    both.sort()
    return int((both[1:] == both[:-1]).sum())


def _join(
    parent: Ints, rank: Ints, members: Sequence[int], sketch_of: Callable[[int], Words32], similarity: float
) -> None:
    """Join those of a band's members that are alike: each is compared with the first of those not yet placed."""
    pending = list(members)
    for _ in range(_MAX_HEADS):
        if len(pending) < 2:
            return
        head, *others = pending
        sketch = sketch_of(head)
        pending = []
        for other in others:
            if _find(parent, head) == _find(parent, other):
                continue
            if _may_be_alike(sketch, theirs := sketch_of(other), similarity) and (
                similarity_of(sketch, theirs) >= similarity
            ):
                _unite(parent, rank, head, other)
            else:
                pending.append(other)


def _may_be_alike(first: Words32, second: Words32, similarity: float) -> bool:
    """The smaller set over the larger bounds Jaccard's index from above."""
    lengths = sorted((len(first), len(second)))
    return lengths[0] >= similarity * lengths[1]


def _find(parent: Ints, number: int) -> int:
    root = number
    while parent[root] != root:
        root = int(parent[root])
    while parent[number] != root:
        parent[number], number = root, int(parent[number])
    return root


def _unite(parent: Ints, rank: Ints, first: int, second: int) -> None:
    """Put two clusters under the root that ranks first."""
    roots = sorted((_find(parent, first), _find(parent, second)), key=lambda root: rank[root])
    parent[roots[1]] = roots[0]


@functools.lru_cache(maxsize=4)
def _constants(how: Banding) -> tuple[Words32, Words32, Hashes]:
    """Odd factors and summands of the hash functions (one a row), and the factors that mix a band's rows."""
    drawn = np.random.Generator(np.random.PCG64(20_260_101)).integers(0, 2**64, (3, _MAX_HASHES), dtype=np.uint64)
    count = how.bands * how.rows
    factors, summands = ((each[:count] >> np.uint64(32)).astype(np.uint32)[:, None] for each in drawn[:2])
    return factors | np.uint32(1), summands, drawn[2, : how.rows] | np.uint64(1)
