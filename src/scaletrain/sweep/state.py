"""A sweep while it runs: which trial is next, what a report changes, who is stopped, and when all have to leave.

It runs nothing itself. Everything it decides is written into the trials' records before anybody acts on it. Trials that
may have more or fewer workers share those that can be had: who begins gets a share, and who ends leaves it to others.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from scaletrain import policy
from scaletrain.config import Config, WorkerRange
from scaletrain.config_sweep import SweepSection
from scaletrain.errors import ScaletrainError
from scaletrain.log import get_logger
from scaletrain.sweep import decisions, space
from scaletrain.sweep.checking import shown
from scaletrain.sweep.preparing import Preparing
from scaletrain.sweep.records import Stretch, SweepLayout, TrialRecord, read_trials, run_name, write_trial
from scaletrain.sweep.trial import Report
from scaletrain.train.waiting import Room

# What another start would only meet again.
_HOPELESS = ("ConfigError", "DataError", "ModelError", "DeviceError", "CheckpointError")
_PREPARED_SOON_S = 2.0  # what trials share is there already as a rule

log = get_logger(__name__)


class Sweep:
    """The trials of a sweep; `total_steps` prepares what a trial's configuration needs and counts its steps.

    `at_once` is how many trials may be at work. Until `share_out` is called they share no workers: each may have as
    many as its configuration says. Every method may be called from any thread.
    """

    def __init__(
        self,
        config: Config,
        section: SweepSection,
        *,
        at_once: int,
        total_steps: Callable[[space.Values], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._section = section
        self._at_once = at_once
        self._total_steps = total_steps
        self._clock = clock
        self._layout = SweepLayout(config.storage.root, config.name)
        self._lock = threading.RLock()
        self._at_work: dict[int, float] = {}  # since when, by trial
        self._without_a_step: dict[int, float] = {}  # since when, by trial that waits for workers, or starts
        self._preparing: Preparing | None = None
        self._room: int | None = None
        self._leaving = False
        self.failure: ScaletrainError | None = None
        self.trials = read_trials(self._layout)
        for record in self.trials.values():
            if record.state == "failed" and not record.has_begun:  # a new command may have mended what kept it
                self._keep(replace(record, state="waiting", failures=0, reason=""))
            elif not record.is_over:  # what it was asked before, and has not done yet, is asked again
                order: Literal["clone", "stop", ""] = (
                    "clone" if record.next else "stop" if record.order == "stop" else ""
                )
                self._keep(replace(record, state="waiting", order=order, most_workers=None))

    @property
    def is_over(self) -> bool:
        """Whether no trial is left to begin or to go on with."""
        done = [each for each in self.trials.values() if each.is_over]
        return len(done) >= space.number_of_trials(self._section)

    @property
    def at_work(self) -> int:
        """How many trials run now."""
        return len(self._at_work)

    @property
    def workers_wanted(self) -> int:
        """How many workers the trials that run now may have together."""
        workers = self._config.scaling.workers
        most = workers.max if isinstance(workers, WorkerRange) else workers
        with self._lock:
            return sum(self.trials[number].most_workers or most for number in self._at_work)

    def next_trial(self) -> int | Literal["over"] | None:
        """The trial to begin or to go on with now; None where there may be one later, "over" where there is none.

        Later: once it is prepared, once there is room for it, or where one that is at work has to be begun again.
        """
        with self._lock:
            while True:
                self._add_prepared(wait_s=0)
                if self._preparing is None and (self._leaving or self.is_over):
                    return "over"
                if self._leaving or not self._has_room():
                    return None
                number = self._waiting()
                if number is not None:
                    self._begin(number)
                    return number
                if self._preparing is not None or self._unborn() == 0:
                    return None
                self._prepare_trial()

    def share_out(self, room: Room) -> None:
        """Say for how many workers there is room now: the trials at work share it."""
        with self._lock:
            now = self._clock()
            longest_wait_s = max((now - since for since in self._without_a_step.values()), default=0.0)
            self._room = policy.room_to_share(there=room.there, may_come=room.may_come, longest_wait_s=longest_wait_s)
            self._share()

    def take(self, report: Report) -> None:
        """Take in what a trial reports, and decide what follows from it for this one and for the others."""
        with self._lock:
            record = self._timed(self.trials[report.number])
            before = record.curve[-1][0] if record.curve else 0
            record = replace(record, facts=report.facts)
            self._note_wait(report)
            if report.cloned is not None:
                record = self._cloned(record, report.cloned)
            if report.declined:
                record = replace(record, order=_unless_leaving(record), next=None)
            record = record.with_points(report.points)
            if report.outcome:
                self._at_work.pop(report.number, None)
                record = replace(self._ended(record, report), most_workers=None)
            self._keep(record)
            if report.points:
                self._decide(report.number, before)
            if report.outcome:
                self._share()

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

    def _note_wait(self, report: Report) -> None:
        """Whatever is reported shows that the trial has its workers, but for its silence."""
        self._without_a_step.pop(report.number, None)
        if report.is_silent:
            log.info("trial %d has made no step for minutes: it seems to wait for workers", report.number)
            self._without_a_step[report.number] = self._clock() - policy.COMING_GRACE_S

    def _waiting(self) -> int | None:
        return next((each.number for each in self.trials.values() if each.state == "waiting"), None)

    def _unborn(self) -> int:
        """How many trials have no values yet."""
        return space.number_of_trials(self._section) - len(self.trials)

    def _prepare_trial(self) -> None:
        """Choose the values of a new trial, and have it prepared; where that takes long, others have its share."""
        number = len(self.trials)
        values = space.suggest(self._section, self.trials, number, seed=self._config.seed)
        record = TrialRecord(number, (Stretch(run=run_name(self._config.name, number), parameters=values),))
        self._preparing = Preparing(record, self._total_steps)
        self._add_prepared(wait_s=_PREPARED_SOON_S)
        if self._preparing is not None:
            log.info("trial %d (%s) is being prepared", number, shown(values))
            self._share()

    def _add_prepared(self, *, wait_s: float) -> None:
        """Take in the trial that is being prepared, if it is ready."""
        record = None if self._preparing is None else self._preparing.result(wait_s=wait_s)
        if record is not None:
            self._preparing = None
            self._keep(record)

    def _begin(self, number: int) -> None:
        self._at_work[number] = self._without_a_step[number] = self._clock()
        record = replace(self.trials[number], state="running")
        self._keep(record)
        self._share()
        log.info("trial %d (%s): %s", number, shown(record.parameters), "goes on" if record.curve else "begins")

    def _has_room(self) -> bool:
        """Whether one more trial has a share."""
        return self._room is None or self._shares(expected=1)[-1] > 0

    def _share(self) -> None:
        """Write how many workers each trial at work may have; those about to begin are left their shares."""
        if self._room is None or self._leaving:
            return
        waiting = sum(each.state == "waiting" for each in self.trials.values())
        unborn = self._unborn() if self._preparing is None else 0
        shares = self._shares(expected=min(self._at_once - len(self._at_work), waiting + unborn))
        for number, share in zip(sorted(self._at_work), shares, strict=False):
            before = self.trials[number].most_workers
            if before is not None and share != before:
                log.info("trial %d may have %d workers from now on, instead of %d", number, share, before)
            self._keep(replace(self.trials[number], most_workers=share))

    def _shares(self, *, expected: int) -> list[int]:
        """The fair share of each trial at work, by number, and then of so many more that wait."""
        workers = self._config.scaling.workers
        assert isinstance(workers, WorkerRange) and self._room is not None
        so_far = [self.trials[number].most_workers or 0 for number in sorted(self._at_work)]
        return policy.fair_share(self._room, [*so_far, *[0] * expected], least=workers.min, most=workers.max)

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
        return replace(
            record,
            stretches=(*record.stretches, now),
            order=_unless_leaving(record),
            next=None,
            curve=tuple(point for point in donor.curve if point[0] <= now.step),
            # The donor's own record may be far beyond the step by now: what it had cost there is told with the clone.
            cost_before_usd=(self.trials[record.number].cost_usd or 0.0) - (record.facts.cost_usd or 0.0),
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
