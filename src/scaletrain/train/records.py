"""What rank 0 keeps of each step: a line of metrics, a line of the ledger, and the curves for TensorBoard."""

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

from scaletrain import storage
from scaletrain.layout import RunLayout
from scaletrain.metrics import RecordWriter, StepMetrics
from scaletrain.train.ledger import LedgerLine

_CURVES = ("loss", "learning_rate", "grad_norm", "tokens_per_s", "mfu", "validation_loss", "validation_perplexity")


class Records:
    """Writes a run's records off the step path; `flush` before a commit makes them as lasting as the commit."""

    def __init__(
        self,
        run: RunLayout,
        *,
        attempt: int,
        tensorboard: bool,
        on_lines: Callable[[Sequence[bytes]], None] | None = None,
    ) -> None:
        self._run = run
        self._scratch = TemporaryDirectory(prefix=f"scaletrain-{run.name}-")
        folder = Path(self._scratch.name)
        self._metrics = RecordWriter(run.metrics, attempt=attempt, local_folder=folder, on_lines=on_lines)
        self._ledger = RecordWriter(run.ledger, attempt=attempt, local_folder=folder)
        self._curves = _Curves(folder / "tensorboard") if tensorboard else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._metrics.close()
        self._ledger.close()
        if self._curves is not None:
            self._curves.close()
            storage.upload_folder(self._curves.folder, self._run.tensorboard)
        self._scratch.cleanup()

    def write(self, metrics: StepMetrics, line: LedgerLine) -> None:
        """Record one step."""
        self._ledger.write(line.record())
        self._metrics.write(metrics.record())
        if self._curves is not None:
            self._curves.add(metrics)

    def flush(self) -> None:
        """Bring every record so far into the bucket."""
        self._ledger.flush()
        self._metrics.flush()
        if self._curves is not None:
            self._curves.flush()
            storage.upload_folder(self._curves.folder, self._run.tensorboard)


class _Curves:
    """TensorBoard event files; its own writer queues events and writes them in a thread."""

    def __init__(self, folder: Path) -> None:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self.folder = folder
        self._writer = EventFileWriter(str(folder))

    def add(self, metrics: StepMetrics) -> None:
        import time

        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [
            Summary.Value(tag=name, simple_value=value)
            for name in _CURVES
            if (value := getattr(metrics, name)) is not None
        ]
        self._writer.add_event(Event(step=metrics.step, wall_time=time.time(), summary=Summary(value=values)))

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
