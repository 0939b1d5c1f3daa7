"""Ray's job server on a cluster's head, as scaletrain uses it: what jobs there are, sending one, its log, its end.

It listens on the head's loopback only, so a connection is a tunnel. All of its errors are translated here.
"""

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import orjson

from scaletrain.cluster.cluster_file import ClusterFile
from scaletrain.cluster.head import find_head, quieten_ray, token_file, use_token_of
from scaletrain.cluster.phases import Phases
from scaletrain.cluster.ssh_tunnel import Host, UnreachableError, open_tunnel
from scaletrain.errors import ClusterError, ConfigError
from scaletrain.layout import RunLayout
from scaletrain.sweep.records import SweepLayout

JOB_SERVER_PORT = 8265
_STOPPED_BY_REQUEST = 130

Outcome = Literal["waiting", "running", "succeeded", "failed", "stopped"]
_OUTCOMES: dict[str, Outcome] = {
    "PENDING": "waiting",
    "RUNNING": "running",
    "SUCCEEDED": "succeeded",
    "FAILED": "failed",
    "STOPPED": "stopped",
}


@dataclass(frozen=True)
class JobLabels:
    """What a job says of itself to whoever lists the jobs; `options` are the storage root's, never a secret."""

    command: str
    run: str
    root: str
    options: Mapping[str, str | int | float | bool]

    def metadata(self) -> dict[str, str]:
        """The labels as Ray keeps them: text only."""
        options = orjson.dumps(dict(self.options)).decode()
        return {
            "scaletrain_command": self.command,
            "scaletrain_run": self.run,
            "scaletrain_root": self.root,
            "scaletrain_options": options,
        }

    @classmethod
    def of_metadata(cls, metadata: Mapping[str, str]) -> "JobLabels":
        return cls(
            command=metadata.get("scaletrain_command", ""),
            run=metadata.get("scaletrain_run", ""),
            root=metadata.get("scaletrain_root", ""),
            options=orjson.loads(metadata.get("scaletrain_options") or "{}"),
        )


@dataclass(frozen=True)
class Job:
    """One job of a cluster; `exit_code` is its command's, `message` what Ray says of its state."""

    id: str
    labels: JobLabels
    outcome: Outcome
    exit_code: int | None
    started: datetime | None
    ended: datetime | None
    message: str

    @property
    def has_ended(self) -> bool:
        return self.outcome not in ("waiting", "running")

    @property
    def run(self) -> RunLayout | None:
        """The run or the sweep that the job works on, if it works on one."""
        return layout_of(self.labels.command, self.labels.root, self.labels.run) if self.labels.run else None

    def record(self) -> dict[str, object]:
        """The job as plain data."""
        return asdict(self)


def layout_of(command: str, root: str, name: str) -> RunLayout:
    """Where what a command works on lies."""
    return SweepLayout(root, name) if command == "sweep" else RunLayout(root, name)


@dataclass(frozen=True)
class JobRequest:
    """All that the job server is told: nothing in it may be a secret. `package` is a zip archive of code."""

    id: str
    entry_point: str
    labels: JobLabels
    package: bytes | None
    env_vars: Mapping[str, str]
    num_cpus: float
    num_gpus: float


@contextmanager
def connected(cluster: ClusterFile, phases: Phases | None = None) -> Iterator["JobServer"]:
    """Reach the job server of a cluster for as long as the block runs; raises ClusterError where it cannot be."""
    phases = phases or Phases()
    use_token_of(cluster)
    with phases.timed("find the head"):
        host = find_head(cluster)
    with ExitStack() as stack:
        with phases.timed("open the tunnel"):
            (port,) = stack.enter_context(open_tunnel(host, (JOB_SERVER_PORT,)))
        with phases.timed("connect"):
            server = JobServer(cluster, f"http://127.0.0.1:{port}", host)
        yield server


def serves_jobs(cluster: ClusterFile, host: Host) -> bool:
    """Whether Ray still runs on a machine that was the head of a cluster."""
    try:
        with open_tunnel(host, (JOB_SERVER_PORT,)) as (port,):
            JobServer(cluster, f"http://127.0.0.1:{port}", host)
    except UnreachableError:
        return False
    return True


