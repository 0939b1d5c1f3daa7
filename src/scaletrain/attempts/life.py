"""Which attempt's driver lives: its heartbeat, its signs of life, and the refusal of a second one."""

import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from scaletrain import storage
from scaletrain.attempts.claiming import check_claim
from scaletrain.attempts.counting import Attempts, read_attempts
from scaletrain.attempts.owner import (
    Claim,
    claim_in,
    is_trained_elsewhere,
    note,
    read_claim,
    read_note,
    start_of,
    this_process,
    time_in,
)
from scaletrain.errors import NotFoundError, ScaletrainError, TrainingError
from scaletrain.layout import RunLayout
from scaletrain.log import get_logger
from scaletrain.storage.parallel import in_parallel

HEARTBEAT_S = 10.0
_READERS = 16
_SILENT_S = 3.5 * HEARTBEAT_S  # no sign for so long, by the observer's own clock, and an attempt counts as dead
_CLOCKS_DIFFER_S = 30.0

log = get_logger(__name__)


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


def read_signs(run: RunLayout, known: Attempts) -> dict[int, Signs]:
    """Read when each attempt of a run showed signs of life."""

    def read(number: int) -> Signs:
        step, ended = known.resumed_from.get(number), read_note(run.attempt_file(number, "ended"))
        claimed = read_note(run.attempt(number))
        return Signs(
            claim=claim_in(claimed),
            claimed=time_in(claimed, "started"),
            began=time_in(read_note(run.attempt_from(number, step))) if step is not None else None,
            heartbeat=time_in(read_note(run.attempt_file(number, "heartbeat"))),
            ended=time_in(ended),
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
    if signs.claim is not None and signs.claim.machine == this_process().machine:
        return start_of(signs.claim.pid) == signs.claim.process_started
    last = max((time for time in (signs.claimed, signs.began, signs.heartbeat) if time is not None), default=0.0)
    return now - last < _SILENT_S + _CLOCKS_DIFFER_S


def refuse_a_second(run: RunLayout) -> int:
    """Raise TrainingError where another process trains this run at this moment; returns the newest attempt there is.

    A dead process of this machine is known at once. An attempt elsewhere that has not said that it ended is watched
    for some half a minute, by this machine's clock alone; if its heartbeat stands still, the run is free.
    """
    known = read_attempts(run)
    owner = None if known.newest in known.ended else read_claim(run, known.newest)
    if owner is None:
        return known.newest
    here = this_process()
    if owner.machine != here.machine:
        _watch(run, known.newest, owner)
    elif owner.pid != here.pid and start_of(owner.pid) == owner.process_started:
        raise is_trained_elsewhere(run, known.newest, owner)
    return known.newest


def _watch(run: RunLayout, attempt: int, owner: Claim) -> None:
    """Raise TrainingError where an attempt's heart beats while it is watched."""
    log.info(
        "attempt %d of %s on %s has not said that it ended; looking for %.0f s whether it lives",
        *(attempt, run.name, owner.host, _SILENT_S),
    )
    first, deadline = _heartbeat_of(run, attempt), time.monotonic() + _SILENT_S
    while time.monotonic() < deadline:
        time.sleep(min(1.0, _SILENT_S / 10))
        if attempt in read_attempts(run).ended:
            return
        if _heartbeat_of(run, attempt) != first:
            raise is_trained_elsewhere(run, attempt, owner)


class Heartbeat:
    """Shows others that an attempt's driver lives, and at the end that it has ended.

    Where the claim is not the one with its `nonce` any more, it shows nothing, for it would speak for another.
    """

    def __init__(self, run: RunLayout, attempt: int, *, nonce: str = "") -> None:
        self._run = run
        self._attempt = attempt
        self._nonce = nonce
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
            check_claim(self._run, self._attempt, self._nonce)
            ended = note(failed=error is not None)
            storage.write_bytes(self._run.attempt_file(self._attempt, "ended"), ended)
            storage.remove(self._run.attempt_file(self._attempt, "heartbeat"))
        except ScaletrainError as failure:
            log.warning("cannot note that attempt %d has ended: %s", self._attempt, failure)

    def _beat(self) -> None:
        beats = 0
        while True:
            try:
                check_claim(self._run, self._attempt, self._nonce)
                storage.write_bytes(self._run.attempt_file(self._attempt, "heartbeat"), note(beat=beats))
            except ScaletrainError as failure:
                log.warning("cannot write the heartbeat of attempt %d: %s", self._attempt, failure)
                if isinstance(failure, TrainingError):
                    return
            beats += 1
            if self._ending.wait(HEARTBEAT_S):
                return


def _heartbeat_of(run: RunLayout, attempt: int) -> bytes:
    try:
        return storage.read_bytes(run.attempt_file(attempt, "heartbeat"))
    except NotFoundError:
        return b""
