"""Is the model as sure as it is right: the likeliest next token's probability against how often that token comes.

The expected calibration error of Naeini et al. 2015 and Guo et al. 2017 (arXiv:1706.04599), over 15 bins of equal
width. What is counted is added up, so memory does not grow with the text.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BINS = 15


@dataclass(frozen=True)
class Calibration:
    """Sums by bin, each of shape [BINS]: tokens, their probabilities, and how many of them came."""

    count: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float64]
    correct: npt.NDArray[np.int64]

    def __add__(self, other: "Calibration") -> "Calibration":
        return Calibration(self.count + other.count, self.confidence + other.confidence, self.correct + other.correct)

    @property
    def tokens(self) -> int:
        return int(self.count.sum())

    @property
    def error(self) -> float:
        """The mean distance between confidence and accuracy of a token's bin; 0 is perfect."""
        return float(np.abs(self.confidence - self.correct).sum() / max(self.tokens, 1))

    @property
    def accuracy(self) -> float:
        """How often the likeliest token is the one that comes."""
        return float(self.correct.sum() / max(self.tokens, 1))

    def table(self) -> list[dict[str, float]]:
        """The reliability table: of each bin that has tokens its bounds, mean confidence and accuracy."""
        return [
            {
                "from": number / BINS,
                "to": (number + 1) / BINS,
                "tokens": int(self.count[number]),
                "confidence": float(self.confidence[number] / self.count[number]),
                "accuracy": float(self.correct[number] / self.count[number]),
            }
            for number in range(BINS)
            if self.count[number]
        ]

    def record(self) -> dict[str, object]:
        """The figures as they stand in reports."""
        return {
            "expected_calibration_error": self.error,
            "accuracy": self.accuracy,
            "tokens": self.tokens,
            "bins": self.table(),
        }


def no_calibration() -> Calibration:
    """The sums of nothing."""
    return Calibration(np.zeros(BINS, np.int64), np.zeros(BINS), np.zeros(BINS, np.int64))


def calibration(confidence: npt.NDArray[np.floating], correct: npt.NDArray[np.bool_]) -> Calibration:
    """Sort tokens into bins; both arrays have shape [tokens]."""
    bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    return Calibration(
        count=np.bincount(bins, minlength=BINS).astype(np.int64),
        confidence=np.bincount(bins, weights=confidence, minlength=BINS).astype(np.float64),
        correct=np.bincount(bins[correct], minlength=BINS).astype(np.int64),
    )
