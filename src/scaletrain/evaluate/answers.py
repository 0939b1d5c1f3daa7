"""What is measured: the loss of every answer in held-out conversations, and the groups by which it is reported.

An answer is one turn of the assistant, with the marker that ends it. Shapes: A answers, in the order of the rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Kind = Literal["corpus", "language", "depth"]

ALL = "all"
UNKNOWN = "not known"
_DEPTHS = (("1", 1, 1), ("2", 2, 2), ("3", 3, 3), ("4", 4, 4), ("5 to 8", 5, 8), ("9 and on", 9, 2**62))


@dataclass(frozen=True)
class Answers:
    """Every array has shape [A].

    conversation: a number for each conversation, or for a part of one that was cut where it cannot be told of which.
    corpus and language: places in `corpora` and `languages`. depth: the how-manieth answer it is, from 1, in the
    conversation as the model sees it. tokens: supervised ones. size_bytes: of what is said, in UTF-8; marks that are
    not text have none. nll: the sum over tokens, in nats.
    """

    corpora: tuple[str, ...]
    languages: tuple[str, ...]
    conversation: Ints
    corpus: Ints
    language: Ints
    depth: Ints
    tokens: Ints
    size_bytes: Ints
    nll: Floats


@dataclass(frozen=True)
class Group:
    """Some answers that are reported together; `chosen` is bool [A]."""

    kind: Kind
    name: str
    chosen: npt.NDArray[np.bool_]


def groups(answers: Answers) -> Iterator[Group]:
    """All answers, then those of each corpus, each language and each depth that has any."""
    yield Group("corpus", ALL, np.ones(len(answers.nll), np.bool_))
    yield from _by_name("corpus", answers.corpora, answers.corpus)
    yield from _by_name("language", answers.languages, answers.language)
    for name, first, last in _DEPTHS:
        chosen = (answers.depth >= first) & (answers.depth <= last)
        if chosen.any():
            yield Group("depth", name, chosen)


def by_conversation(numbers: Ints, *values: npt.NDArray[np.number]) -> list[Floats]:
    """Sum values of answers up to the conversations that have any of them: each of shape [conversations]."""
    _, places = np.unique(numbers, return_inverse=True)
    count = int(places.max(initial=-1)) + 1
    return [np.bincount(places, weights=each, minlength=count).astype(np.float64) for each in values]


def _by_name(kind: Kind, names: Sequence[str], of_answer: Ints) -> Iterator[Group]:
    for number, name in enumerate(names):
        if (chosen := of_answer == number).any():
            yield Group(kind, name, chosen)
