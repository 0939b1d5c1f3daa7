"""Long series made short enough to draw: every peak stays, and what a curve does on the whole is there too."""

import math
from dataclasses import dataclass

import numpy as np

from scaletrain.metric_columns import Floats


@dataclass(frozen=True)
class Series:
    """Values at places, in the order of the places."""

    xs: Floats
    ys: Floats

    def __len__(self) -> int:
        return len(self.xs)

    def points(self) -> tuple[list[float], list[float]]:
        """Both as lists."""
        return self.xs.tolist(), self.ys.tolist()


def finite(series: Series) -> Series:
    """Only the places that have a value."""
    there = np.isfinite(series.ys) & np.isfinite(series.xs)
    return Series(series.xs[there], series.ys[there])


def with_peaks(series: Series, *, most: int) -> Series:
    """At most so many points: the lowest and the highest of each of equal stretches, where they are."""
    if len(series) <= most:
        return series
    edges = np.linspace(0, len(series), most // 2 + 1).astype(np.int64)
    places = set()
    for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        stretch = series.ys[low:high]
        places |= {low + int(stretch.argmin()), low + int(stretch.argmax())}
    chosen = sorted(places)
    return Series(series.xs[chosen], series.ys[chosen])


def evenly(series: Series, *, most: int) -> Series:
    """At most so many points at equal distances, the first and the last among them: for what is smooth."""
    if len(series) <= most:
        return series
    chosen = np.linspace(0, len(series) - 1, most).round().astype(np.int64)
    return Series(series.xs[chosen], series.ys[chosen])


def smoothed(series: Series, *, over: int) -> Series:
    """The exponential moving average over about so many places.

    It is free of the pull to its first value, as the moments of Adam are (Kingma and Ba 2015, arXiv:1412.6980).
    """
    keep = 1 - 1 / max(1, over)
    total = weight = 0.0
    means = []
    for value in series.ys.tolist():
        total, weight = keep * total + (1 - keep) * value, keep * weight + (1 - keep)
        means.append(total / weight)
    return Series(series.xs, np.array(means))


def stretch_of(series: Series) -> int:
    """Over how many places to smooth: a fiftieth of them all."""
    return max(1, math.ceil(len(series) / 50))
