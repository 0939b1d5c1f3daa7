"""Rows of metrics as a run writes them, in memory and in a bucket."""

from collections.abc import Iterable
from pathlib import Path

from scaletrain import attempts
from scaletrain.layout import RunLayout
from scaletrain.metrics import RecordWriter, StepMetrics
from scaletrain.track.feed import Row


def metrics(step: int, *, loss: float | None = None) -> StepMetrics:
    """What a step of a run was; its loss is 1/step unless it is given."""
    return StepMetrics(
        step=step,
        loss=1 / step if loss is None else loss,
        learning_rate=1e-3,
        grad_norm=0.5,
        samples_seen=4 * step,
        supervised_tokens=60,
        tokens=100,
        tokens_per_s=200.0,
        step_s=0.5,
        data_wait_s=0.1,
        checkpoint_stall_s=0.0,
        world_size=2,
        memory_bytes=1_000_000,
    )


def rows(steps: Iterable[int]) -> list[Row]:
    return [metrics(step).record() for step in steps]


def store(run: RunLayout, folder: Path, steps: Iterable[int], *, attempt: int = 1, goes_on_from: int = 0) -> None:
    """Put an attempt and its rows into the bucket, as rank 0 does."""
    attempts.begin(run, attempt, goes_on_from)
    writer = RecordWriter(run.metrics, attempt=attempt, local_folder=folder)
    for step in steps:
        writer.write(metrics(step).record())
    writer.close()
