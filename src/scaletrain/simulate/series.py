"""A quantity that changes from time to time, as a price, and begins anew after its last stretch."""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise


class Series:
    """Constant from each of `starts_s` (ascending, the first is 0) to the next one; repeated after `length_s`.

    Lookups take the logarithm of the number of stretches; values are not negative.
    """

    def __init__(self, starts_s: Sequence[float], values: Sequence[float], length_s: float) -> None:
        self._starts, self._values, self._length = list(starts_s), list(values), length_s
        lengths = [end - start for start, end in pairwise([*self._starts, length_s])]
        products = [value * each for value, each in zip(self._values, lengths, strict=True)]
        self._sums = [0.0, *accumulate(products)]  # up to each start, and the end

    @classmethod
    def constant(cls, value: float) -> "Series":
        return cls([0.0], [value], 1.0)

    @property
    def is_constant(self) -> bool:
        return len(self._values) == 1

    @property
    def length_s(self) -> float:
        return self._length

    @property
    def mean(self) -> float:
        return self._sums[-1] / self._length

    def times(self, factor: float) -> "Series":
        """Every value times a number."""
        return Series(self._starts, [factor * value for value in self._values], self._length)

    def at(self, time_s: float) -> float:
        """The value at a time."""
        if self.is_constant:
            return self._values[0]
        return self._values[bisect_right(self._starts, time_s % self._length) - 1]

    def integral(self, time_s: float) -> float:
        """The sum of value times seconds from 0 to a time."""
        if self.is_constant:
            return self._values[0] * time_s
        whole, rest = divmod(time_s, self._length)
        place = bisect_right(self._starts, rest) - 1
        return whole * self._sums[-1] + self._sums[place] + self._values[place] * (rest - self._starts[place])

    def when(self, integral: float) -> float:
        """The first time at which the integral has grown to this; infinite where it never does."""
        total = self._sums[-1]
        if total <= 0:
            return math.inf
        whole, rest = divmod(integral, total)
        place = min(bisect_right(self._sums, rest) - 1, len(self._values) - 1)
        return whole * self._length + self._starts[place] + (rest - self._sums[place]) / self._values[place]

    def next_below(self, time_s: float, level: float) -> float:
        """The first time from `time_s` on at which the value is below a level; infinite where it never is."""
        return self._next(time_s, lambda value: value < level)

    def next_from(self, time_s: float, level: float) -> float:
        """The first time from `time_s` on at which the value is at least that high; infinite where it never is."""
        return self._next(time_s, lambda value: value >= level)

    def _next(self, time_s: float, holds: Callable[[float], bool]) -> float:
        whole, rest = divmod(time_s, self._length)
        place, count = bisect_right(self._starts, rest) - 1, len(self._values)
        if holds(self._values[place]):
            return time_s
        for ahead in range(place + 1, place + count + 1):
            if holds(self._values[ahead % count]):
                return (whole + ahead // count) * self._length + self._starts[ahead % count]
        return math.inf
