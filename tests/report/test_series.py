"""report.series: a million values become a few hundred, and no peak is lost."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaletrain.report.series import Series, evenly, finite, smoothed, with_peaks

VALUES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=400)


def series(values: list[float]) -> Series:
    return Series(np.arange(len(values), dtype=np.float64), np.array(values))


@given(VALUES, st.integers(2, 50))
def test_the_lowest_and_the_highest_stay(values: list[float], most: int) -> None:
    """Wherever they are, at their own places."""
    short = with_peaks(series(values), most=most)
    assert len(short) <= max(most, 2)
    assert short.ys.min() == min(values) and short.ys.max() == max(values)
    assert all(values[int(x)] == y for x, y in zip(*short.points(), strict=True))
    assert (np.diff(short.xs) > 0).all()


@given(VALUES, st.integers(2, 50))
def test_the_ends_stay(values: list[float], most: int) -> None:
    """A smooth line begins and ends where the run does."""
    short = evenly(series(values), most=most)
    assert len(short) <= max(most, 1)
    assert (short.xs[0], short.xs[-1]) == (0, len(values) - 1)


def test_a_spike_in_a_million_steps_is_drawn() -> None:
    """One step of a long run that went wrong is what one looks for."""
    values = np.ones(1_000_000)
    values[700_001] = 9.0
    short = with_peaks(Series(np.arange(1e6), values), most=480)
    assert len(short) <= 480 and 700_001 in short.xs.tolist()


def test_a_mean_begins_at_the_first_value_and_follows() -> None:
    """No pull towards zero at the start; a jump is followed over about as many places."""
    mean = smoothed(series([4.0] * 50 + [2.0] * 200), over=20)
    assert mean.ys[:50].tolist() == pytest.approx([4.0] * 50)
    assert 2.6 < mean.ys[70] < 2.9 and mean.ys[-1] == pytest.approx(2.0, abs=1e-3)


def test_what_is_not_finite_is_left_out() -> None:
    """Skipped steps have no loss."""
    assert finite(series([1.0, float("nan"), float("inf"), 2.0])).points() == ([0.0, 3.0], [1.0, 2.0])
