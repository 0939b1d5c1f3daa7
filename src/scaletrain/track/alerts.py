"""Alerts about a run by webhook, from the process that runs the command: it lives when workers hang or are lost."""

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from queue import Empty, Full, Queue

from scaletrain.config_track import AlertKind, AlertsSection
from scaletrain.errors import BudgetError, Interrupted
from scaletrain.layout import RunLayout
from scaletrain.log import get_logger
from scaletrain.track.feed import Row, step_of
from scaletrain.track.watch import CostWatch, Finding, LossWatch
from scaletrain.track.webhook import UndeliveredError, post

EVERY_S = 3600.0  # at most one alert of a kind
_LOOK_EVERY_S = 1.0
_MOST_WAITING = 10_000
_END_S = 30.0

log = get_logger(__name__)


class Alerts:
    """Watches a run and tells a webhook; with no section it does nothing.

    `begin` starts the watch for steps that do not come; `add` takes rows of metrics as they come and returns at once.
    """

    def __init__(self, section: AlertsSection | None, run: RunLayout, *, budget_usd: float | None = None) -> None:
        self._section = section
        self._run_layout = run
        self._cost = CostWatch(budget_usd)
        self._total_steps = 0
        self._rows: Queue[tuple[float, Row]] = Queue(_MOST_WAITING)
        self._told_s: dict[AlertKind, float] = {}
        self._last_sign_s: float | None = None
        self.last_step = 0
        self._finished_step: int | None = None
        self._error: BaseException | None = None
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="alerts", daemon=True)
        if section is not None:
            self._url = os.environ[section.webhook_variable]
            self._loss = LossWatch(section.diverged_factor)
            self._thread.start()

    @property
    def are_wanted(self) -> bool:
        return self._section is not None

    def begin(self, *, total_steps: int) -> None:
        """Training begins: from now on steps are expected."""
        self._total_steps = total_steps
        self._last_sign_s = time.monotonic()

    def add(self, rows: Sequence[Row]) -> None:
        """Hand over new rows."""
        if self._section is None:
            return
        now = time.monotonic()
        for row in rows:
            try:
                self._rows.put_nowait((now, row))
            except Full:  # the webhook has hung for as many steps
                return

    def finished(self, step: int) -> None:
        """The run has come to its last step."""
        self._finished_step = step

    def failed(self, error: BaseException) -> None:
        """An error ended the command."""
        self._error = error

    def close(self) -> None:
        """Tell how it ended; waits for that for half a minute at most."""
        self._ending.set()
        if self._section is not None:
            self._thread.join(_END_S)

    def _run(self) -> None:
        while not self._ending.is_set():
            self._look(wait_s=_LOOK_EVERY_S)
        self._look(wait_s=0.0)
        if self._error is not None:
            text = str(self._error).strip() or type(self._error).__name__
            kind: AlertKind = "over_budget" if isinstance(self._error, BudgetError) else "failed"
            self._told_s.pop(kind, None)  # that it has ended is more than that it might
            self._tell(Finding(kind, f"after step {self.last_step}: {text}" if self.last_step else text))
        elif self._finished_step is not None:
            self._tell(Finding("finished", f"all {self._finished_step} steps are done and saved"))

    def _look(self, *, wait_s: float) -> None:
        """Judge the rows that have come, then whether any should have."""
        assert self._section is not None
        try:
            arrived_s, row = self._rows.get(timeout=wait_s) if wait_s else self._rows.get_nowait()
            while True:
                self._last_sign_s, self.last_step = arrived_s, step_of(row)
                for finding in (*self._loss.look(row), *self._cost.look(row, total_steps=self._total_steps)):
                    self._tell(finding)
                arrived_s, row = self._rows.get_nowait()
        except Empty:
            pass
        silent_s = time.monotonic() - self._last_sign_s if self._last_sign_s is not None else 0.0
        if silent_s >= 60 * self._section.stalled_minutes and not self._ending.is_set():
            where = f"step {self.last_step} was the last one" if self.last_step else "no step yet"
            self._tell(Finding("stalled", f"no step for {silent_s / 60:.2g} minutes; {where}"))

    def _tell(self, finding: Finding) -> None:
        """Send it, unless it is not wanted or one of its kind was sent a moment ago."""
        assert self._section is not None
        now = time.monotonic()
        if finding.kind not in self._section.on or now < self._told_s.get(finding.kind, -EVERY_S) + EVERY_S:
            return
        self._told_s[finding.kind] = now
        name = self._run_layout.name
        facts = {"kind": finding.kind, "run": name, "run_url": self._run_layout.url, "step": self.last_step}
        heading = finding.kind.replace("_", " ")
        try:
            post(self._url, f"{name} {heading}: {finding.text}", facts=facts, sleep=self._wait)
        except UndeliveredError as error:
            log.warning("the alert `%s` was not delivered: the webhook: %s", heading, error)

    def _wait(self, seconds: float) -> None:
        """Wait, less patiently at the end."""
        if self._ending.is_set():
            time.sleep(min(seconds, 4.0))
        else:
            self._ending.wait(seconds)


@contextmanager
def alerting(section: AlertsSection | None, run: RunLayout, *, budget_usd: float | None = None) -> Iterator[Alerts]:
    """Watch over everything inside; whatever error ends it is told, but not a stop that was asked for."""
    alerts = Alerts(section, run, budget_usd=budget_usd)
    try:
        yield alerts
    except (Interrupted, KeyboardInterrupt):
        raise
    except BaseException as error:
        alerts.failed(error)
        raise
    finally:
        alerts.close()
