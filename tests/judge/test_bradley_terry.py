"""judge.bradley_terry: strengths from votes, and intervals that hold what they promise."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jury import honest, made_up_items, vote_all

from scaletrain.judge.bradley_terry import AVERAGE_ELO, ELO_PER_LOGIT, expected_win_rates, fit, scores
from scaletrain.judge.tallies import Tallies, tally

STRENGTHS = {"good": 0.6, "fair": 0.1, "poor": -0.7}
SIMULATIONS = 1000


def test_expected_wins_give_the_strengths_back() -> None:
    """With votes exactly as the model has them, whatever the number of games of each two."""
    truth = np.array([0.6, 0.1, -0.7])
    games = np.array([[0, 5, 1], [5, 0, 3], [1, 3, 0]]) * 1e6
    wins = games / (1 + np.exp(truth[None, :] - truth[:, None]))
    assert fit(wins[None])[0] == pytest.approx(truth, abs=1e-5)


@given(st.lists(st.integers(0, 10_000), min_size=6, max_size=6))
def test_strengths_are_finite_and_in_order(counts: list[int]) -> None:
    """Also of a model that never lost, or never played; a model that beats another in all ways is not below it."""
    wins = np.zeros((3, 3))
    wins[np.triu_indices(3, 1)], wins[np.tril_indices(3, -1)] = counts[:3], counts[3:]
    found = fit(wins[None])[0]
    assert np.isfinite(found).all()
    assert found.mean() == pytest.approx(0, abs=1e-9)
    two = fit(np.array([[0.0, counts[0]], [counts[1], 0.0]])[None])[0]
    assert np.sign(round(two[0] - two[1], 6)) == np.sign(counts[0] - counts[1])


def test_an_unbeaten_model_stays_finite() -> None:
    """The more it won, the stronger it is."""
    few, many = (fit(np.array([[0.0, count], [0.0, 0.0]])[None])[0][0] for count in (10, 1000))
    assert 0.5 < few < many < 5


def test_a_jury_is_recovered() -> None:
    """Scores come near the strengths that the judges voted by, and expected win rates near how they vote."""
    items = made_up_items(list(STRENGTHS), 1500)
    found = scores(tally(items, vote_all(items, {"Ana": honest(STRENGTHS)}, seed=1)), resamples=200)
    elo = dict(zip(items.models, found, strict=True))
    for model, strength in STRENGTHS.items():
        assert elo[model].value == pytest.approx(1000 + ELO_PER_LOGIT * strength, abs=25)
        assert elo[model].low < elo[model].value < elo[model].high
    rates = expected_win_rates(np.array([elo[model].value for model in ("good", "poor")]))
    assert rates[0, 1] == pytest.approx(1 / (1 + np.exp(-1.3)), abs=0.03)


def test_a_pair_counts_once_however_many_judge_it() -> None:
    """Ten judges of one mind on the same pairs are no narrower than one of them."""
    items = made_up_items(["a", "b"], 60)
    one = vote_all(items, {"j0": honest({"a": 0.5, "b": 0.0})}, seed=2)
    ten = [vote.__class__(**{**vars(vote), "judge": f"j{number}"}) for vote in one for number in range(10)]
    for found, expected in zip(scores(tally(items, ten)), scores(tally(items, one)), strict=True):
        assert vars(found) == pytest.approx(vars(expected))


def test_intervals_hold_the_truth_95_times_in_100() -> None:
    """Over 1,000 made-up juries on 120 prompts with ties, for every model, within four standard errors of 95%."""
    generator = np.random.default_rng(5)
    truth = np.array([0.6, 0.1, -0.7])
    inside = np.zeros(3)
    for _ in range(SIMULATIONS):
        intervals = scores(made_up_tallies(truth, generator, prompts=120, ties=0.2), resamples=200)
        low, high = (np.array([getattr(each, end) for each in intervals]) for end in ("low", "high"))
        inside += (low <= AVERAGE_ELO + ELO_PER_LOGIT * truth) & (AVERAGE_ELO + ELO_PER_LOGIT * truth <= high)
    tolerance = 4 * np.sqrt(0.95 * 0.05 / SIMULATIONS)
    assert np.abs(inside / SIMULATIONS - 0.95).max() < tolerance, inside


def test_the_interval_of_an_unbeaten_model_is_no_point() -> None:
    """Ten wins of ten are what a model preferred in 4 of 5 has one time in ten, so its score has to be inside; and over
    200 juries of twenty votes, preferred in 9 of 10, the truth is inside 95 times in 100, within four standard errors.
    """
    wins = scores(made_up_votes(np.ones(10)))[0]
    assert wins.low < AVERAGE_ELO + ELO_PER_LOGIT * np.log(4) / 2 < wins.value <= wins.high
    generator, inside = np.random.default_rng(7), 0
    truth = AVERAGE_ELO + ELO_PER_LOGIT * np.log(9) / 2
    for _ in range(200):
        interval = scores(made_up_votes((generator.random(20) < 0.9).astype(float)), resamples=200)[0]
        inside += interval.low <= truth <= interval.high
    assert inside / 200 >= 0.95 - 4 * np.sqrt(0.95 * 0.05 / 200)


def test_with_judges_of_different_tastes_only_the_wider_interval_holds() -> None:
    """Over 300 juries of six, each drawn from a population: what all of it would say is in the interval of other judges
    at least 95 times in 100, within four standard errors; in that of the same judges it is far less often."""
    generator = np.random.default_rng(6)
    taste, juries = 0.5, 300
    everybody = (1 / (1 + np.exp(-(0.4 + taste * generator.standard_normal(1_000_000))))).mean()
    truth = AVERAGE_ELO + ELO_PER_LOGIT * np.log(everybody / (1 - everybody)) / 2
    inside = {False: 0, True: 0}
    for _ in range(juries):
        judge = np.repeat(np.arange(6), 40)
        strength = 0.4 + taste * generator.standard_normal(6)[judge]
        votes = replace(
            made_up_tallies(np.zeros(3), generator, prompts=80, ties=0),
            models=("a", "b"),
            score=(generator.random(240) < 1 / (1 + np.exp(-strength))).astype(float),
            first=np.zeros(240, dtype=np.int64),
            second=np.ones(240, dtype=np.int64),
            item=np.arange(240),
            judge=judge,
        )
        for anew in inside:
            interval = scores(votes, resamples=200, judges_anew=anew)[0]
            inside[anew] += interval.low <= truth <= interval.high
    assert inside[True] / juries >= 0.95 - 4 * np.sqrt(0.95 * 0.05 / juries)
    assert inside[False] / juries < 0.85


def made_up_votes(score: np.ndarray) -> Tallies:
    """One vote on each of some prompts, between the first two of the models below alone."""
    votes = made_up_tallies(np.zeros(3), np.random.default_rng(0), prompts=len(score), ties=0)
    chosen = (votes.first == 0) & (votes.second == 1)
    kept = {name: value[chosen] for name, value in vars(votes).items() if isinstance(value, np.ndarray)}
    return replace(votes, **{**kept, "models": ("good", "fair"), "score": score})


def made_up_tallies(truth: np.ndarray, generator: np.random.Generator, *, prompts: int, ties: float) -> Tallies:
    """Votes of one judge on every two of three models, expected to score as the strengths say, ties as halves."""
    first, second = (np.tile(each, prompts) for each in ([0, 0, 1], [1, 2, 2]))
    expected = 1 / (1 + np.exp(truth[second] - truth[first]))
    number = len(first)
    won = generator.random(number) < (expected - ties / 2) / (1 - ties)
    score = np.where(generator.random(number) < ties, 0.5, won)
    each, nothing = np.arange(number), np.zeros(number)
    return Tallies(
        models=("good", "fair", "poor"),
        judges=("Ana",),
        score=score,
        first=first,
        second=second,
        pair=each,
        item=each // 3,
        judge=np.zeros(number, dtype=np.int64),
        weight=np.ones(number),
        chose_left=nothing,
        both_bad=nothing > 0,
        seconds=nothing,
        earliest=nothing == 0,
    )
