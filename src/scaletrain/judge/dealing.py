"""Who is shown what: which pair a judge gets next, and on which side each answer stands.

Pairs that fewest have judged come first. So that agreement can be told early, a share `overlap` of what a judge gets
are pairs that another one has judged. Both depend on a seed and the judge's name alone, so a page that is loaded again
shows the same.
"""

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import ceil

_LEASE_S = 20 * 60


@dataclass(frozen=True)
class Progress:
    """How far the judging is: votes that were asked for, those that are there, and this judge's own."""

    wanted: int
    done: int
    mine: int


@dataclass(frozen=True)
class _Book:
    """What has been judged so far: how many votes each pair has, and what one judge has voted on."""

    counts: Counter[str]
    mine: frozenset[str]


class Dealer:
    """Deals pairs to judges; what is dealt and not yet judged is kept from others for 20 minutes. Thread-safe."""

    def __init__(
        self, pairs: Sequence[str], *, overlap: float, seed: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._pairs = tuple(pairs)
        self._known = frozenset(pairs)
        self._twice = ceil(overlap * len(self._pairs))  # how many pairs at least two judges are to see
        self._overlap, self._seed, self._clock = overlap, seed, clock
        self._leases: dict[str, tuple[str, float]] = {}  # judge: what was dealt to them, and until when it is theirs
        self._lock = threading.Lock()

    def next_pair(self, judge: str, judged: Iterable[tuple[str, str]]) -> str | None:
        """The pair that a judge is to see now, or None where nothing is left for them.

        `judged` has (judge, pair) of every vote. Until a judge has voted on it they are dealt the same pair again.
        """
        book = self._book(judge, judged)
        with self._lock:
            held = self._leases.get(judge)
            if held is not None and held[0] not in book.mine:
                pair: str | None = held[0]
            else:
                pair = self._choose(judge, book)
            if pair is None:
                self._leases.pop(judge, None)
            else:
                self._leases[judge] = (pair, self._clock() + _LEASE_S)
            return pair

    def progress(self, judge: str, judged: Iterable[tuple[str, str]]) -> Progress:
        """How far all of it is, and this judge."""
        book = self._book(judge, judged)
        twice = sum(count > 1 for count in book.counts.values())
        done = len(book.counts) + min(twice, self._twice)
        return Progress(len(self._pairs) + self._twice, done, len(book.mine))

    def first_is_left(self, judge: str, pair: str) -> bool:
        """Whether the first model of a pair stands on the left for this judge."""
        return _number(self._seed, "side", judge, pair) < 0.5

    def _book(self, judge: str, judged: Iterable[tuple[str, str]]) -> _Book:
        known = [(who, pair) for who, pair in judged if pair in self._known]
        mine = frozenset(pair for who, pair in known if who == judge)
        return _Book(Counter(pair for _, pair in known), mine)

    def _choose(self, judge: str, book: _Book) -> str | None:
        now = self._clock()
        dealt = {pair for who, (pair, until) in self._leases.items() if who != judge and until > now}
        open_pairs = [pair for pair in self._pairs if pair not in book.mine]
        unseen = [pair for pair in open_pairs if not book.counts[pair]]
        fresh = [pair for pair in unseen if pair not in dealt] or unseen
        twice = sum(count > 1 for count in book.counts.values())
        seen = [pair for pair in open_pairs if book.counts[pair] == 1] if twice < self._twice else []
        shared = [pair for pair in seen if pair not in dealt] or seen
        share_now = _number(self._seed, "overlap", judge, str(len(book.mine))) < self._overlap
        candidates = (shared or fresh) if share_now else (fresh or shared)
        return min(candidates, key=lambda pair: _number(self._seed, "order", judge, pair), default=None)


def _number(seed: int, *parts: str) -> float:
    """A number in [0, 1) that the parts decide."""
    digest = hashlib.blake2b("\x00".join((str(seed), *parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
