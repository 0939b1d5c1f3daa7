"""Judges to look at: those who answer at random, and those who prefer a side whatever stands there.

Both tests are exact and one of them errs on one honest judge or more, of all that there are, with a probability of at
most `error` (Bonferroni). Nobody is left out by them: that is for a person to decide.

A side. Which answer stands on the left is drawn anew for each judge and pair, so an honest judge takes the left one
half of the time, whatever they like: a binomial test, two-sided.

At random. On a pair that others judged too, an honest judge is of their opinion about as often as they are of each
other's; who guesses is so half of the time. Fisher's exact test (1922), one-sided, of the judge's agreement with the
others against that of the others between themselves, each pair counting once. It needs three judges with pairs in
common: of two that disagree nobody can say which one guesses.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb, exp, lgamma, log

import numpy as np

from scaletrain.judge.tallies import Tallies

ERROR = 0.01


@dataclass(frozen=True)
class JudgeReport:
    """One judge: how many votes and how many of them prefer one answer, how often the left one, how fast.

    agreed of shared: how often their preference was that of most others who judged the same pair. Probabilities are
    those of the tests, 1 where there is nothing to test; `flags` says in words what is suspicious.
    """

    judge: str
    votes: int
    preferring: int
    left: int
    agreed: int
    shared: int
    seconds: float
    side_probability: float
    random_probability: float
    flags: tuple[str, ...]


def judge_reports(tallies: Tallies, *, error: float = ERROR) -> list[JudgeReport]:
    """A report on every judge, in the order of their names."""
    opinions = _opinions(tallies)
    bound = error / 2 / max(len(tallies.judges), 1)  # two tests on each judge
    reports = []
    for index, name in enumerate(tallies.judges):
        mine = tallies.judge == index
        sides = tallies.chose_left[mine & tallies.preferring]
        left, preferring = int(sides.sum()), len(sides)
        agreed, shared = _agreement(opinions, index)
        side_probability = binomial_two_sided(left, preferring)
        random_probability = fisher_less(agreed, shared, *_agreement_without(opinions, index))
        flags = []
        if side_probability < bound:
            side, often = ("left", left) if 2 * left > preferring else ("right", preferring - left)
            flags.append(f"takes the {side} answer in {often} of {preferring} votes")
        if random_probability < bound:
            flags.append(f"agrees with the others on {agreed} of {shared} pairs, as a guess would")
        reports.append(
            JudgeReport(
                judge=name,
                votes=int(mine.sum()),
                preferring=preferring,
                left=left,
                agreed=agreed,
                shared=shared,
                seconds=float(np.median(tallies.seconds[mine])),
                side_probability=side_probability,
                random_probability=random_probability,
                flags=tuple(flags),
            )
        )
    return reports


def binomial_two_sided(successes: int, number: int) -> float:
    """Probability of a count at least as far from half of `number` as this one, where each is a fair coin."""
    distance = abs(2 * successes - number)
    ways = sum(comb(number, k) for k in range(number + 1) if abs(2 * k - number) >= distance)
    return float(ways / 2**number)


def fisher_less(agreed: int, number: int, others_agreed: int, others_number: int) -> float:
    """Probability of at most `agreed` of `number`, given all that agreed of all, were they drawn from one urn."""
    total, hits = number + others_number, agreed + others_agreed
    if number == 0 or others_number == 0:
        return 1.0
    lowest = max(0, number - (total - hits))
    every = _log_comb(total, number)
    terms = (_log_comb(hits, k) + _log_comb(total - hits, number - k) - every for k in range(lowest, agreed + 1))
    return min(1.0, sum(exp(term) for term in terms))


def _opinions(tallies: Tallies) -> list[dict[int, int]]:
    """For each pair with two or more preferences: judge -> 1 (the first model) or -1."""
    found: dict[int, dict[int, int]] = {}
    for place in np.flatnonzero(tallies.preferring):
        opinion = 1 if tallies.score[place] == 1 else -1
        found.setdefault(int(tallies.pair[place]), {})[int(tallies.judge[place])] = opinion
    return [each for each in found.values() if len(each) > 1]


def _agreement(opinions: Sequence[dict[int, int]], judge: int) -> tuple[int, int]:
    """(agreed, number) over the pairs where most others prefer one answer."""
    agreed = number = 0
    for each in opinions:
        others = sum(opinion for who, opinion in each.items() if who != judge)
        if judge in each and others:
            number += 1
            agreed += (others > 0) == (each[judge] > 0)
    return agreed, number


def _agreement_without(opinions: Sequence[dict[int, int]], judge: int) -> tuple[int, int]:
    """The same between two of the others: on each pair that two or more of them judged, the first two by name."""
    agreed = number = 0
    for each in opinions:
        others = [each[who] for who in sorted(each) if who != judge]
        if len(others) > 1:
            number += 1
            agreed += others[0] == others[1]
    return agreed, number


def _log_comb(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1) if n else log(1)
