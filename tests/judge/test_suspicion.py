"""judge.suspicion: judges who guess or prefer a side are marked, honest ones hardly ever."""

from itertools import product
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jury import guessing, honest, leftish, made_up_items, vote_all

from scaletrain.judge.suspicion import binomial_two_sided, fisher_less, judge_reports
from scaletrain.judge.tallies import tally

STRENGTHS = {"good": 1.2, "poor": -1.2}
SIMULATIONS, ERROR = 300, 0.05


def marked(judges: dict[str, object], *, seed: int, count: int = 80, error: float = 0.01) -> set[str]:
    items = made_up_items(list(STRENGTHS), count)
    votes = vote_all(items, judges, seed=seed)  # type: ignore[arg-type]
    return {report.judge for report in judge_reports(tally(items, votes), error=error) if report.flags}


def test_a_judge_who_guesses_is_marked() -> None:
    """Among four who look; and only this one."""
    judges = {f"judge {number}": honest(STRENGTHS) for number in range(4)} | {"guess": guessing}
    assert marked(judges, seed=0) == {"guess"}


def test_a_judge_who_prefers_a_side_is_marked() -> None:
    """Also when alone, with the side and how often."""
    assert marked({"lefty": leftish}, seed=0) == {"lefty"}
    items = made_up_items(list(STRENGTHS), 80)
    (report,) = judge_reports(tally(items, vote_all(items, {"lefty": leftish}, seed=0)))
    assert report.flags[0].startswith(f"takes the left answer in {report.left} of 80 votes")


def test_of_two_that_disagree_nobody_is_said_to_guess() -> None:
    """It cannot be known which of them does."""
    assert marked({"Ana": honest(STRENGTHS), "guess": guessing}, seed=1) == set()


def test_honest_juries_are_left_alone() -> None:
    """Of 300 juries of five honest judges, some of whose pairs are shared, at most 5% have anybody marked."""
    judges = {f"judge {number}": honest(STRENGTHS, ties=0.1) for number in range(5)}
    items = made_up_items(list(STRENGTHS), 60)
    wrong = 0
    for seed in range(SIMULATIONS):
        votes = vote_all(items, judges, seed=seed, share=0.6)  # type: ignore[arg-type]
        wrong += any(report.flags for report in judge_reports(tally(items, votes), error=ERROR))
    assert wrong / SIMULATIONS <= ERROR + 3 * np.sqrt(ERROR * (1 - ERROR) / SIMULATIONS)


def test_without_anything_to_test_nothing_is_suspicious() -> None:
    """One vote is none to judge a judge by."""
    assert marked({"Ana": honest(STRENGTHS)}, seed=0, count=1) == set()
    assert fisher_less(0, 0, 5, 9) == fisher_less(3, 5, 0, 0) == 1


@given(st.integers(0, 12))
def test_the_binomial_test_counts_coins(number: int) -> None:
    """Against all ways in which as many coins can fall."""
    falls = [sum(coins) for coins in product((0, 1), repeat=number)]
    for seen in range(number + 1):
        as_far = sum(abs(fall - number / 2) >= abs(seen - number / 2) for fall in falls)
        assert binomial_two_sided(seen, number) == pytest.approx(as_far / 2**number)


@given(st.integers(1, 30), st.integers(1, 30), st.data())
def test_fishers_test_counts_draws(number: int, others: int, data: st.DataObject) -> None:
    """Against the hypergeometric distribution in whole numbers."""
    agreed, others_agreed = data.draw(st.integers(0, number)), data.draw(st.integers(0, others))
    hits = agreed + others_agreed
    ways = sum(comb(hits, k) * comb(number + others - hits, number - k) for k in range(agreed + 1))
    assert fisher_less(agreed, number, others_agreed, others) == pytest.approx(ways / comb(number + others, number))
