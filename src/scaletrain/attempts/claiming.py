"""Taking an attempt's number, stating where its workers go on, and looking whether it is still the newest."""

import secrets
from dataclasses import asdict

import orjson

from scaletrain import storage
from scaletrain.attempts.counting import read_attempts
from scaletrain.attempts.owner import is_trained_elsewhere, note, read_claim, this_process
from scaletrain.errors import ScaletrainError, TrainingError
from scaletrain.layout import RunLayout


def new_nonce() -> str:
    """A random text for a claim, by which its processes know it again."""
    return secrets.token_hex(8)


def claim(run: RunLayout, *, nonce: str = "", after: int | None = None) -> int:
    """Take the next free number; nobody else can have the same.

    Where `after` is given, it has to be the number after that one: raises TrainingError where somebody else has taken
    it, who was not there when the caller looked.
    """
    record = orjson.dumps(asdict(this_process(nonce)))
    newest = read_attempts(run).newest
    if after is not None:
        if newest > after or not storage.create(run.attempt(after + 1), record):
            raise _is_taken(run, after + 1)
        return after + 1
    number = newest + 1
    while not storage.create(run.attempt(number), record):
        number += 1
    return number


def begin(run: RunLayout, attempt: int, step: int, *, after: int | None = None, nonce: str = "") -> None:
    """State that an attempt goes on from the commit of `step`, made by attempt `after` (0: from nothing).

    Called before its first own step. Raises TrainingError where it is not the newest. It looks again once it has
    stated it, since the store may have taken long: then its word is taken back. What workers that were killed left
    half-written of their records is removed: nobody but this attempt writes any now.
    """
    check_newest(run, attempt, nonce)
    if after is not None:  # before the other, which is the one that counts
        storage.write_bytes(run.attempt_file(attempt, f"after-{after:04d}"), note())
    is_ours = storage.create(run.attempt_from(attempt, step), note())
    try:
        check_newest(run, attempt, nonce)
    except TrainingError:
        if is_ours:
            storage.remove(run.attempt_from(attempt, step))
        raise
    for folder in (run.metrics, run.ledger):
        storage.remove_half_written(folder)


def check_newest(run: RunLayout, attempt: int, nonce: str = "") -> None:
    """Raise TrainingError where a newer attempt has been claimed, or this one's claim is gone: it has to end."""
    newest = read_attempts(run).newest
    if newest > attempt:
        raise TrainingError(
            f"attempt {attempt} of {run.name} ends: attempt {newest} has taken the run over, and what this one did "
            "after its last commit does not count"
        )
    check_claim(run, attempt, nonce)


def check_claim(run: RunLayout, attempt: int, nonce: str) -> None:
    """Raise TrainingError where the claim of an attempt is not the one that has this nonce ("": nobody knows)."""
    if not nonce:
        return
    owner = read_claim(run, attempt)
    if owner is None or owner.nonce != nonce:
        found = "is gone" if owner is None else f"is that of process {owner.pid} on {owner.host}"
        raise TrainingError(
            f"attempt {attempt} of {run.name} ends: its claim {found}, since the run was removed while it was trained; "
            "nothing more of it is stored. Stop a run before you remove it; the same command trains it anew"
        )


def cause_of(run: RunLayout, attempt: int, error: ScaletrainError, nonce: str = "") -> ScaletrainError:
    """Why a write failed: a newer attempt, if there is one, may have swept away what this one was writing."""
    try:
        check_newest(run, attempt, nonce)
    except TrainingError as taken_over:
        return taken_over
    except ScaletrainError:
        pass  # storage is what failed, and the first error tells it
    return error


def _is_taken(run: RunLayout, attempt: int) -> TrainingError:
    owner = read_claim(run, attempt)
    if owner is None:
        return TrainingError(f"another process has taken attempt {attempt} of {run.name}; give the command again")
    return is_trained_elsewhere(run, attempt, owner)
