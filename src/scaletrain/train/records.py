"""What rank 0 keeps of each step: a line of metrics, a line of the ledger, and the curves for TensorBoard."""

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

from scaletrain import storage
from scaletrain.layout import RunLayout
from scaletrain.metrics import RecordWriter, StepMetrics
from scaletrain.track.curves import Curves
from scaletrain.train.ledger import LedgerLine


class Records:
    """Writes a run's records off the step path; `flush` before a commit makes them as lasting as the commit."""

    def __init__(
        self,
        run: RunLayout,
        *,
        attempt: int,
        first_step: int,
        tensorboard: bool,
        on_lines: Callable[[Sequence[bytes]], None] | None = None,
    ) -> None:
        self._run = run
        self._scratch = TemporaryDirectory(prefix=f"scaletrain-{run.name}-")
        folder = Path(self._scratch.name)
        self._metrics = RecordWriter(run.metrics, attempt=attempt, local_folder=folder, on_lines=on_lines)
        self._ledger = RecordWriter(run.ledger, attempt=attempt, local_folder=folder)
        self._curves = Curves(folder / "tensorboard", first_step=first_step) if tensorboard else None

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
