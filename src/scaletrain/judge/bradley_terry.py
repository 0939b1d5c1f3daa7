"""How strong each model is, from who was preferred to whom, with intervals. K: models. B: resamples. V: votes.

Bradley and Terry (1952): model i is preferred to j with probability 1 / (1 + exp(-(s_i - s_j))). A tie counts as half a
win for each. So that a model which always wins stays finite, each is given half a win and half a loss against an
average player; with tens of votes that is hardly felt. Intervals are percentiles of the bootstrap (Efron 1979), which
draws prompts anew with all their votes; drawing judges anew as well (Owen 2007, "The pigeonhole bootstrap", errs on the
wide side) says what other judges would have found.

Drawing anew never shows a vote that nobody cast, so the interval of a model that won each time would be a point. Each
resample therefore has, for every two models that were compared, a little of a win for either: Gamma(1/2) of a vote, as
in Jeffreys' prior (1946; Brown, Cai and DasGupta 2001, "Interval estimation for a binomial proportion").
"""

from dataclasses import dataclass

import numpy as np

from scaletrain.judge.tallies import Floats, Tallies

ELO_PER_LOGIT = 400 / np.log(10)  # Elo (1978): 400 points are odds of ten to one
AVERAGE_ELO = 1000.0
_STEPS = 60
_LONGEST_STEP = 2.0
_CONVERGED = 1e-9
_UNSEEN = 0.5  # of a vote for either of two models, on average
_BLOCK = 4_000_000  # resampled votes in memory at once


@dataclass(frozen=True)
class Interval:
    """A figure with its 95% interval."""

    value: float
    low: float
    high: float


def fit(wins_BKK: Floats) -> Floats:
    """Strengths [B, K] in logits, their mean 0, from wins of row over column [B, K, K]; the diagonal is not used."""
    wins = wins_BKK * (1 - np.eye(wins_BKK.shape[-1]))
    games = wins + wins.swapaxes(-1, -2)
    strengths = np.zeros(wins.shape[:-1])
    diagonal = np.arange(wins.shape[-1])
    for _ in range(_STEPS):  # Newton's method on a concave function
        expected = _sigmoid(strengths[..., :, None] - strengths[..., None, :])
        average = _sigmoid(strengths)
        slope = (wins - games * expected).sum(-1) + 0.5 - average
        curvature = -games * expected * (1 - expected)
        curvature[..., diagonal, diagonal] = -curvature.sum(-1) + average * (1 - average)
        step = np.linalg.solve(curvature, slope[..., None])[..., 0].clip(-_LONGEST_STEP, _LONGEST_STEP)
        strengths += step
        if np.abs(step).max(initial=0.0) < _CONVERGED:
            break
    return np.asarray(strengths - strengths.mean(-1, keepdims=True))


def wins_of(tallies: Tallies) -> Floats:
    """Wins of row over column [K, K], each pair of answers counting once."""
    return np.asarray(_resampled_wins(tallies, np.ones((1, len(tallies))))[0])


def scores(tallies: Tallies, *, resamples: int = 1000, seed: int = 0, judges_anew: bool = False) -> list[Interval]:
    """Each model's score in Elo points, 1000 being the average of the models."""
    generator = np.random.default_rng(seed)
    blocks, block = [], max(_BLOCK // max(len(tallies), 1), 1)
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        weights_BV = _draw(tallies.item, size, generator)
        if judges_anew:
            weights_BV = weights_BV * _draw(tallies.judge, size, generator)
        blocks.append(_resampled_wins(tallies, weights_BV))
    wins_KK = wins_of(tallies)
    resampled_BKK = np.concatenate(blocks)
    resampled_BKK += generator.standard_gamma(_UNSEEN, resampled_BKK.shape) * (wins_KK + wins_KK.T > 0)
    value = _elo(fit(wins_KK[None]))[0]
    low, high = np.percentile(_elo(fit(resampled_BKK)), [2.5, 97.5], axis=0)
    return [
        Interval(float(v), float(min(lo, v)), float(max(hi, v))) for v, lo, hi in zip(value, low, high, strict=True)
    ]


def expected_win_rates(elo: Floats) -> Floats:
    """How often row is preferred to column [K, K] by their scores."""
    return _sigmoid((elo[:, None] - elo[None, :]) / ELO_PER_LOGIT)


def _draw(cluster: "np.typing.NDArray[np.int64]", resamples: int, generator: np.random.Generator) -> Floats:
    """[B, V]: how often each vote's cluster (its prompt, its judge) was drawn, with replacement."""
    number = int(cluster.max(initial=-1)) + 1
    drawn = generator.multinomial(number, np.full(number, 1 / max(number, 1)), size=resamples)
    return np.asarray(drawn[:, cluster], dtype=np.float64)


def _resampled_wins(tallies: Tallies, weights_BV: Floats) -> Floats:
    """Wins [B, K, K] of votes that count by weight."""
    count = len(tallies.models)
    forward, backward = tallies.first * count + tallies.second, tallies.second * count + tallies.first
    wins_VM = np.zeros((len(tallies), count * count))
    rows = np.arange(len(tallies))
    wins_VM[rows, forward] = tallies.score * tallies.weight
    wins_VM[rows, backward] = (1 - tallies.score) * tallies.weight
    return (weights_BV @ wins_VM).reshape(-1, count, count)


def _elo(strengths: Floats) -> Floats:
    return np.asarray(AVERAGE_ELO + strengths * ELO_PER_LOGIT, dtype=np.float64)


def _sigmoid(values: Floats) -> Floats:
    return 1 / (1 + np.exp(-values))
