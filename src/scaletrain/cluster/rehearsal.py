"""`scaletrain cluster test FILE`: a cluster file brought up on an emulated cloud by the real `ray up`, phase by phase.

Costs nothing and needs no account; takes a minute or two. What it cannot show: whether the real account has what the
file names, GPUs and their driver, prices, quotas, and how long real machines need to boot.
"""

import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from scaletrain.cluster import aws_rehearsal, gcp_rehearsal
from scaletrain.cluster import rehearsal_phases as steps
from scaletrain.cluster.cluster_file import ClusterFile, load_cluster_file
from scaletrain.emulator.ec2 import emulated_ec2
from scaletrain.emulator.emulated_cloud import EmulatedCloud
from scaletrain.emulator.gce import emulated_gce
from scaletrain.errors import ClusterError, ConfigError

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True)
class Phase:
    """One step of a rehearsal and its verdict; `log_line` is the line that says why it failed."""

    name: str
    status: Literal["ok", "failed", "skipped"]
    took_s: float
    found: str
    log_line: str = ""


@dataclass(frozen=True)
class Rehearsal:
    """How it went: each phase, what was assumed of the account, what was changed in the file, where the logs lie."""

    file: Path
    phases: tuple[Phase, ...]
    assumed: tuple[str, ...]
    changes: tuple[str, ...]
    logs: Path | None

    @property
    def passed(self) -> bool:
        """Whether no phase failed."""
        return all(phase.status != "failed" for phase in self.phases)

    def record(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON."""
        return {**asdict(self), "file": str(self.file), "logs": str(self.logs or ""), "passed": self.passed}

    def display(self) -> "RenderableType":
        """Return everything for the terminal."""
        from rich.console import Group
        from rich.markup import escape
        from rich.table import Table

        colours = {"ok": "green", "failed": "bold red", "skipped": "yellow"}
        table = Table("phase", "", "seconds", "found")
        for each in self.phases:
            line = f"\n{each.log_line}" if each.log_line else ""
            mark = f"[{colours[each.status]}]{each.status}[/]"
            table.add_row(each.name, mark, f"{each.took_s:.1f}", escape(each.found + line))
        notes = [f"Changed in the file: {', '.join(self.changes) or 'nothing'}", "Taken for granted in your account:"]
        notes += [f"  - {escape(each)}" for each in self.assumed]
        return Group(table, *notes, *([f"Logs: {self.logs}"] if self.logs else []))


@dataclass
class _Course:
    """The phases so far; one that failed makes the following ones pointless, but for those that clear up."""

    on_phase: Callable[[Phase], None]
    phases: list[Phase] = field(default_factory=list)

    def run(self, name: str, work: Callable[[], str], *, always: bool = False) -> None:
        """Do one phase and keep its verdict."""
        began = time.monotonic()
        if not always and any(each.status == "failed" for each in self.phases):
            phase = Phase(name, "skipped", 0.0, "")
        else:
            try:
                found = work()
                phase = Phase(name, "ok", time.monotonic() - began, found)
            except steps.Failed as error:
                took_s = time.monotonic() - began
                phase = Phase(name, "failed", took_s, error.verdict.reason, error.verdict.line)
            except ClusterError as error:
                phase = Phase(name, "failed", time.monotonic() - began, str(error))
        self.phases.append(phase)
        self.on_phase(phase)


def rehearse(path: str | Path, *, keep: bool = False, on_phase: Callable[[Phase], None] | None = None) -> Rehearsal:
    """Bring a file's cluster up, let it start a worker, try the bucket from there, look for open ports, take it down.

    The logs stay where the rehearsal failed, or with `keep`. Raises ConfigError for a file that Ray's schema refuses
    or a cloud that is not emulated yet, ClusterError where this computer cannot emulate one.
    """
    file = load_cluster_file(path)
    if file.provider not in ("aws", "gcp"):
        raise ConfigError(
            f"{path}: provider.type={file.provider} is not emulated, aws and gcp are; bring it up: ray up {path}"
        )
    folder = Path(tempfile.mkdtemp(prefix="scaletrain-rehearsal-"))
    course = _Course(on_phase or (lambda phase: None))
    kept = False
    try:
        assumed = _run_course(course, folder, file)
        kept = keep or any(each.status == "failed" for each in course.phases)
    finally:
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)
    return Rehearsal(file.path, tuple(course.phases), tuple(assumed), (), folder if kept else None)


def _run_course(course: _Course, folder: Path, file: ClusterFile) -> list[str]:
    """Do all phases, and return what was assumed of the account."""
    assumed: list[str] = []
    worker: dict[str, Any] = {}
    with _emulate(folder, file) as cloud:

        def furnish_account() -> str:
            account = aws_rehearsal if cloud.provider == "aws" else gcp_rehearsal
            assumed.extend(account.furnish(cloud, file))
            return f"{len(assumed)} things that the file names"

        def start_worker() -> str:
            worker.update(steps.start_worker(cloud, file))
            return f"{worker['node_type']} runs a job"

        course.run("account", furnish_account)
        course.run("ray up", lambda: steps.bring_up(cloud, file))
        course.run("head", lambda: steps.ask_head(cloud, file))
        course.run("worker", start_worker)
        course.run("bucket", lambda: steps.judge_bucket(file, worker))
        course.run("ports", lambda: steps.scan_ports(cloud, file))
        steps.keep_logs(cloud)
        began = course.phases[1].status != "skipped"
        course.run("ray down", lambda: steps.take_down(cloud, file), always=began)
        course.run("nothing left", lambda: steps.look_for_rest(cloud), always=began)
    return assumed


def _emulate(folder: Path, file: ClusterFile) -> EmulatedCloud:
    if file.provider == "gcp":
        project = str(file.raw["provider"]["project_id"])
        return emulated_gce(folder, project=project, region=str(file.region), internet=True)
    types = [each.instance_type for each in file.node_types if each.instance_type]
    region = file.region or "us-west-2"
    return emulated_ec2(folder, region=region, internet=True, image_user=file.ssh_user, instance_types=types)
