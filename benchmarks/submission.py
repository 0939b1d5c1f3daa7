"""From `scaletrain submit` to the command running on the head, by phase, beside `ray job submit` of the same command.

    python benchmarks/submission.py [--write benchmarks/results/submission.md]

The head is a machine of its own on this one (namespaces, SSH, a bucket, Ray with a token), started by the real
`ray up`. `scaletrain submit` comes in by SSH, as from a laptop; `ray job submit` is given the head's job server on the
loopback, the same files as its working directory and the same entry point, and nothing to check, to find or to write.
Both end at the line that the job's supervisor on the head logs just before it starts the command. The command itself
is a training run that has reached its last step. Takes some eight minutes; needs root, sshd and rsync.
"""

import argparse
import os
import re
import shlex
import sys
import tempfile
import time
import uuid
import zipfile
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from pathlib import Path

import orjson

import measure
from scaletrain.cluster.packing_project import pack_project
from scaletrain.config_file import parse_config

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from commands import TINY
from one_machine import BUCKET, Machine, missing

OURS, RAY = "scaletrain submit", "ray job submit"
BOUND_S = 1.5
OUTSIDE, AFTER = "start of Python, imports, the process's end", "from the command's end to the job's command"
WORDS = ("train", "tiny.yaml", "train.steps=2")
_STARTS = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3})\t.*Submitting job with RAY_ADDRESS", re.MULTILINE)
_WITH_TOKEN = {"RAY_AUTH_MODE": "token", "RAY_API_SERVER_ADDRESS": "http://127.0.0.1:8265"}


def main() -> None:
    """Measure, and print what was found as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, help="keep the report in this file too")
    parser.add_argument("--rounds", type=int, default=12, help="how often each arm runs (default: %(default)s)")
    arguments = parser.parse_args()
    if problem := missing():
        print(f"skipped: the head cannot be emulated here: it {problem}", file=sys.stderr)
        return
    machine = measure.machine("ray")
    with tempfile.TemporaryDirectory(prefix="scaletrain-benchmark-") as folder:
        head = Head(Path(folder))
        try:
            report = compare(head, rounds=arguments.rounds)
        finally:
            head.machine.end()
    measure.publish(f"# Submitting a job\n\n{machine}\n\n{report}", arguments.write)


@dataclass(frozen=True)
class Submitted:
    """One submission: seconds until the job's command ran, CPU seconds of the submitting command, and its phases."""

    wall_s: float
    cpu_s: float
    phases_s: dict[str, float]


