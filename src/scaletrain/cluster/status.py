"""How a cluster is: its machines, those that are coming and those that did not come, and what runs on it."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from scaletrain import ray_autoscaler
from scaletrain.cluster.cluster_file import ClusterFile
from scaletrain.cluster.head import find_head, use_token_of
from scaletrain.cluster.jobs import JOB_SERVER_PORT, Job, JobServer
from scaletrain.cluster.ssh_tunnel import open_tunnel
from scaletrain.ray_autoscaler import ClusterState, Failure

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

_DEFAULT_GCS_PORT = 6379


@dataclass(frozen=True)
class ClusterStatus:
    """A cluster at one moment; `jobs` are those that have not ended."""

    name: str
    head: str
    state: ClusterState
    failures: tuple[Failure, ...]
    jobs: tuple[Job, ...]

    def record(self) -> dict[str, object]:
        """The status as plain data."""
        return asdict(self)


def read_status(cluster: ClusterFile) -> ClusterStatus:
    """Ask a cluster how it is; raises ClusterError where it is not up or does not answer."""
    use_token_of(cluster)
    host = find_head(cluster)
    with open_tunnel(host, (JOB_SERVER_PORT, gcs_port(cluster))) as (job_port, ray_port):
        server = JobServer(cluster, f"http://127.0.0.1:{job_port}", host)
        state = ray_autoscaler.read_state(f"127.0.0.1:{ray_port}")
        failures = ray_autoscaler.read_failures(state, api_url=server.url)
        jobs = tuple(job for job in server.jobs() if not job.has_ended)
    return ClusterStatus(cluster.name, host.address, state, tuple(failures[-5:]), jobs)


def gcs_port(cluster: ClusterFile) -> int:
    """The port of Ray itself on the head, as the start commands state it."""
    commands = " ".join(cluster.raw.get("head_start_ray_commands") or ())
    match = re.search(r"(?<![\w-])--port[= ](\d+)", commands)
    return int(match[1]) if match else _DEFAULT_GCS_PORT


def status_display(status: ClusterStatus) -> "RenderableType":
    """A status as a person reads it."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    machines = Table("machines", "up", "idle", "in use", "coming")
    for name in dict.fromkeys(
        [*(m.type for m in status.state.machines), *status.state.launching, *status.state.setting_up]
    ):
        up = [machine for machine in status.state.machines if machine.type == name]
        coming = status.state.launching.get(name, 0) + status.state.setting_up.get(name, 0)
        idle = sum(machine.state == "idle" for machine in up)
        machines.add_row(name, str(len(up)), str(idle), _usage(status.state, name), str(coming or "-"))
    parts: list[RenderableType] = [Text(f"{status.name}: head {status.head}"), machines]
    parts += [Text(f"did not come: {failure}", style="yellow") for failure in status.failures]
    parts.append(jobs_table(status.jobs) if status.jobs else Text("no job runs"))
    return Group(*parts)


def jobs_table(jobs: "Sequence[Job]") -> "Table":
    """Jobs as a table, the newest last; a job's id begins with its run's name."""
    from rich.table import Column, Table

    longest = max((len(job.id) for job in jobs), default=3)  # an id is there to be copied
    table = Table(Column("job", no_wrap=True, min_width=longest), "command", "state", "started (UTC)", "minutes")
    for job in jobs:
        started = f"{job.started:%m-%d %H:%M}" if job.started else "-"
        table.add_row(job.id, job.labels.command, job.outcome, started, _minutes(job))
    return table


def _usage(state: ClusterState, name: str) -> str:
    """As "CPU 2/8, GPU 1/1", of all machines of a type together."""
    shown = []
    for resource in ("CPU", "GPU"):
        used = sum(machine.used.get(resource, 0) for machine in state.machines if machine.type == name)
        total = sum(machine.resources.get(resource, 0) for machine in state.machines if machine.type == name)
        shown += [f"{resource} {used:g}/{total:g}"] if total else []
    return ", ".join(shown) or "-"


def _minutes(job: Job) -> str:
    if job.started is None:
        return "-"
    return f"{((job.ended or datetime.now(UTC)) - job.started).total_seconds() / 60:.1f}"
