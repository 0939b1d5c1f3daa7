"""Everything that follows a run while it trains, as `track` names it; the trainer hands it the lines of metrics."""

import time
from collections.abc import Sequence
from functools import partial
from types import TracebackType
from typing import Self

import orjson

from scaletrain.attempts import read_attempts
from scaletrain.config import Config
from scaletrain.errors import Interrupted
from scaletrain.layout import RunLayout
from scaletrain.metrics import read_records
from scaletrain.track.alerts import Alerts
from scaletrain.track.feed import Feed, Outcome, Row, Sink, step_of
from scaletrain.track.mlflow_run import MlflowRun
from scaletrain.track.prometheus import Prometheus
from scaletrain.track.wandb_run import WandbRun

_END_S = 75.0  # Weights & Biases gives up an upload after 60


class Tracking:
    """While it is entered, rows go to every tracker and to the alerts, each in a thread of its own."""

    def __init__(self, config: Config, run: RunLayout, *, total_steps: int, on_cluster: bool, alerts: Alerts) -> None:
        self._sinks = _sinks(config, run, total_steps=total_steps, on_cluster=on_cluster)
        self._run = run
        self._total_steps = total_steps
        self._alerts = alerts
        self._newest_step = 0
        self._feeds: list[Feed] = []

    def __enter__(self) -> Self:
        self._feeds = [Feed(sink, stored=partial(stored_rows, self._run)) for sink in self._sinks]
        self._alerts.begin(total_steps=self._total_steps)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        outcome: Outcome = "finished" if self._newest_step >= self._total_steps else "stopped"
        if error is not None:
            outcome = "stopped" if isinstance(error, Interrupted | KeyboardInterrupt) else "failed"
        for feed in self._feeds:
            feed.end(outcome)
        deadline = time.monotonic() + _END_S
        for feed in self._feeds:
            feed.wait(max(0.0, deadline - time.monotonic()))

    def add(self, lines: Sequence[bytes]) -> None:
        """Hand over new lines of metrics; returns at once."""
        if not lines or not (self._feeds or self._alerts.are_wanted):
            return
        rows: list[Row] = [orjson.loads(line) for line in lines]
        self._newest_step = max(self._newest_step, max(map(step_of, rows)))
        self._alerts.add(rows)
        for feed in self._feeds:
            feed.add(rows)


def stored_rows(run: RunLayout, first_step: int, last_step: int) -> list[Row]:
    """The rows of some steps, both ends included, that the bucket has, as the run counts them. Raises StorageError."""
    records = read_records(run.metrics, last_step_of=read_attempts(run).last_step_of)
    return [row for row in records if first_step <= step_of(row) <= last_step]


def _sinks(config: Config, run: RunLayout, *, total_steps: int, on_cluster: bool) -> list[Sink]:
    section, resolved, sinks = config.track, config.model_dump(mode="json"), list[Sink]()
    if section.wandb is not None:
        sinks.append(WandbRun(section.wandb, run, config=resolved))
    if section.mlflow is not None:
        sinks.append(MlflowRun(section.mlflow, run, config=resolved))
    if section.prometheus is not None:
        sinks.append(Prometheus(section.prometheus, run, total_steps=total_steps, on_cluster=on_cluster))
    return sinks