class Head:
    """A cluster of one machine that is up, and a training run on it that has ended."""

    def __init__(self, folder: Path) -> None:
        self.machine = Machine(folder)
        self.folder = folder
        text = TINY.format(root=BUCKET)
        (folder / "tiny.yaml").write_text(text)
        self.package = folder / "package"  # what `scaletrain submit` sends along, unpacked
        self.package.mkdir()
        packed = pack_project(parse_config(text, source="tiny.yaml"))
        if packed is not None:
            zipfile.ZipFile(BytesIO(packed)).extractall(self.package)
        self.with_token = {**_WITH_TOKEN, "RAY_AUTH_TOKEN_PATH": str(folder / "auth_token")}
        self.machine.succeed("python", "-c", "import boto3; boto3.client('s3').create_bucket(Bucket='bucket')")
        self.file = self.machine.write_cluster_file()
        self.machine.succeed("ray", "up", "-y", self.file)
        self.machine.succeed("scaletrain", "submit", "--cluster", self.file, "--", *WORDS)
        self.config_url = self._config_url()

    def submit(self) -> Submitted:
        """Submit as we do."""
        command = ["scaletrain", "submit", "--cluster", self.file, "--no-follow", "--json", "--", *WORDS]
        began, cpu_s, text = time.time(), _children_cpu_s(), self.machine.succeed(*command)
        ended, cpu_s = time.time(), _children_cpu_s() - cpu_s
        told = orjson.loads(text)
        phases: dict[str, float] = told["phases_s"]
        running = self._running_at(told["job"])
        rest = {OUTSIDE: ended - began - sum(phases.values()), AFTER: running - ended}
        return Submitted(running - began, cpu_s, {**phases, **rest})

    def submit_by_ray(self) -> Submitted:
        """Submit the same command as Ray does."""
        job_id = f"by-ray-{uuid.uuid4().hex[:8]}"
        command = ["ray", "job", "submit", "--no-wait", "--submission-id", job_id, "--working-dir", str(self.package)]
        command += ["--", "python", "-m", "scaletrain.job_entry", "--", "train", self.config_url]
        began, cpu_s = time.time(), _children_cpu_s()
        self.machine.succeed(*command, **self.with_token)
        ended, cpu_s = time.time(), _children_cpu_s() - cpu_s
        running = self._running_at(job_id)
        return Submitted(running - began, cpu_s, {"the whole command": ended - began, AFTER: running - ended})

    def _running_at(self, job_id: str) -> float:
        """When the job's supervisor started the command; waits for its end, so that nothing runs when it returns."""
        self.machine.succeed("scaletrain", "logs", job_id, "--follow", "--cluster", self.file)
        (log,) = (self.folder / "ray").glob(f"session_2*/logs/jobs/supervisor-{job_id}.log")
        found = _STARTS.search(log.read_text())
        assert found, log.read_text()
        return datetime.strptime(found[1], "%Y-%m-%d %H:%M:%S,%f").timestamp()

    def _config_url(self) -> str:
        (key,) = [key for key in self.machine.objects() if "/submitted/" in key]
        return f"{BUCKET.rpartition('/')[0]}/{key}"


def compare(head: Head, *, rounds: int) -> str:
    """Run the arms in turns; returns the report."""
    arms = {OURS: head.submit, RAY: head.submit_by_ray, RAY + measure.AGAIN: head.submit_by_ray}
    found: dict[str, list[Submitted]] = {name: [] for name in arms}
    for number in range(rounds + 1):
        for name in list(arms) if number % 2 else list(arms)[::-1]:
            submitted = arms[name]()
            if number:  # the first round warms up
                found[name].append(submitted)
    rows = []
    for name, each in found.items():
        walls = [one.wall_s - ray.wall_s for one, ray in zip(each, found[RAY], strict=True)]
        cpus = [one.cpu_s - ray.cpu_s for one, ray in zip(each, found[RAY], strict=True)]
        over = ["", ""] if name == RAY else [format(measure.interval(values), ".2f") for values in (walls, cpus)]
        wall, cpu = ([getattr(one, kind) for one in each] for kind in ("wall_s", "cpu_s"))
        rows.append([name, f"{measure.interval(wall):.2f}", over[0], f"{measure.interval(cpu):.2f}", over[1]])
    header = ["from the command to the job's command running", "s", f"over {RAY} (bound: {BOUND_S})"]
    return "\n\n".join(
        [
            measure.markdown_table([*header, "CPU s of the command", f"over {RAY}"], rows),
            f"{rounds} rounds, medians with 95% intervals, differences round by round; the last line is the A/A "
            f"control. Load {os.getloadavg()[0]:.1f} after the last arm.",
            measure.markdown_table(["", "phase", "s"], _phase_rows(found)),
            f"The command: `{shlex.join(['scaletrain', *WORDS])}`, of a run that has ended. Phases in order; {OURS} "
            "tells its own (`--no-follow --json`).",
        ]
    )


def _phase_rows(found: dict[str, list[Submitted]]) -> list[list[str]]:
    return [
        [name, phase, format(measure.interval([each.phases_s[phase] for each in found[name]]), ".2f")]
        for name in (OURS, RAY)
        for phase in found[name][0].phases_s
    ]


def _children_cpu_s() -> float:
    """CPU seconds of every child that has ended, and of those that it waited for."""
    times = os.times()
    return times.children_user + times.children_system


if __name__ == "__main__":
    main()
