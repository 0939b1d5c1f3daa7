"""Votes as arrays: what every figure is computed from. V: votes. K: models."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scaletrain.judge.items import Items
from scaletrain.judge.votes import Vote

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Tallies:
    """The votes of one judging in the order of time.

    score [V]: 1 where the first model of the pair was preferred, 0 where the second was, ½ for a tie and for both
    bad. first, second [V]: models by index; pair, item, judge [V]: by index in order of appearance. weight [V]: one
    over the number of votes on the pair, so that each pair counts once, however many judged it.
    """

    models: tuple[str, ...]
    judges: tuple[str, ...]
    score: Floats
    first: Ints
    second: Ints
    pair: Ints
    item: Ints
    judge: Ints
    weight: Floats
    chose_left: Floats  # 1 left, 0 right, NaN for neither
    both_bad: npt.NDArray[np.bool_]
    seconds: Floats
    earliest: npt.NDArray[np.bool_]  # the first vote on its pair

    def __len__(self) -> int:
        return len(self.score)

    def between(self, model: int, other: int) -> tuple[npt.NDArray[np.bool_], Floats]:
        """Which votes [V] compare two models, and the score of `model` in each of those."""
        forward = (self.first == model) & (self.second == other)
        chosen = forward | ((self.first == other) & (self.second == model))
        return chosen, np.where(forward, self.score, 1 - self.score)[chosen]

    @property
    def preferring(self) -> npt.NDArray[np.bool_]:
        """[V]: whether a vote prefers one of the two."""
        return np.asarray(self.score != 0.5)


def tally(items: Items, votes: Sequence[Vote]) -> Tallies:
    """Tally the votes on the pairs of `items`; others are left out."""
    kept = [vote for vote in votes if vote.pair in items.pairs]
    model_index = {model: index for index, model in enumerate(items.models)}
    pairs = [items.pairs[vote.pair] for vote in kept]
    judges = tuple(sorted({vote.judge for vote in kept}))
    winners = [vote.winner for vote in kept]
    counts = Counter(vote.pair for vote in kept)
    seen: set[str] = set()
    earliest = [not (vote.pair in seen or seen.add(vote.pair)) for vote in kept]  # type: ignore[func-returns-value]
    return Tallies(
        models=items.models,
        judges=judges,
        score=np.array(
            [0.5 if won is None else float(won == pair.first) for won, pair in zip(winners, pairs, strict=True)],
            dtype=np.float64,
        ),
        first=_ints([model_index[pair.first] for pair in pairs]),
        second=_ints([model_index[pair.second] for pair in pairs]),
        pair=_indices([pair.id for pair in pairs]),
        item=_indices([pair.item.id for pair in pairs]),
        judge=_ints([judges.index(vote.judge) for vote in kept]),
        weight=np.array([1 / counts[vote.pair] for vote in kept], dtype=np.float64),
        chose_left=np.array([{"left": 1.0, "right": 0.0}.get(vote.choice, np.nan) for vote in kept], dtype=np.float64),
        both_bad=np.array([vote.choice == "both_bad" for vote in kept], dtype=np.bool_),
        seconds=np.array([vote.seconds for vote in kept], dtype=np.float64),
        earliest=np.array(earliest, dtype=np.bool_),
    )


def _ints(values: Sequence[int]) -> Ints:
    return np.array(values, dtype=np.int64)


def _indices(names: Sequence[str]) -> Ints:
    index: dict[str, int] = {}
    return _ints([index.setdefault(name, len(index)) for name in names])
