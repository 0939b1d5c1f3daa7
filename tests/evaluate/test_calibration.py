"""Calibration: a model that is as sure as it is right has no error, and sums are those of the whole."""

import numpy as np
import pytest

from scaletrain.evaluate.calibration import BINS, calibration, no_calibration


def test_a_model_that_is_right_as_often_as_it_says_has_no_error() -> None:
    """Of ten tokens said to be 70% likely, seven came."""
    found = calibration(np.full(10, 0.7), np.arange(10) < 7)
    assert found.error == pytest.approx(0)
    assert found.accuracy == 0.7
    assert [(row["tokens"], round(row["confidence"], 6), row["accuracy"]) for row in found.table()] == [(10, 0.7, 0.7)]


def test_the_error_is_the_mean_distance_over_tokens() -> None:
    """Three tokens said to be certain of which none came, and one that is right: three quarters."""
    assert calibration(np.ones(4), np.array([False, False, False, True])).error == pytest.approx(0.75)


def test_parts_add_up_to_the_whole() -> None:
    """However tokens are dealt out, the sums are those of all of them."""
    generator = np.random.default_rng(5)
    confidence, correct = generator.random(1000), generator.random(1000) < 0.4
    whole = calibration(confidence, correct)
    parts = sum((calibration(confidence[n::3], correct[n::3]) for n in range(3)), no_calibration())
    assert parts.count.tolist() == whole.count.tolist()
    assert parts.error == pytest.approx(whole.error)
    assert (whole.tokens, len(whole.count)) == (1000, BINS)
