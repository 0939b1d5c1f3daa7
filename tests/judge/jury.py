"""A jury that is made up: items, and votes by judges who prefer models by known strengths."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from scaletrain.judge.items import Item, Items
from scaletrain.judge.votes import Choice, Vote

Chooser = Callable[[np.random.Generator, str, str], Choice]


def made_up_items(models: Sequence[str], count: int) -> Items:
    """`count` prompts, each with an answer of every model."""
    return Items(
        tuple(
            Item(
                ({"role": "user", "content": f"Question {number}?"},),
                {model: f"{model} says {number}." for model in models},
            )
            for number in range(count)
        )
    )


def honest(strengths: Mapping[str, float], *, ties: float = 0.0) -> Chooser:
    """Prefers by Bradley and Terry's model; a share `ties` of the votes is a tie, whoever plays."""

    def choose(generator: np.random.Generator, left: str, right: str) -> Choice:
        if generator.random() < ties:
            return "tie"
        return "left" if generator.random() < 1 / (1 + np.exp(strengths[right] - strengths[left])) else "right"

    return choose


def guessing(generator: np.random.Generator, _left: str, _right: str) -> Choice:
    """Does not look."""
    return "left" if generator.random() < 0.5 else "right"


def leftish(generator: np.random.Generator, _left: str, _right: str) -> Choice:
    """Takes the left answer nearly always."""
    return "left" if generator.random() < 0.9 else "right"


def vote_all(items: Items, judges: Mapping[str, Chooser], *, seed: int = 0, share: float = 1.0) -> list[Vote]:
    """Every judge votes on a share of the pairs, sides by chance."""
    generator = np.random.default_rng(seed)
    votes = []
    for pair in items.pairs.values():
        for name, choose in judges.items():
            if generator.random() >= share:
                continue
            left, right = (pair.first, pair.second) if generator.random() < 0.5 else (pair.second, pair.first)
            votes.append(Vote(name, pair.id, pair.item.id, left, right, choose(generator, left, right)))
    return votes
