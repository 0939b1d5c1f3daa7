"""The Universal Scalability Law, fitted to measured throughputs: what holds scaling back, and what more workers give.

Throughput at N workers is X(N) = rate N / (1 + contention (N - 1) + coherency N (N - 1)); with coherency 0 that is
Amdahl's law (Amdahl 1967, AFIPS 30:483; Gunther 1993, CMG; Gunther 2008, arXiv:0808.1431).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

FEWEST_POINTS = 4


@dataclass(frozen=True)
class Law:
    """What was fitted: `rate` in tokens/s of one worker, the share that is serial, the cost of each pair of workers.

    `error` is the root mean square of the fit's relative errors. `worst_prediction` is the largest relative error that
    it makes at a point when fitted to the others alone: what to expect of its predictions, at the least.
    """

    rate: float
    contention: float
    coherency: float
    error: float
    worst_prediction: float

    @property
    def name(self) -> Literal["Amdahl's law", "Universal Scalability Law"]:
        return "Universal Scalability Law" if self.coherency > 0 else "Amdahl's law"

    @property
    def peak_workers(self) -> float:
        """Beyond so many workers more of them make it slower; infinite where that never comes."""
        if self.coherency == 0:
            return math.inf
        return max(1.0, math.sqrt(max(0.0, 1 - self.contention) / self.coherency))

    def throughput(self, workers: float) -> float:
        """Tokens/s at a number of workers."""
        return float(self.rate * workers / _loss(workers, self.contention, self.coherency))


def fit(throughputs: Mapping[int, float]) -> Law | None:
    """Fit the law to tokens/s by the number of workers; None where there are fewer than four points."""
    if len(throughputs) < FEWEST_POINTS:
        return None
    rate, contention, coherency = _fitted(throughputs)
    errors = [_relative_error((rate, contention, coherency), *point) for point in throughputs.items()]
    left_out = [
        _relative_error(_fitted({n: value for n, value in throughputs.items() if n != workers}), workers, measured)
        for workers, measured in throughputs.items()
    ]
    return Law(
        rate=rate,
        contention=contention,
        coherency=coherency,
        error=math.sqrt(sum(error**2 for error in errors) / len(errors)),
        worst_prediction=max(map(abs, left_out)),
    )


def _fitted(throughputs: Mapping[int, float]) -> tuple[float, float, float]:
    """The rate, contention and coherency, neither below 0, with the least sum of squared relative errors.

    N / X(N) is linear in 1 / rate, contention / rate and coherency / rate. A parameter that would come out negative is
    0 at the optimum, so every choice of parameters that are 0 is tried.
    """
    workers = np.array(list(throughputs), dtype=float)
    measured = workers / np.array(list(throughputs.values()))
    columns = np.stack([np.ones_like(workers), workers - 1, workers * (workers - 1)], axis=1) / measured[:, None]
    best, least = (1.0, 0.0, 0.0), math.inf
    for used in ([0], [0, 1], [0, 2], [0, 1, 2]):
        found = np.zeros(3)
        found[used] = np.linalg.lstsq(columns[:, used], np.ones_like(workers), rcond=None)[0]
        error = float(np.sum((columns @ found - 1) ** 2))
        if found[0] > 0 and np.all(found >= 0) and error < least:
            best, least = (1 / found[0], found[1] / found[0], found[2] / found[0]), error
    rate, contention, coherency = map(float, best)
    return rate, contention, coherency


def _relative_error(law: tuple[float, float, float], workers: int, measured: float) -> float:
    rate, contention, coherency = law
    return rate * workers / _loss(workers, contention, coherency) / measured - 1


def _loss(workers: float, contention: float, coherency: float) -> float:
    return 1 + contention * (workers - 1) + coherency * workers * (workers - 1)
