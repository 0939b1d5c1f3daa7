"""schedule: the learning rate is a function of the step, with the usual shapes."""

import pytest

from scaletrain.config import TrainSection
from scaletrain.train.schedule import learning_rate


def rates(**fields: object) -> list[float]:
    train = TrainSection.model_validate({"steps": 10, "learning_rate": 1.0, **fields})
    return [learning_rate(train, step, 10) for step in range(1, 11)]


def test_warm_up_is_linear_and_reaches_the_peak() -> None:
    """The first update already learns, the last of the warm-up at full rate."""
    assert rates(schedule="constant", warmup_steps=4)[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_decay_falls_from_the_peak_and_never_below_its_floor(schedule: str) -> None:
    """Right after the warm-up the rate is the peak; from there on it only falls."""
    found = rates(schedule=schedule, warmup_steps=2, min_learning_rate_ratio=0.1)
    assert found[2] == 1.0
    assert found[2:] == sorted(found[2:], reverse=True)
    assert 0.1 < found[-1] < 0.3


def test_linear_decay_is_even() -> None:
    """Each update takes off the same."""
    assert rates(schedule="linear") == pytest.approx([1 - step / 10 for step in range(10)])
