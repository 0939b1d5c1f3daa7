"""Stopping a job without losing what it learned: ask for a stop through the bucket, wait for the commit, then end it.

Ray's own stop kills after a time, RAY_JOB_STOP_WAIT_TIME_S of the cluster file. The request is a file of the run's
newest attempt, which its first worker looks for once a second; the step that runs is finished, saved and committed.
"""

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import orjson

from scaletrain import checkpoint, storage
from scaletrain.cluster.jobs import Job, JobServer
from scaletrain.errors import ClusterError
from scaletrain.layout import RunLayout

_POLL_S = 1.0
_END_WITHIN_S = 90.0  # more than the 60 s after which Ray kills
_ATTEMPT = re.compile(r"attempt-(\d+)\.json$")


def stop_job(server: JobServer, job: Job, *, timeout_s: float, say: Callable[[str], None]) -> Job:
    """Stop a job, a training run after its commit; returns how it ended, and an ended job as it is.

    `say` gets a line of progress now and then. Raises ClusterError where no commit comes within `timeout_s`; the job
    then goes on.
    """
    if job.has_ended:
        return job
    run = job.run
    if job.labels.command not in ("train", "sweep") or run is None:
        say(f"{job.id} has no state to save; ending it")
        return end_now(server, job)
    if storage.is_local(run.root) and not storage.local_path(run.root).is_dir():
        raise ClusterError(
            f"{run.url} is a folder of the cluster's machines, out of reach from here; on the head, create the file "
            f"{run.stop_request(1)} with the number of the newest attempt, or end the job at once with --now"
        )
    storage.configure(run.root, job.labels.options)
    deadline, asked, said_step = time.monotonic() + timeout_s, 0, -1
    while time.monotonic() < deadline:
        job = server.job(job.id)
        if job.has_ended:
            return job
        attempt = newest_attempt(run, since=job.started)
        if attempt is None:
            say("the run has not begun to train: there is nothing to save")
            return end_now(server, job)
        if attempt != asked:  # a lost worker makes a new attempt, which has to be asked anew
            storage.create(run.stop_request(attempt), b"")
            asked = attempt
            say(f"asked attempt {attempt} of {run.name} to finish its step, save and end")
        step = committed_step(run)
        if step != said_step and job.labels.command == "train":
            say(f"committed: step {step}")
            said_step = step
        time.sleep(_POLL_S)
    raise ClusterError(
        f"{job.id} has not ended within {timeout_s:.0f} s after it was asked to; it will at the end of its step. Wait "
        f"with `scaletrain logs {job.id} -f`, or end it now with --now and lose the steps after {committed_step(run)}"
    )


def end_now(server: JobServer, job: Job) -> Job:
    """Have Ray end a job at once; what was not committed is lost."""
    server.end(job.id)
    deadline = time.monotonic() + _END_WITHIN_S
    while not (job := server.job(job.id)).has_ended:
        if time.monotonic() > deadline:
            raise ClusterError(f"{job.id} still runs {_END_WITHIN_S:.0f} s after Ray was told to end it; try again")
        time.sleep(_POLL_S)
    return job


def newest_attempt(run: RunLayout, *, since: datetime | None) -> int | None:
    """The newest attempt of a run that was begun by a job which started at `since`; None where there is none yet."""
    numbers = {
        int(match[1]): info.url
        for info in storage.list_objects(run.attempts)
        if (match := _ATTEMPT.search(info.url)) is not None
    }
    if not numbers:
        return None
    newest = max(numbers)
    begun = datetime.fromisoformat(orjson.loads(storage.read_bytes(numbers[newest]))["started"])
    # Attempts count whole seconds.
    return newest if since is None or begun.astimezone(UTC) >= since - timedelta(seconds=1) else None


def committed_step(run: RunLayout) -> int:
    newest = checkpoint.newest_whole(run)
    return newest.step if newest else 0
