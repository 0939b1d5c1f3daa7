"""The attempts of a run: which there were, from which step each one went on, and whose commits count.

An attempt is one unbroken stretch of training. Its number is taken by creating a file that nobody else can create,
and is the fencing token in every manifest: once a newer attempt has gone on from some step, what an older one commits
beyond that step does not count, however late it arrives. Everything is told by the names of small files, so that one
listing answers every question:

    attempt-0003.json                 claimed; when, by which process on which machine
    attempt-0003.from-00000120        its workers went on from the commit of step 120
    attempt-0003.heartbeat            rewritten every few seconds while its driver lives
    attempt-0003.ended                its driver has seen it end

What is in them says when, for `goodput`; those that an older version wrote say nothing of it.
"""

import os
import re
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from scaletrain import storage
from scaletrain.errors import NotFoundError, ScaletrainError, TrainingError
from scaletrain.layout import RunLayout
from scaletrain.log import get_logger
from scaletrain.storage.parallel import in_parallel

HEARTBEAT_S = 10.0
_READERS = 16
_SILENT_S = 3.5 * HEARTBEAT_S  # no sign for so long, by the observer's own clock, and an attempt counts as dead
_CLOCKS_DIFFER_S = 30.0
_FILE = re.compile(r"attempt-(\d+)\.(?:json|ended|from-(\d+))$")

log = get_logger(__name__)


@dataclass(frozen=True)
class Attempts:
    """What one listing tells; `resumed_from` has the step of each attempt whose workers have begun."""

    claimed: tuple[int, ...]
    ended: tuple[int, ...]
    resumed_from: Mapping[int, int]

    @property
    def newest(self) -> int:
        """The newest attempt's number; 0 where there is none."""
        return max(self.claimed, default=0)

    def last_step_of(self, attempt: int) -> int | None:
        """The last step of an attempt that counts; None where no later attempt has gone on without the rest."""
        return min((step for number, step in self.resumed_from.items() if number > attempt), default=None)

    def counts(self, attempt: int, step: int) -> bool:
        """Whether what an attempt did up to a step is part of the run."""
        last = self.last_step_of(attempt)
        return last is None or step <= last


@dataclass(frozen=True)
class Claim:
    """Who made an attempt; `machine` is the same for two processes only if they see each other's pids.

    `process_started` is in clock ticks since that machine's boot, which no change of its clock moves.
    """

    started: str
    host: str
    machine: str
    pid: int
    process_started: int


@dataclass(frozen=True)
class Signs:
    """When an attempt showed signs of life, in seconds since 1970 UTC; None where nothing tells.

    `heartbeat` is the last one, of an attempt that has not said that it ended; `failed` is whether an error ended it.
    """

    claim: Claim | None
    claimed: float | None
    began: float | None
    heartbeat: float | None
    ended: float | None
    failed: bool


def read_attempts(run: RunLayout) -> Attempts:
    """List the attempts of a run."""
    claimed, ended, resumed_from = [], [], {}
    for info in storage.list_objects(run.attempts):
        match = _FILE.search(info.url)
        if match is None:
            continue
        number = int(match[1])
        if match[2] is not None:
            resumed_from[number] = int(match[2])
        elif info.url.endswith(".json"):
            claimed.append(number)
        else:
            ended.append(number)
    return Attempts(tuple(sorted(claimed)), tuple(sorted(ended)), resumed_from)


def read_signs(run: RunLayout, known: Attempts) -> dict[int, Signs]:
    """Read when each attempt of a run showed signs of life."""

    def read(number: int) -> Signs:
        step, ended = known.resumed_from.get(number), _read_note(run.attempt_file(number, "ended"))
        claimed = _read_note(run.attempt(number))
        return Signs(
            claim=_claim_in(claimed),
            claimed=_time_in(claimed, "started"),
            began=_time_in(_read_note(run.attempt_from(number, step))) if step is not None else None,
            heartbeat=_time_in(_read_note(run.attempt_file(number, "heartbeat"))),
            ended=_time_in(ended),
            failed=bool(ended.get("failed")),
        )

    found = in_parallel(read, known.claimed, max_workers=_READERS)
    return dict(zip(known.claimed, found, strict=True))


def shows_life(signs: Signs, *, now: float) -> bool:
    """Whether an attempt goes on: known for certain on its driver's own machine, elsewhere judged by its heartbeat.

    `now` is in seconds since 1970 UTC, by this machine's clock; the driver's may differ by half a minute.
    """
    if signs.ended is not None:
        return False
    if signs.claim is not None and signs.claim.machine == _this_process().machine:
        return _start_of(signs.claim.pid) == signs.claim.process_started
    last = max((time for time in (signs.claimed, signs.began, signs.heartbeat) if time is not None), default=0.0)
    return now - last < _SILENT_S + _CLOCKS_DIFFER_S


def claim(run: RunLayout) -> int:
    """Take the next free number; nobody else can have the same."""
    record = orjson.dumps(asdict(_this_process()))
    number = read_attempts(run).newest + 1
    while not storage.create(run.attempt(number), record):
        number += 1
    return number


