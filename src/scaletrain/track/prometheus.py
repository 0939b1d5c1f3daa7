"""A run's newest figures for Prometheus: through Ray's exporter, an HTTP port, or a file for node_exporter.

What Ray exports is called ray_scaletrain_loss, what the others do scaletrain_loss, and so on; the dashboard in
cluster/grafana/ takes both. Ages are for Prometheus to compute, as time() - scaletrain_last_step_time_seconds.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from scaletrain import checkpoint, storage
from scaletrain.config_track import PrometheusSection
from scaletrain.errors import ScaletrainError
from scaletrain.layout import RunLayout
from scaletrain.track.feed import Outcome, Row

DEFAULT_PORT = 9464
_LOOK_EVERY_S = 15.0

# By name: what it is of a row, and what it means.
OF_A_ROW: Mapping[str, tuple[str, str]] = {
    "scaletrain_step": ("step", "the last step that is done"),
    "scaletrain_loss": ("loss", "per supervised token of the last step; NaN where it was skipped"),
    "scaletrain_learning_rate": ("learning_rate", "of the last step"),
    "scaletrain_grad_norm": ("grad_norm", "of the last step, before clipping"),
    "scaletrain_tokens_per_second": ("tokens_per_s", "of all workers, in the last step"),
    "scaletrain_mfu_ratio": ("mfu", "share of the devices' peak, in the last step"),
    "scaletrain_step_seconds": ("step_s", "wall time of the last step"),
    "scaletrain_data_wait_seconds": ("data_wait_s", "of it, waiting for rows"),
    "scaletrain_checkpoint_stall_seconds": ("checkpoint_stall_s", "of it, saving"),
    "scaletrain_memory_bytes": ("memory_bytes", "rank 0's peak, of its device"),
    "scaletrain_workers": ("world_size", "that the last step ran on"),
    "scaletrain_validation_loss": ("validation_loss", "the last one"),
    "scaletrain_usd_per_hour": ("usd_per_hour", "of the machines that the run holds"),
    "scaletrain_cost_usd": ("cost_usd", "of the whole run so far"),
}
OTHERS: Mapping[str, str] = {
    "scaletrain_running": "1 while the command runs, 0 when it has ended",
    "scaletrain_total_steps": "where the run will end",
    "scaletrain_last_step_time_seconds": "when the last step ended, since 1970 UTC",
    "scaletrain_newest_commit_step": "the step of the newest checkpoint",
    "scaletrain_newest_commit_time_seconds": "when it was committed, since 1970 UTC",
}


class Prometheus:
    """A sink that exports the newest row; on a cluster through Ray's exporter, unless the section says otherwise."""

    name = "prometheus"

    def __init__(self, section: PrometheusSection, run: RunLayout, *, total_steps: int, on_cluster: bool) -> None:
        self._section = section
        self._layout = run
        self._total_steps = total_steps
        self._through_ray = on_cluster and section.port is None and section.textfile is None
        self._set: Callable[[str, float], None] = lambda name, value: None
        self._registry: Any = None
        self._server: Any = None
        self._looked_s = -math.inf
        self._commit_step = 0

    def open(self) -> None:
        """Make the gauges, and start to export them."""
        self._close_server()
        self._looked_s, self._commit_step = -math.inf, 0
        self._set = self._ray_gauges() if self._through_ray else self._own_gauges()
        if not self._through_ray and self._section.textfile is None:
            from prometheus_client import start_http_server

            self._server = start_http_server(
                self._section.port or DEFAULT_PORT, addr=self._section.host, registry=self._registry
            )
        self._set("scaletrain_running", 1)
        self._set("scaletrain_total_steps", self._total_steps)
        self._look_for_commits()
        self._write_file()

    def send(self, rows: Sequence[Row]) -> None:
        """Show the newest row."""
        row = rows[-1]
        for name, (field, _) in OF_A_ROW.items():
            if field in row:
                value = row[field]
                self._set(name, math.nan if value is None else float(str(value)))
        self._set("scaletrain_last_step_time_seconds", datetime.fromisoformat(str(row["time"])).timestamp())
        self._look_for_commits()
        self._write_file()

    def close(self, outcome: Outcome) -> None:
        """Show that the command has ended, as long as anybody can see it; a file stays."""
        self._set("scaletrain_running", 0)
        self._look_for_commits(at_once=True)
        self._write_file()
        self._close_server()

    def _look_for_commits(self, *, at_once: bool = False) -> None:
        if not at_once and time.monotonic() < self._looked_s + _LOOK_EVERY_S:
            return
        self._looked_s = time.monotonic()
        try:
            step = int(storage.read_bytes(self._layout.newest_hint))
            if step == self._commit_step:
                return
            created = checkpoint.load_manifest(self._layout.checkpoint(step)).created
        except (ScaletrainError, ValueError):
            return  # none yet, or the bucket is away: the figure stays, and its age shows that
        self._commit_step = step
        self._set("scaletrain_newest_commit_step", step)
        self._set("scaletrain_newest_commit_time_seconds", datetime.fromisoformat(created).timestamp())

    def _ray_gauges(self) -> Callable[[str, float], None]:
        from ray.util.metrics import Gauge

        gauges = {name: Gauge(name, description=meaning, tag_keys=("run",)) for name, meaning in _meanings().items()}
        return lambda name, value: gauges[name].set(value, tags={"run": self._layout.name})

    def _own_gauges(self) -> Callable[[str, float], None]:
        from prometheus_client import CollectorRegistry, Gauge

        self._registry = CollectorRegistry()
        made: dict[str, Gauge] = {}
        meanings = _meanings()

        def set_gauge(name: str, value: float) -> None:
            if name not in made:  # a gauge without a value would be shown as 0
                made[name] = Gauge(name, meanings[name], ["run"], registry=self._registry)
            made[name].labels(run=self._layout.name).set(value)

        return set_gauge

    def _write_file(self) -> None:
        if self._section.textfile is not None:
            from prometheus_client import write_to_textfile

            Path(self._section.textfile).parent.mkdir(parents=True, exist_ok=True)
            write_to_textfile(self._section.textfile, self._registry)

    def _close_server(self) -> None:
        if self._server is not None:
            server, thread = self._server
            server.shutdown()
            server.server_close()
            thread.join()
            self._server = None


def _meanings() -> dict[str, str]:
    return {**{name: meaning for name, (_, meaning) in OF_A_ROW.items()}, **OTHERS}
