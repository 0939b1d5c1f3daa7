"""judge.stopping: a decision that may be looked for after every vote."""

from math import exp, factorial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jury import guessing, honest, made_up_items, vote_all

from scaletrain.judge.items import Items
from scaletrain.judge.stopping import Decision, decide, log_evidence
from scaletrain.judge.tallies import tally
from scaletrain.judge.votes import Vote

SIMULATIONS, LOOKS, ERROR = 1000, 2000, 0.05


def decision(wins: int, losses: int, ties: int = 0, *, error: float = ERROR) -> Decision:
    """The decision on as many votes of one judge."""
    items = made_up_items(["a", "b"], wins + losses + ties)
    choices = ["left"] * wins + ["right"] * losses + ["tie"] * ties
    votes = [
        Vote("Ana", pair.id, pair.item.id, "a", "b", choice)  # type: ignore[arg-type]
        for pair, choice in zip(items.pairs.values(), choices, strict=True)
    ]
    return decide(tally(items, votes), 0, 1, error=error)


def crossed(share: float, *, seed: int, ties: float = 0.2) -> np.ndarray:
    """For each of 1,000 judgings, looked at after each of 2,000 votes: the first look at which it is decided, or -1."""
    generator = np.random.default_rng(seed)
    tied = generator.random((SIMULATIONS, LOOKS)) < ties
    won = (generator.random((SIMULATIONS, LOOKS)) < share) & ~tied
    wins, losses = won.cumsum(1), (~won & ~tied).cumsum(1)
    log_factorial = np.concatenate([[0.0], np.log(np.arange(1, LOOKS + 2)).cumsum()])
    evidence = (
        log_factorial[wins] + log_factorial[losses] - log_factorial[wins + losses + 1] + (wins + losses) * np.log(2)
    )
    decided = evidence >= np.log(1 / ERROR)
    return np.where(decided.any(1), decided.argmax(1), -1)


def test_the_evidence_is_the_formula() -> None:
    """2^n w! l! / (n + 1)!"""
    for wins, losses in ((0, 0), (1, 0), (7, 3), (20, 41)):
        number = wins + losses
        formula = 2**number * factorial(wins) * factorial(losses) / factorial(number + 1)
        assert exp(log_evidence(wins, losses)) == pytest.approx(formula)


@given(st.integers(0, 300), st.integers(0, 300))
def test_the_evidence_is_a_martingale(wins: int, losses: int) -> None:
    """Where both are as good, the next vote changes it by nothing on average: that is why looking is free."""
    after = (exp(log_evidence(wins + 1, losses)) + exp(log_evidence(wins, losses + 1))) / 2
    assert after == pytest.approx(exp(log_evidence(wins, losses)), rel=1e-9)


def test_looking_after_every_vote_errs_no_more_than_it_says() -> None:
    """1,000 judgings of two equal models, 2,000 looks each: at most 5% are ever decided, within the simulation's error.

    An ordinary 95% test at each look errs more than three times as often; so this is no accident of a mild rule.
    """
    errors = (crossed(0.5, seed=3) >= 0).mean()
    assert errors <= ERROR + 3 * np.sqrt(ERROR * (1 - ERROR) / SIMULATIONS)
    generator = np.random.default_rng(3)
    steps = np.where(generator.random((SIMULATIONS, LOOKS)) < 0.5, 1, -1)
    naive = np.abs(steps.cumsum(1)) > 1.96 * np.sqrt(np.arange(1, LOOKS + 1))
    assert naive[:, 20:].any(1).mean() > 3 * ERROR


def test_a_difference_is_found() -> None:
    """A model that wins 65% of what is not a tie is found in nearly all of 1,000 judgings, in some 100 votes."""
    looks = crossed(0.65, seed=4)
    assert (looks >= 0).mean() > 0.99
    assert 50 < np.median(looks[looks >= 0]) < 200


def test_the_interval_holds_at_every_look() -> None:
    """The share stays inside at all of 300 looks in at least 95% of 1,000 judgings, within the simulation's error."""
    generator = np.random.default_rng(6)
    share, inside = 0.7, 0
    wins = (generator.random((SIMULATIONS, 300)) < share).cumsum(1)
    bound = np.log(1 / ERROR)
    for row in wins:
        inside += all(
            log_evidence(int(row[look]), look + 1 - int(row[look]), share) < bound for look in range(0, 300, 7)
        )
    assert inside / SIMULATIONS >= 1 - ERROR - 3 * np.sqrt(ERROR * (1 - ERROR) / SIMULATIONS)


def test_the_interval_is_those_shares_that_are_not_refuted() -> None:
    """Its ends are where the evidence against a share reaches the bound; half is outside once it is decided."""
    found = decision(40, 15)
    for end in (found.low, found.high):
        assert log_evidence(40, 15, end) == pytest.approx(np.log(20), abs=1e-6)
    assert found.winner == "a" and found.low > 0.5
    assert decision(0, 0, 1).low == 0 and decision(0, 0, 1).high == 1


def test_about_as_many_more_votes_as_it_says_decide_it() -> None:
    """When that many more come in the same proportion; nothing more is needed once it is decided."""
    found = decision(14, 6, 5)
    assert found.winner is None and found.more_votes is not None
    grown = 1 + found.more_votes / 25
    later = decision(round(14 * grown) + 1, round(6 * grown), round(5 * grown))
    assert later.winner == "a" or (later.more_votes is not None and later.more_votes < found.more_votes / 2)
    assert decision(60, 20).more_votes == 0
    assert decision(15, 15).more_votes is None


def test_ties_decide_nothing() -> None:
    """A thousand of them leave it open."""
    assert decision(0, 0, 1000).winner is None
    assert decision(5, 2, 100).evidence == pytest.approx(decision(5, 2).evidence)


def test_the_winner_is_who_won() -> None:
    """On either side."""
    assert decision(40, 5).winner == "a"
    assert decision(5, 40).winner == "b"


def test_only_the_earliest_vote_on_a_pair_counts() -> None:
    """Later ones on the same answers are no independent news."""
    items: Items = made_up_items(["a", "b"], 200)
    first = vote_all(items, {"Ana": honest({"a": 0.8, "b": 0.0})}, seed=0)
    more = vote_all(items, {f"judge {number}": guessing for number in range(5)}, seed=1)
    assert decide(tally(items, [*first, *more]), 0, 1, error=ERROR) == decide(tally(items, first), 0, 1, error=ERROR)