class JobServer:
    """A connection to a cluster's job server on `host`, at a local URL."""

    def __init__(self, cluster: ClusterFile, url: str, host: Host) -> None:
        self.url = url
        self.host = host
        self._cluster = cluster
        with self._errors():
            from ray.job_submission import JobSubmissionClient

            quieten_ray()
            self._client = JobSubmissionClient(url)

    def jobs(self) -> list[Job]:
        """Every job since the head started, the oldest first."""
        with self._errors():
            found = self._client.list_jobs()
        jobs = [_job(details) for details in found if details.submission_id]
        return sorted(jobs, key=lambda job: job.started or datetime.max.replace(tzinfo=UTC))

    def job(self, job_id: str) -> Job:
        with self._errors(job_id):
            return _job(self._client.get_job_info(job_id))

    def find(self, name: str) -> Job:
        """The job that a user means: by its id, or the newest one of a run, an active one before an ended one."""
        jobs = self.jobs()
        found = [job for job in jobs if name in (job.id, job.labels.run)]
        if not found:
            known = ", ".join(job.id for job in jobs[-5:]) or "none"
            raise ConfigError(
                f"{name}: the cluster {self._cluster.name} has no such job or run; the newest are: {known}"
            )
        return max(found, key=lambda job: (not job.has_ended, found.index(job)))

    def submit(self, request: JobRequest) -> None:
        """Send a job; raises ClusterError where the server refuses it."""
        with TemporaryDirectory(prefix="scaletrain-submit-") as folder, self._errors():
            runtime_env: dict[str, Any] = {"env_vars": dict(request.env_vars)} if request.env_vars else {}
            if request.package is not None:
                archive = Path(folder) / "project.zip"
                archive.write_bytes(request.package)
                runtime_env["working_dir"] = str(archive)  # Ray uploads it unless it has these very bytes already
            self._client.submit_job(
                entrypoint=request.entry_point,
                submission_id=request.id,
                runtime_env=runtime_env,
                metadata=request.labels.metadata(),
                entrypoint_num_cpus=request.num_cpus or None,
                entrypoint_num_gpus=request.num_gpus or None,
            )

    def end(self, job_id: str) -> None:
        """Have Ray end a job: SIGTERM now, SIGKILL once RAY_JOB_STOP_WAIT_TIME_S of the head is over."""
        with self._errors(job_id):
            self._client.stop_job(job_id)

    def log_text(self, job_id: str) -> str:
        """All that the job's command has written so far."""
        with self._errors(job_id):
            return self._client.get_job_logs(job_id)

    def tail(self, job_id: str, write: Callable[[str], None]) -> None:
        """Give `write` the job's log from its beginning, as it grows, until the job ends."""

        async def read() -> None:
            async for text in self._client.tail_job_logs(job_id):
                write(text)

        with self._errors(job_id):
            asyncio.run(read())

    @contextmanager
    def _errors(self, job_id: str = "") -> Iterator[None]:
        import aiohttp
        import requests
        from ray.exceptions import AuthenticationError

        try:
            yield
        except AuthenticationError as error:
            raise ClusterError(self._token_advice()) from error
        except aiohttp.WSServerHandshakeError as error:
            if error.status in (401, 403):
                raise ClusterError(self._token_advice()) from error
            raise UnreachableError(self._silence(error)) from error
        except (ConnectionError, requests.RequestException, aiohttp.ClientError) as error:
            raise UnreachableError(self._silence(error)) from error
        except RuntimeError as error:
            text = str(error)
            if "status code 404" in text and job_id:
                raise ClusterError(
                    f"{job_id}: the head knows no such job (a new head has forgotten the jobs of the old one; what "
                    "they committed is in the bucket): submit the same command again"
                ) from error
            if "closed unexpectedly" in text or "WebSocket" in text:
                raise UnreachableError(self._silence(error)) from error
            raise ClusterError(f"the job server of {self._cluster.name} refused: {_last_line(text)}") from error

    def _silence(self, error: Exception) -> str:
        return (
            f"the head of {self._cluster.name} can be reached, but its job server does not answer "
            f"({type(error).__name__}); is Ray running there? See: ray exec {self._cluster.path} 'ray status'"
        )

    def _token_advice(self) -> str:
        return (
            f"the cluster {self._cluster.name} refused the token ({token_file(self._cluster) or 'none was found'}): it "
            "must be the one that the cluster was started with; after a change of it, restart Ray there"
        )


def _job(details: Any) -> Job:
    outcome = _OUTCOMES[str(details.status.value if hasattr(details.status, "value") else details.status)]
    if outcome == "failed" and details.driver_exit_code == _STOPPED_BY_REQUEST:
        outcome = "stopped"  # the command was asked to stop, and saved its state first
    return Job(
        id=details.submission_id,
        labels=JobLabels.of_metadata(details.metadata or {}),
        outcome=outcome,
        exit_code=details.driver_exit_code,
        started=_time(details.start_time),
        ended=_time(details.end_time),
        message=re.sub(r"\s+", " ", (details.message or "").partition("last available logs")[0]).strip(" ,"),
    )


def _time(milliseconds: int | None) -> datetime | None:
    return datetime.fromtimestamp(milliseconds / 1000, UTC) if milliseconds else None


def _last_line(text: str) -> str:
    """The last line of a remote traceback says what went wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip(" .")]
    return lines[-1] if lines else "no reason given"