def begin(run: RunLayout, attempt: int, step: int) -> None:
    """State that an attempt goes on from the commit of `step` (0: from nothing); called before its first own step.

    What workers that were killed left half-written of their records is removed: nobody but this attempt writes any now.
    """
    storage.write_bytes(run.attempt_from(attempt, step), _note())
    for folder in (run.metrics, run.ledger):
        storage.remove_half_written(folder)


def check_newest(run: RunLayout, attempt: int) -> None:
    """Raise TrainingError where a newer attempt has been claimed: this one has to end."""
    newest = read_attempts(run).newest
    if newest > attempt:
        raise TrainingError(
            f"attempt {attempt} of {run.name} ends: attempt {newest} has taken the run over, and what this one did "
            "after its last commit does not count"
        )


def cause_of(run: RunLayout, attempt: int, error: ScaletrainError) -> ScaletrainError:
    """Why a write failed: a newer attempt, if there is one, may have swept away what this one was writing."""
    try:
        check_newest(run, attempt)
    except TrainingError as taken_over:
        return taken_over
    except ScaletrainError:
        pass  # storage is what failed, and the first error tells it
    return error


def refuse_a_second(run: RunLayout) -> None:
    """Raise TrainingError where another process trains this run at this moment.

    A dead process of this machine is known at once. An attempt elsewhere that has not said that it ended is watched
    for some half a minute, by this machine's clock alone; if its heartbeat stands still, the run is free.
    """
    known = read_attempts(run)
    if known.newest == 0 or known.newest in known.ended:
        return
    owner = _claim_in(_read_note(run.attempt(known.newest)))
    if owner is None:
        return
    here = _this_process()
    if owner.machine == here.machine:
        if owner.pid != here.pid and _start_of(owner.pid) == owner.process_started:
            raise _is_trained_elsewhere(run, known.newest, owner)
        return
    log.info(
        "attempt %d of %s on %s has not said that it ended; looking for %.0f s whether it lives",
        *(known.newest, run.name, owner.host, _SILENT_S),
    )
    first, deadline = _heartbeat_of(run, known.newest), time.monotonic() + _SILENT_S
    while time.monotonic() < deadline:
        time.sleep(min(1.0, _SILENT_S / 10))
        if known.newest in read_attempts(run).ended:
            return
        if _heartbeat_of(run, known.newest) != first:
            raise _is_trained_elsewhere(run, known.newest, owner)


class Heartbeat:
    """Shows others that an attempt's driver lives, and at the end that it has ended."""

    def __init__(self, run: RunLayout, attempt: int) -> None:
        self._run = run
        self._attempt = attempt
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self._thread.join()
        try:
            ended = _note(failed=error is not None)
            storage.write_bytes(self._run.attempt_file(self._attempt, "ended"), ended)
            storage.remove(self._run.attempt_file(self._attempt, "heartbeat"))
        except ScaletrainError as failure:
            log.warning("cannot note that attempt %d has ended: %s", self._attempt, failure)

    def _beat(self) -> None:
        beats = 0
        while True:
            try:
                storage.write_bytes(self._run.attempt_file(self._attempt, "heartbeat"), _note(beat=beats))
            except ScaletrainError as failure:
                log.warning("cannot write the heartbeat of attempt %d: %s", self._attempt, failure)
            beats += 1
            if self._ending.wait(HEARTBEAT_S):
                return


def _note(**facts: object) -> bytes:
    """What a small file says: the time, and the facts given."""
    return orjson.dumps({"time": _now(), **facts})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _read_note(url: str) -> dict[str, Any]:
    """What a small file says; nothing for one that is not there, or that an older version wrote."""
    try:
        found = orjson.loads(storage.read_bytes(url))
    except (NotFoundError, orjson.JSONDecodeError):
        return {}
    return found if isinstance(found, dict) else {}


def _time_in(note: Mapping[str, Any], name: str = "time") -> float | None:
    """A time that a note states, in seconds since 1970 UTC."""
    return datetime.fromisoformat(str(note[name])).timestamp() if name in note else None


def _this_process() -> Claim:
    return Claim(
        started=_now(),
        host=socket.gethostname(),
        machine=f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {Path('/proc/self/ns/pid').readlink()}",
        pid=os.getpid(),
        process_started=_start_of(os.getpid()) or 0,
    )


def _start_of(pid: int) -> int | None:
    """When a process of this machine started; None where there is none, or it is dead and only not yet reaped."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in ("Z", "X") else int(fields[19])


def _claim_in(note: Mapping[str, Any]) -> Claim | None:
    """Who made an attempt; None for one that an older version made, which says nothing of its process."""
    try:
        return Claim(**note)
    except TypeError:
        return None


def _heartbeat_of(run: RunLayout, attempt: int) -> bytes:
    try:
        return storage.read_bytes(run.attempt_file(attempt, "heartbeat"))
    except NotFoundError:
        return b""


def _is_trained_elsewhere(run: RunLayout, attempt: int, owner: Claim) -> TrainingError:
    return TrainingError(
        f"{run.name} is being trained at this moment: attempt {attempt}, process {owner.pid} on {owner.host}, since "
        f"{owner.started}. Stop it first (Ctrl-C there, or `scaletrain stop {run.name}` for a cluster's job), or give "
        "this run another name: name=..."
    )
