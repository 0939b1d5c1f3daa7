"""The learning rate as a function of the step alone, so that a resumed run needs no scheduler state."""

import math

from scaletrain.config import TrainSection


def learning_rate(train: TrainSection, step: int, total_steps: int) -> float:
    """The learning rate of update `step` (1-based): linear warm-up, then constant, linear or cosine decay.

    Decay begins at the peak and reaches `min_learning_rate_ratio` of it one step after the last, so that the last
    update still learns (cosine: Loshchilov and Hutter 2017, arXiv:1608.03983, without restarts).
    """
    if step <= train.warmup_steps:
        return train.learning_rate * step / train.warmup_steps
    if train.schedule == "constant":
        return train.learning_rate
    span = max(1, total_steps - train.warmup_steps)
    progress = min(1.0, (step - 1 - train.warmup_steps) / span)
    decay = 1.0 - progress if train.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))
    floor = train.min_learning_rate_ratio
    return train.learning_rate * (floor + (1.0 - floor) * decay)
