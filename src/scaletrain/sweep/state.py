"""A sweep while it runs: which trial is next, what a report changes, who is stopped, and when all have to leave.

It runs nothing itself. Everything it decides is written into the trials' records before anybody acts on it.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from scaletrain.config import Config
from scaletrain.config_sweep import SweepSection
from scaletrain.errors import ConfigError, DataError, ModelError, ScaletrainError
from scaletrain.log import get_logger
from scaletrain.sweep import decisions, space
from scaletrain.sweep.checking import shown
from scaletrain.sweep.records import Facts, Stretch, SweepLayout, TrialRecord, read_trials, run_name, write_trial
from scaletrain.sweep.trial import Report

# What another start would only meet again.
_HOPELESS = ("ConfigError", "DataError", "ModelError", "DeviceError", "CheckpointError")

log = get_logger(__name__)


class Sweep:
    """The trials of a sweep; `total_steps` prepares what a trial's configuration needs and counts its steps.

    Every method may be called from any thread.
    """

    def __init__(
        self,
        config: Config,
        section: SweepSection,
        *,
        total_steps: Callable[[space.Values], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._section = section
        self._total_steps = total_steps
        self._clock = clock
        self._layout = SweepLayout(config.storage.root, config.name)
        self._lock = threading.RLock()
        self._at_work: dict[int, float] = {}  # since when, by trial
        self._leaving = False
        self.failure: ScaletrainError | None = None
        self.trials = read_trials(self._layout)
        for record in self.trials.values():
            if not record.is_over:  # what it was asked before, and has not done yet, is asked again
                order: Literal["clone", "stop", ""] = (
                    "clone" if record.next else "stop" if record.order == "stop" else ""
                )
                self._keep(replace(record, state="waiting", order=order))

    @property
    def is_over(self) -> bool:
        """Whether no trial is left to begin or to go on with."""
        done = [each for each in self.trials.values() if each.is_over]
        return len(done) >= space.number_of_trials(self._section)

    @property
    def at_work(self) -> int:
        """How many trials run now."""
        return len(self._at_work)

    def next_trial(self) -> int | Literal["over"] | None:
        """The trial to begin or to go on with now; None where there may be one later, "over" where there is none."""
        with self._lock:
            if self._leaving or self.is_over:
                return "over"
            number = self._waiting()
            while number is None and len(self.trials) < space.number_of_trials(self._section):
                self._add_trial()
                number = self._waiting()
            if number is None:
                return "over" if self.is_over else None
            self._at_work[number] = self._clock()
            record = replace(self.trials[number], state="running")
            self._keep(record)
            log.info("trial %d (%s): %s", number, shown(record.parameters), "goes on" if record.curve else "begins")
            return number

    def take(self, report: Report) -> None:
        """Take in what a trial reports, and decide what follows from it for this one and for the others."""
        with self._lock:
            record = self._timed(self.trials[report.number])
            before = record.curve[-1][0] if record.curve else 0
            record = replace(record, facts=report.facts)
            if report.cloned is not None:
                record = self._cloned(record, report.cloned)
            if report.declined:
                record = replace(record, order=_unless_leaving(record), next=None)
            record = record.with_points(report.points)
            if report.outcome:
                self._at_work.pop(report.number, None)
                record = self._ended(record, report)
            self._keep(record)
            if report.points:
                self._decide(report.number, before)

    def leave(self) -> None:
        """Ask all trials to save and end, to go on another time; none begins any more."""
        with self._lock:
            self._leaving = True
            for number in self._at_work:
                self._keep(replace(self.trials[number], order="leave"))

    def lost(self, number: int, reason: str) -> None:
        """Note that a trial's process is gone."""
        with self._lock:
            if number in self._at_work:
                facts = self.trials[number].facts
                self.take(Report(number, {}, facts, outcome="failed", reason=reason, error="ProcessLost"))

    def _waiting(self) -> int | None:
        return next((each.number for each in self.trials.values() if each.state == "waiting"), None)

    def _add_trial(self) -> None:
        """Choose the values of a new trial; one whose data cannot be prepared has failed already."""
        number = len(self.trials)
        values = space.suggest(self._section, self.trials, number, seed=self._config.seed)
        record = TrialRecord(number, (Stretch(run=run_name(self._config.name, number), parameters=values),))
        try:
            record = replace(record, facts=Facts(total_steps=self._total_steps(values)))
        except (ConfigError, DataError, ModelError) as error:
            log.warning("trial %d (%s) has failed: %s", number, shown(values), error)
            record = replace(record, state="failed", reason=str(error))
        self._keep(record)

    def _cloned(self, record: TrialRecord, now: Stretch) -> TrialRecord:
        """A trial is another run from here on, whose curve until the clone is the donor's."""
        donor = next(
            (each for each in self.trials.values() if now.donor in [one.run for one in each.stretches]), record
        )
        log.info(
            "trial %d goes on as a clone of %s at step %d: %s",
            record.number,
            now.donor,
            now.step,
            shown(now.parameters),
        )
        inherited = donor.facts.cost_usd or 0.0
        return replace(
            record,
            stretches=(*record.stretches, now),
            order=_unless_leaving(record),
            next=None,
            curve=tuple(point for point in donor.curve if point[0] <= now.step),
            cost_before_usd=(record.cost_usd or 0.0) - inherited,
        )

    def _ended(self, record: TrialRecord, report: Report) -> TrialRecord:
        number = record.number
        if report.outcome == "finished":
            log.info("trial %d has finished: %s", number, _value_shown(record, self._section))
            return replace(record, state="finished", order="", next=None, reason="")
        if report.outcome == "interrupted":
            if record.order == "stop":
                log.info("trial %d is stopped: %s", number, record.reason)
                return replace(record, state="stopped", order="")
            return replace(record, state="waiting", order="" if record.order == "leave" else record.order)
        if report.error == "ClusterError" and self._at_work and not self._leaving:
            log.info("trial %d waits for the others: %s", number, report.reason)
            return replace(record, state="waiting", reason=report.reason)
        failures = record.failures + 1
        if failures <= self._section.retries and report.error not in _HOPELESS:
            log.warning("trial %d failed, and is begun again from its newest commit: %s", number, report.reason)
            return replace(record, state="waiting", failures=failures, reason=report.reason)
        log.warning("trial %d has failed: %s", number, report.reason)
        return replace(record, state="failed", failures=failures, order="", next=None, reason=report.reason)

    def _decide(self, number: int, before: int) -> None:
        """What a longer curve means: the trial's end, or clones of who is better."""
        record, rule = self.trials[number], self._section.scheduler
        if rule.kind == "pbt":
            assert rule.every_steps is not None
            first = before // rule.every_steps + 1
            for count in range(first, record.curve[-1][0] // rule.every_steps + 1):
                self._compare(count * rule.every_steps)
        elif not record.is_over and not record.order:
            reason = decisions.reason_to_stop(self._section, self.trials, number, before)
            if reason:
                self._keep(replace(record, order="stop", reason=reason))

    def _compare(self, step: int) -> None:
        found = decisions.exploits(self._section, self.trials, step, seed=self._config.seed)
        for exploit in found:
            loser, donor = self.trials[exploit.number], self.trials[exploit.donor]
            name = run_name(self._config.name, exploit.number, len(loser.stretches))
            clone = Stretch(run=name, parameters=exploit.parameters, donor=donor.run, step=step)
            order = loser.order if loser.order == "leave" else "clone"
            self._keep(replace(loser, order=order, next=clone, compared=step, reason=exploit.reason))

    def _timed(self, record: TrialRecord) -> TrialRecord:
        """Count the time since the trial was last heard of."""
        since = self._at_work.get(record.number)
        if since is None:
            return record
        now = self._clock()
        self._at_work[record.number] = now
        return replace(record, seconds=round(record.seconds + now - since, 3))

    def _keep(self, record: TrialRecord) -> None:
        """Write a record, then believe it."""
        if record == self.trials.get(record.number):
            return
        try:
            write_trial(self._layout, record)
        except ScaletrainError as error:
            self.failure = error
            raise
        self.trials[record.number] = record


def _unless_leaving(record: TrialRecord) -> Literal["leave", ""]:
    """The order of a trial that has done what it was asked; that all leave may have been said meanwhile."""
    return "leave" if record.order == "leave" else ""


def _value_shown(record: TrialRecord, section: SweepSection) -> str:
    return "no value" if record.value is None else f"{section.metric} {record.value:.4g}"
