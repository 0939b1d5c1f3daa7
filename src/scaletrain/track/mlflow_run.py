"""A run in MLflow: one run there for one run here, however many commands and attempts it takes.

Its id is kept in the bucket. A row goes there in one transaction, together with the metric `step`, whose newest value
tells what the run there has, after any crash.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from scaletrain.config_track import MlflowSection
from scaletrain.layout import RunLayout
from scaletrain.log import get_logger
from scaletrain.track.feed import Outcome, Row, numbers_of, step_of
from scaletrain.track.identity import keep_note, read_note

_STEP = "step"
_ROWS_AT_ONCE = 40  # of some 20 metrics; MLflow takes 1,000 in one request
_PARAMS_AT_ONCE = 100  # what MLflow takes in one request
_LONGEST_PARAM = 6000  # characters that it keeps
_ENDS = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}

log = get_logger(__name__)


class MlflowRun:
    """A sink that is a run in MLflow; `config` becomes its parameters, by dotted path."""

    name = "mlflow"

    def __init__(self, section: MlflowSection, run: RunLayout, *, config: Mapping[str, object]) -> None:
        self._section = section
        self._layout = run
        self._config = config
        self._client: Any = None
        self._run_id = ""

    def open(self) -> int:
        """Go on with the run there, or make it."""
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # of its use, to its makers
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient(tracking_uri=self._section.uri)
        note = read_note(self._layout, self.name)
        there = self._metrics_of(note["run_id"]) if note.get("uri") == self._section.uri else None
        if there is None:
            self._run_id = self._create()
            keep_note(self._layout, self.name, {"uri": self._section.uri, "run_id": self._run_id})
            log.info("mlflow: run %s of %s", self._run_id, self._section.uri)
            return 0
        self._run_id = note["run_id"]
        self._client.update_run(self._run_id, status="RUNNING")
        return int(there.get(_STEP, 0))

    def send(self, rows: Sequence[Row]) -> None:
        """Log each row at its own step and time."""
        from mlflow.entities import Metric

        for some in _chunks(rows, _ROWS_AT_ONCE):
            metrics = [
                Metric(name, value, round(1000 * datetime.fromisoformat(str(row["time"])).timestamp()), step_of(row))
                for row in some
                for name, value in {**numbers_of(row), _STEP: step_of(row)}.items()
            ]
            self._client.log_batch(self._run_id, metrics=metrics)

    def close(self, outcome: Outcome) -> None:
        """State how the command ended; the next one sets it to running again."""
        self._client.set_terminated(self._run_id, status=_ENDS[outcome])

    def _metrics_of(self, run_id: str) -> Mapping[str, float] | None:
        """The newest value of each metric of a run there; None where it is gone."""
        from mlflow.exceptions import MlflowException

        try:
            found = self._client.get_run(run_id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        metrics: Mapping[str, float] = found.data.metrics
        return metrics if found.info.lifecycle_stage == "active" else None

    def _create(self) -> str:
        from mlflow.entities import Param

        experiment = self._client.get_experiment_by_name(self._section.experiment)
        experiment_id = (
            experiment.experiment_id if experiment else self._client.create_experiment(self._section.experiment)
        )
        run_id: str = self._client.create_run(experiment_id, run_name=self._layout.name).info.run_id
        params = [Param(path, str(value)[:_LONGEST_PARAM]) for path, value in _flat("", self._config)]
        for some in _chunks(params, _PARAMS_AT_ONCE):
            self._client.log_batch(run_id, params=some)
        return run_id


def _flat(path: str, value: object) -> Iterator[tuple[str, object]]:
    """Every value of a tree by its dotted path."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(f"{path}.{key}" if path else str(key), inner)
    else:
        yield path, value


def _chunks(entries: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (entries[start : start + size] for start in range(0, len(entries), size))
