"""When is it decided: a test that may be looked at after every vote, and how many more votes it is likely to need.

For two models. Of each pair the earliest vote counts, since later ones by other judges are no independent news; ties
and "both bad" say nothing on who is better. Of w votes for A and l for B, a Bayes factor of "A is preferred with some
probability, all being equally likely" against "with probability 1/2" is 2^(w+l) B(w+1, l+1). Where both models are
equally good it is a martingale, and by Ville's inequality it ever reaches 1/error with a probability of at most
`error`, whenever and however often one looks (Robbins 1970, "Statistical methods related to the law of the iterated
logarithm"; Howard, Ramdas, McAuliffe and Sekhon 2021, arXiv:1810.08240). Looking again and again at an ordinary 95%
interval errs far more often. Inverted, the same gives an interval that holds at every look.
"""

from dataclasses import dataclass
from math import exp, inf, isinf, lgamma, log

from scaletrain.judge.tallies import Tallies

LONGEST = 5000  # votes that anybody would still cast
_HALVINGS = 60


@dataclass(frozen=True)
class Decision:
    """How far a comparison of two models is.

    evidence: the Bayes factor against their being equal; needed: what decides it. wins, losses, ties: of the first, by
    the earliest vote on each pair. low, high: its share of the votes that prefer one, in an interval that holds at
    every look. more_votes: about how many are missing, on pairs that nobody has judged yet, should they come as they
    did so far; None: more than 5,000. pairs_left: how many such pairs there are.
    """

    first: str
    second: str
    wins: int
    losses: int
    ties: int
    evidence: float
    needed: float
    low: float
    high: float
    more_votes: int | None
    pairs_left: int

    @property
    def winner(self) -> str | None:
        """The better model, or None as long as it is not decided."""
        if self.evidence < self.needed:
            return None
        return self.first if self.wins > self.losses else self.second


def decide(tallies: Tallies, first: int, second: int, *, error: float, pairs_left: int = 0) -> Decision:
    """Say whether one of two models is better; `error`: the chance of ever saying so where none is."""
    chosen, scores = tallies.between(first, second)
    scores = scores[tallies.earliest[chosen]]
    wins, losses = int((scores == 1).sum()), int((scores == 0).sum())
    ties = len(scores) - wins - losses
    low, high = _interval(wins, losses, error=error)
    return Decision(
        first=tallies.models[first],
        second=tallies.models[second],
        wins=wins,
        losses=losses,
        ties=ties,
        evidence=exp(min(log_evidence(wins, losses), 700.0)),
        needed=1 / error,
        low=low,
        high=high,
        more_votes=_more_votes(wins, losses, ties, error=error),
        pairs_left=pairs_left,
    )


def log_evidence(wins: float, losses: float, share: float = 0.5) -> float:
    """Logarithm of the Bayes factor against the first being preferred with probability `share`."""
    likelihood = _times_log(wins, share) + _times_log(losses, 1 - share)
    return inf if isinf(likelihood) else _log_beta(wins + 1, losses + 1) - likelihood


def _interval(wins: int, losses: int, *, error: float) -> tuple[float, float]:
    """All shares that the votes so far do not speak against."""
    bound, best = -log(error), wins / (wins + losses) if wins + losses else 0.5

    def edge(outside: float) -> float:
        inside = best
        if log_evidence(wins, losses, outside) < bound:
            return outside
        for _ in range(_HALVINGS):
            middle = (inside + outside) / 2
            if log_evidence(wins, losses, middle) < bound:
                inside = middle
            else:
                outside = middle
        return outside

    return edge(0.0), edge(1.0)


def _more_votes(wins: int, losses: int, ties: int, *, error: float) -> int | None:
    """About how many more votes decide it; as a start, one win and one loss are added to what was seen."""
    if log_evidence(wins, losses) >= -log(error):
        return 0
    total = wins + losses + ties
    winning = (max(wins, losses) + 1) / (wins + losses + 2)
    preferring = (wins + losses + 1) / (total + 1)

    def decided(more: int) -> bool:
        votes = more * preferring
        return log_evidence(max(wins, losses) + votes * winning, min(wins, losses) + votes * (1 - winning)) >= -log(
            error
        )

    if not decided(LONGEST):
        return None
    low, high = 0, LONGEST
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decided(middle) else (middle, high)
    return high


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)


def _times_log(count: float, share: float) -> float:
    if count == 0:
        return 0.0
    return count * log(share) if share > 0 else -inf
