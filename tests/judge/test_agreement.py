"""judge.agreement: Krippendorff's alpha, against the examples he worked out himself."""

import numpy as np
import pytest

from scaletrain.judge.agreement import alpha, alpha_interval

# Krippendorff's "Computing Krippendorff's Alpha-Reliability" (2011), C: four observers, 12 units; "." is no rating.
FOUR_OBSERVERS = ("123321412...", "1233224125.3", ".3332342251.", "12332441251.")
# The computational example of Wikipedia's article on alpha: three coders, 15 units.
THREE_CODERS = (".....34121133.3", "1.213343.......", "..21344.21133.4")


def units_of(*observers: str) -> list[list[int]]:
    """What each unit was rated, as indices of the sorted categories."""
    categories = sorted(set("".join(observers)) - {"."})
    return [[categories.index(each) for each in unit if each != "."] for unit in zip(*observers, strict=True)]


def test_two_observers_and_two_categories() -> None:
    """Example A of the paper: alpha = 0.095."""
    units = units_of("0100000010", "1110010000")
    assert alpha(units, categories=2, scale="nominal") == pytest.approx(0.095, abs=5e-4)


@pytest.mark.parametrize(("scale", "expected"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_four_observers_with_missing_ratings(scale: str, expected: float) -> None:
    """Example C of the paper."""
    found = alpha(units_of(*FOUR_OBSERVERS), categories=5, scale=scale)  # type: ignore[arg-type]
    assert found == pytest.approx(expected, abs=5e-4)


@pytest.mark.parametrize(("scale", "expected"), [("nominal", 0.691), ("interval", 0.811)])
def test_three_coders_with_units_that_nobody_rated(scale: str, expected: float) -> None:
    """Wikipedia's example; a unit with fewer than two ratings does not count."""
    found = alpha(units_of(*THREE_CODERS), categories=4, scale=scale)  # type: ignore[arg-type]
    assert found == pytest.approx(expected, abs=5e-4)


def test_agreement_is_1_and_chance_is_0() -> None:
    """And where nobody rated the same unit there is none to tell."""
    generator = np.random.default_rng(0)
    assert alpha([[0, 0], [1, 1], [2, 2, 2]], categories=3, scale="ordinal") == 1
    assert alpha([[1, 1], [1, 1]], categories=3, scale="ordinal") == 1
    guessed = generator.integers(0, 3, size=(4000, 2)).tolist()
    assert alpha(guessed, categories=3, scale="nominal") == pytest.approx(0, abs=0.05)
    assert alpha([[0], [1], []], categories=2, scale="nominal") is None
    assert alpha_interval([[0], [1]], categories=2, scale="nominal") is None


def test_the_interval_is_around_the_value_and_narrows() -> None:
    """With units, not with ratings of one unit."""
    units = units_of(*FOUR_OBSERVERS)
    few = alpha_interval(units, categories=5, scale="ordinal")
    many = alpha_interval(units * 20, categories=5, scale="ordinal")
    assert few is not None and many is not None
    assert few.low < few.value < few.high
    assert many.high - many.low < (few.high - few.low) / 3
