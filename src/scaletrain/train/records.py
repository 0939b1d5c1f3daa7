"""What rank 0 keeps of each step: a line of metrics, a line of the ledger, and the curves for TensorBoard."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

from scaletrain import attempts, storage
from scaletrain.layout import RunLayout
from scaletrain.log import get_logger
from scaletrain.metrics import RecordWriter, StepMetrics
from scaletrain.track.curves import Curves
from scaletrain.train.ledger import LedgerLine

log = get_logger(__name__)


class Records:
    """Writes a run's records off the step path; `flush` before a commit makes them as lasting as the commit.

    Nothing is uploaded any more once the attempt's claim is not the one that has its `nonce`.
    """

    def __init__(
        self,
        run: RunLayout,
        *,
        attempt: int,
        first_step: int,
        tensorboard: bool,
        nonce: str = "",
        on_lines: Callable[[Sequence[bytes]], None] | None = None,
    ) -> None:
        self._run = run
        self._scratch = TemporaryDirectory(prefix=f"scaletrain-{run.name}-")
        folder = Path(self._scratch.name)
        check = partial(attempts.check_claim, run, attempt, nonce)
        self._metrics = RecordWriter(
            run.metrics, attempt=attempt, local_folder=folder, before_upload=check, on_lines=on_lines
        )
        self._ledger = RecordWriter(run.ledger, attempt=attempt, local_folder=folder, before_upload=check)
        self._curves = Curves(folder / "tensorboard", first_step=first_step) if tensorboard else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._metrics.close()
        self._ledger.close()
        with self._drawing() as curves:
            if curves is not None:
                curves.close()
                storage.upload_folder(curves.folder, self._run.tensorboard)
        self._scratch.cleanup()

    def write(self, metrics: StepMetrics, line: LedgerLine) -> None:
        """Record one step."""
        self._ledger.write(line.record())
        self._metrics.write(metrics.record())
        with self._drawing() as curves:
            if curves is not None:
                curves.add(metrics)

    def flush(self) -> None:
        """Bring every record so far into the bucket."""
        self._ledger.flush()
        self._metrics.flush()
        with self._drawing() as curves:
            if curves is not None:
                curves.flush()
                storage.upload_folder(curves.folder, self._run.tensorboard)

    @contextmanager
    def _drawing(self) -> Iterator[Curves | None]:
        """The curves, if they are drawn; a local disk that does not take them (it is full) ends them, not the run."""
        try:
            yield self._curves
        except OSError as error:
            self._curves = None
            log.warning("no more curves for TensorBoard are drawn in this attempt: %s", error)
