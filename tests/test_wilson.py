"""wilson: an interval of a share that holds for few observations too."""

import pytest

from scaletrain.wilson import wilson_bounds


def test_known_intervals_come_out_and_nothing_seen_says_nothing() -> None:
    """As Wilson's formula gives them by hand: 0, 5 and 10 of 10, and none of none."""
    assert wilson_bounds(0, 10) == pytest.approx((0.0, 0.27753), abs=1e-5)
    assert wilson_bounds(5, 10) == pytest.approx((0.23659, 0.76341), abs=1e-5)
    assert wilson_bounds(10, 10) == pytest.approx((0.72247, 1.0), abs=1e-5)
    assert wilson_bounds(0, 0) == (0.0, 1.0)
