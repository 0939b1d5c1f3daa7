"""Do the judges agree: Krippendorff's alpha, from his "Computing Krippendorff's Alpha-Reliability" (2011).

Alpha is 1 where all agree, 0 where they agree as often as by chance. U: units (pairs of answers). C: categories.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from scaletrain.judge.bradley_terry import Interval
from scaletrain.judge.tallies import Floats

Scale = Literal["nominal", "ordinal", "interval"]


def alpha(ratings: Sequence[Sequence[int]], *, categories: int, scale: Scale) -> float | None:
    """Alpha of ratings 0 to categories-1, a sequence for each unit; None where no unit was rated twice.

    Where all ratings are the same value there is nothing to disagree about and alpha is 1.
    """
    return _alpha(coincidences(ratings, categories).sum(0), scale)


def alpha_interval(
    ratings: Sequence[Sequence[int]], *, categories: int, scale: Scale, resamples: int = 1000, seed: int = 0
) -> Interval | None:
    """Alpha with the percentiles of a bootstrap over units."""
    units_UCC = coincidences([unit for unit in ratings if len(unit) > 1], categories)
    value = _alpha(units_UCC.sum(0), scale)
    if value is None:
        return None
    number = len(units_UCC)
    drawn_BU = np.random.default_rng(seed).multinomial(number, np.full(number, 1 / number), size=resamples)
    sums_BCC = (drawn_BU @ units_UCC.reshape(number, -1)).reshape(resamples, categories, categories)
    low, high = np.percentile([_alpha(each, scale) or 0.0 for each in sums_BCC], [2.5, 97.5])
    return Interval(value, float(low), float(high))


def coincidences(ratings: Sequence[Sequence[int]], categories: int) -> Floats:
    """Each unit's coincidences [U, C, C]: ordered pairs of ratings by different judges, over (ratings - 1)."""
    found = np.zeros((len(ratings), categories, categories))
    for unit, values in enumerate(ratings):
        if len(values) < 2:
            continue
        counts = np.bincount(values, minlength=categories).astype(np.float64)
        found[unit] = (np.outer(counts, counts) - np.diag(counts)) / (len(values) - 1)
    return found


def _alpha(coincidences_CC: Floats, scale: Scale) -> float | None:
    totals_C = coincidences_CC.sum(0)
    number = totals_C.sum()
    if number == 0:
        return None
    distance_CC = _distance(totals_C, scale)
    expected = (np.outer(totals_C, totals_C) * distance_CC).sum() / (number - 1)
    if expected == 0:
        return 1.0
    return float(1 - (coincidences_CC * distance_CC).sum() / expected)


def _distance(totals_C: Floats, scale: Scale) -> npt.NDArray[np.float64]:
    """How much two categories differ, squared."""
    ranks = np.arange(len(totals_C), dtype=np.float64)
    if scale == "nominal":
        return np.asarray(ranks[:, None] != ranks[None, :], dtype=np.float64)
    if scale == "ordinal":  # all that lies between two categories, and half of each of them
        ranks = np.cumsum(totals_C) - totals_C / 2
    return np.asarray((ranks[:, None] - ranks[None, :]) ** 2, dtype=np.float64)
