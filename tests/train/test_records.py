"""records: the curves are a convenience, the metrics and the ledger are not."""

from pathlib import Path

import pytest

from scaletrain import storage
from scaletrain.layout import RunLayout
from scaletrain.metrics import StepMetrics, read_records
from scaletrain.track.curves import Curves
from scaletrain.train.ledger import GENESIS, LedgerLine
from scaletrain.train.records import Records


def test_curves_that_cannot_be_written_end_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A local disk that is full: no more curves, and every line of metrics and of the ledger is kept."""

    def flush(curves: Curves) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Curves, "flush", flush)
    run = RunLayout(str(tmp_path), "run")
    with Records(run, attempt=1, first_step=1, tensorboard=True) as records:
        for step in (1, 2):
            metrics = StepMetrics(step, 2.0, 1e-3, 0.5, 8, 100, 200, 50.0, 4.0, 0.0, 0.0, 2, 1 << 20)
            records.write(metrics, LedgerLine(step, (step,), GENESIS))
            records.flush()
    assert [line["step"] for line in read_records(run.metrics)] == [1, 2]
    assert [line["step"] for line in read_records(run.ledger)] == [1, 2]
    assert list(storage.list_objects(run.tensorboard)) == []
