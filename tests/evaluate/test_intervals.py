"""Intervals and the paired test keep what they promise: 95% cover, and 5% false alarms."""

import numpy as np
import pytest

from scaletrain.evaluate.intervals import paired_p, ratio_interval


def test_the_interval_of_a_ratio_covers_the_truth_about_as_often_as_it_says() -> None:
    """Of 200 samples of 60 conversations, some 95% of the intervals hold the true ratio."""
    generator, covered = np.random.default_rng(3), 0
    for _ in range(200):
        sizes = generator.integers(1, 20, size=60).astype(np.float64)
        low, high = ratio_interval(sizes * generator.gamma(2.0, 1.0, size=60), sizes)
        covered += low <= 2.0 <= high
    assert 0.88 * 200 <= covered <= 0.99 * 200


def test_the_paired_test_gives_false_alarms_as_often_as_it_says() -> None:
    """Of 200 pairs of equal models, some 5% look different at p < 0.05."""
    generator = np.random.default_rng(4)
    alarms = sum(paired_p(generator.normal(size=12)) < 0.05 for _ in range(200))
    assert 1 <= alarms <= 22


def test_the_test_of_few_conversations_is_exact_enough() -> None:
    """Of five conversations that all gained, the two signs that are all alike are 2 of 32."""
    assert paired_p(np.array([-1.0, -2.0, -1.5, -1.0, -3.0])) == pytest.approx(2 / 32, abs=0.01)
