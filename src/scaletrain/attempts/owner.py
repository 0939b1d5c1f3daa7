"""Who made an attempt: the process that a claim names, and the small notes that attempts leave beside it."""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from scaletrain import storage
from scaletrain.errors import NotFoundError, TrainingError
from scaletrain.layout import RunLayout


@dataclass(frozen=True)
class Claim:
    """Who made an attempt; `machine` is the same for two processes only if they see each other's pids.

    `process_started` is in clock ticks since that machine's boot, which no change of its clock moves. `nonce` is a
    random text that no other claim has; those that an older version made have none.
    """

    started: str
    host: str
    machine: str
    pid: int
    process_started: int
    nonce: str = ""


def this_process(nonce: str = "") -> Claim:
    """The claim that this process would make now."""
    return Claim(
        started=now(),
        host=socket.gethostname(),
        machine=f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {Path('/proc/self/ns/pid').readlink()}",
        pid=os.getpid(),
        process_started=start_of(os.getpid()) or 0,
        nonce=nonce,
    )


def start_of(pid: int) -> int | None:
    """When a process of this machine started; None where there is none, or it is dead and only not yet reaped."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in ("Z", "X") else int(fields[19])


def read_claim(run: RunLayout, attempt: int) -> Claim | None:
    """Who made an attempt; None where nobody did, or an older version, which says nothing of its process."""
    return claim_in(read_note(run.attempt(attempt)))


def claim_in(note: Mapping[str, Any]) -> Claim | None:
    """The claim that a small file has."""
    try:
        return Claim(**note)
    except TypeError:
        return None


def is_trained_elsewhere(run: RunLayout, attempt: int, owner: Claim) -> TrainingError:
    """What to tell whoever would train a run that another process trains."""
    return TrainingError(
        f"{run.name} is being trained at this moment: attempt {attempt}, process {owner.pid} on {owner.host}, since "
        f"{owner.started}. Stop it first (Ctrl-C there, or `scaletrain stop {run.name}` for a cluster's job), or give "
        "this run another name: name=..."
    )


# --- Notes --------------------------------------------------------------------------------------------------------


def note(**facts: object) -> bytes:
    """What a small file says: the time, and the facts given."""
    return orjson.dumps({"time": now(), **facts})


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def read_note(url: str) -> dict[str, Any]:
    """What a small file says; nothing for one that is not there, or that an older version wrote."""
    try:
        found = orjson.loads(storage.read_bytes(url))
    except (NotFoundError, orjson.JSONDecodeError):
        return {}
    return found if isinstance(found, dict) else {}


def time_in(note: Mapping[str, Any], name: str = "time") -> float | None:
    """A time that a note states, in seconds since 1970 UTC."""
    return datetime.fromisoformat(str(note[name])).timestamp() if name in note else None
