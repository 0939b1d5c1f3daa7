"""Curves for TensorBoard, which rank 0 writes beside a run's metrics."""

import time
from pathlib import Path

from scaletrain.metrics import StepMetrics

_CURVES = (
    *("loss", "learning_rate", "grad_norm", "tokens_per_s", "mfu", "validation_loss", "validation_perplexity"),
    *("reward_margin", "pair_accuracy", "validation_reward_margin", "validation_pair_accuracy"),
)


class Curves:
    """TensorBoard event files in a local folder; their own writer queues events and writes them in a thread.

    `first_step` is the first that will be added: what earlier attempts wrote of it and of later ones is hidden from
    then on, so that a step that is done again is there once.
    """

    def __init__(self, folder: Path, *, first_step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self.folder = folder
        self._writer = EventFileWriter(str(folder))
        started = SessionLog(status=SessionLog.START)
        self._writer.add_event(Event(step=first_step, wall_time=time.time(), session_log=started))

    def add(self, metrics: StepMetrics) -> None:
        """Add one step to every curve that it has a value for."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [
            Summary.Value(tag=name, simple_value=value)
            for name in _CURVES
            if (value := getattr(metrics, name)) is not None
        ]
        self._writer.add_event(Event(step=metrics.step, wall_time=time.time(), summary=Summary(value=values)))

    def flush(self) -> None:
        """Bring every event into the files."""
        self._writer.flush()

    def close(self) -> None:
        """End the writer's thread."""
        self._writer.close()
