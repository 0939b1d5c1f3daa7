"""How sure a figure is: intervals and a paired test that resample whole conversations.

What is sampled is the conversation, so neighbouring tokens do not count as independent. The percentile bootstrap is
that of Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13; the test swaps the two models'
labels conversation by conversation (Fisher's randomisation test, as in Noreen 1989; Koehn 2004 for text). A change
resamples the same conversations for both models, which is far sharper than comparing two intervals.

Shapes: C conversations, R resamples.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

RESAMPLES = 1000
FLIPS = 10_000
_SEED = 0
_AT_ONCE = 2**22  # numbers drawn at once


def ratio_interval(numerator: Floats, denominator: Floats) -> tuple[float, float]:
    """The 95% interval of sum(numerator) / sum(denominator), both of shape [C]."""
    ratios = np.concatenate([counts @ numerator / (counts @ denominator) for counts in _resamples(len(numerator))])
    low, high = np.percentile(ratios, (2.5, 97.5))
    return float(low), float(high)


def paired_p(differences: Floats) -> float:
    """The chance of so large a sum of differences, of shape [C], were the two models alike; two-sided.

    The smallest that can come out is 1 / (FLIPS + 1).
    """
    observed = abs(differences.sum())
    generator = np.random.default_rng(_SEED)
    at_once = max(1, _AT_ONCE // max(len(differences), 1))
    reached = 0
    for start in range(0, FLIPS, at_once):
        count = min(at_once, FLIPS - start)
        signs = generator.integers(0, 2, size=(count, len(differences)), dtype=np.int8) * 2 - 1
        # Sums are compared up to rounding: a flip of all signs has the very same size.
        reached += int((np.abs(signs @ differences) >= observed * (1 - 1e-12)).sum())
    return (1 + reached) / (1 + FLIPS)


def _resamples(conversations: int) -> Iterator[Floats]:
    """How often each conversation is drawn: arrays [some, C], RESAMPLES rows in all, the same on every call."""
    generator = np.random.default_rng(_SEED)
    at_once = max(1, _AT_ONCE // conversations)
    for start in range(0, RESAMPLES, at_once):
        rows = min(at_once, RESAMPLES - start)
        drawn = generator.integers(conversations, size=(rows, conversations))
        drawn += np.arange(rows)[:, None] * conversations
        counts = np.bincount(drawn.ravel(), minlength=rows * conversations)
        yield counts.reshape(rows, conversations).astype(np.float64)
