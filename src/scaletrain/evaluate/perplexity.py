"""Perplexity and bits per byte of groups of answers, with the tokens they rest on and how sure they are.

Perplexity is per supervised token, so it compares models of one tokenizer. Bits per byte is the same loss for each byte
of what is said (the marks that end turns cost bits and have no bytes), and compares models of any tokenizer.
"""

import math
from dataclasses import dataclass

import numpy as np

from scaletrain.errors import DataError
from scaletrain.evaluate.answers import Answers, Group, Kind, by_conversation, groups
from scaletrain.evaluate.intervals import paired_p, ratio_interval


@dataclass(frozen=True)
class Perplexity:
    """The loss of one group: `nll` nats over `tokens` tokens that say `size_bytes` bytes.

    `low` and `high` bound the 95% interval of the perplexity, `bits_low` and `bits_high` that of bits per byte.
    """

    kind: Kind
    name: str
    conversations: int
    answers: int
    tokens: int
    size_bytes: int
    nll: float
    low: float
    high: float
    bits_low: float
    bits_high: float

    @property
    def value(self) -> float:
        return exponential(self.nll / self.tokens)

    @property
    def bits_per_token(self) -> float:
        return self.nll / self.tokens / math.log(2)

    @property
    def bits_per_byte(self) -> float:
        """Not a number where nothing but marks was said."""
        return self.nll / self.size_bytes / math.log(2) if self.size_bytes else math.nan

    def record(self) -> dict[str, object]:
        """The figures as they stand in reports."""
        return {
            self.kind: self.name,
            "perplexity": self.value,
            "low": self.low,
            "high": self.high,
            "bits_per_byte": self.bits_per_byte,
            "bits_per_byte_low": self.bits_low,
            "bits_per_byte_high": self.bits_high,
            "bits_per_token": self.bits_per_token,
            "tokens": self.tokens,
            "bytes": self.size_bytes,
            "answers": self.answers,
            "conversations": self.conversations,
        }


@dataclass(frozen=True)
class Change:
    """How much a perplexity changed: -0.3 is 30% less. `low` and `high` bound the 95% interval.

    `p` is that of the paired test: how often chance alone would make so much of a difference.
    """

    value: float
    low: float
    high: float
    p: float


def perplexities(answers: Answers) -> tuple[Perplexity, ...]:
    """The perplexity of all answers, then of each corpus, language and depth that has any."""
    return tuple(_perplexity(group, answers) for group in groups(answers))


def changes(before: Answers, after: Answers) -> dict[tuple[Kind, str], Change]:
    """The change of each perplexity from one model to another, measured on the same answers; DataError on others."""
    if not np.array_equal(before.tokens, after.tokens):
        raise DataError("the two measurements are not of the same conversations; remove them and evaluate again")
    return {(group.kind, group.name): _change(group, before, after) for group in groups(before)}


def exponential(value: float) -> float:
    """e to a power; infinite instead of an error where that is too large a number."""
    return math.exp(value) if value < 700 else math.inf


def _perplexity(group: Group, answers: Answers) -> Perplexity:
    chosen = group.chosen
    nll, tokens, size = by_conversation(
        answers.conversation[chosen], answers.nll[chosen], answers.tokens[chosen], answers.size_bytes[chosen]
    )
    low, high = ratio_interval(nll, tokens)
    bits_low, bits_high = ratio_interval(nll / math.log(2), np.maximum(size, 1e-9)) if size.sum() else (math.nan,) * 2
    return Perplexity(
        kind=group.kind,
        name=group.name,
        conversations=len(nll),
        answers=int(chosen.sum()),
        tokens=int(tokens.sum()),
        size_bytes=int(size.sum()),
        nll=float(nll.sum()),
        low=exponential(low),
        high=exponential(high),
        bits_low=bits_low,
        bits_high=bits_high,
    )


def _change(group: Group, before: Answers, after: Answers) -> Change:
    chosen = group.chosen
    difference, tokens = by_conversation(
        before.conversation[chosen], (after.nll - before.nll)[chosen], before.tokens[chosen]
    )
    low, high = ratio_interval(difference, tokens)
    return Change(
        value=exponential(float(difference.sum() / tokens.sum())) - 1,
        low=exponential(low) - 1,
        high=exponential(high) - 1,
        p=paired_p(difference),
    )
