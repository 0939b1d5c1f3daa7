"""The shipped cluster/aws.yaml, from an empty account to nothing left: two spot workers, one lost on the way.

Everything is what a user has: `scaletrain cluster init`, the unmodified `ray up`, `scaletrain submit`, on an emulated
EC2 that enforces roles, security groups and IMDSv2. Only the idle time-out is shortened.
"""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from commands import SCALETRAIN, TINY
from scaletrain.emulator.ec2 import EmulatedEC2, Instance
from scaletrain.emulator.requirements import missing_requirements

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(missing_requirements()), reason=f"no cloud can be emulated: {missing_requirements()}"),
]
PROJECT = Path(__file__).parents[2]
ROOT = "s3://scaletrain-scenario/team"
RUN = f"{ROOT}/runs/tiny"
# What the run left in the bucket, read where the bucket can be reached.
PROOF = """
import sys, orjson
from scaletrain import checkpoint
from scaletrain.layout import RunLayout
from scaletrain.metrics import read_records
from scaletrain.train import ledger
run = RunLayout(*sys.argv[1:3])
records = read_records(run.ledger)
newest = checkpoint.latest(run)
checkpoint.verify(run.checkpoint(newest.step))
print(orjson.dumps({
    "ledger_hash": ledger.check_chain(records), "committed_hash": newest.ledger_hash, "step": newest.step,
    "attempt": newest.attempt, "world_size": newest.world_size, "zero_stage": newest.zero_stage,
    "steps": [record["step"] for record in records],
    "samples": sorted(sample for record in records for sample in record["samples"]),
}).decode())
"""


class Account:
    """A user on the laptop of an emulated cloud, in a copy of the project."""

    def __init__(self, cloud: EmulatedEC2, folder: Path) -> None:
        self.cloud = cloud
        self.folder = folder
        self.project = folder / "project"
        for name in ("src", "cluster"):
            shutil.copytree(PROJECT / name, self.project / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "constraints.txt", "README.md", "LICENSE"):
            shutil.copy(PROJECT / name, self.project)
        self.file = self.project / "cluster" / "aws.yaml"
        shipped = self.file.read_text()
        assert "idle_timeout_minutes: 5\n" in shipped
        self.file.write_text(shipped.replace("idle_timeout_minutes: 5\n", "idle_timeout_minutes: 0.5\n"))
        self.config = self.project / "tiny.yaml"
        self.config.write_text(TINY.format(root=ROOT))

    def run(self, *command: str, exit_code: int = 0, timeout_s: float = 400) -> str:
        """Run a command on the laptop to its end, in the project's folder; returns what it printed."""
        done = self.cloud.laptop(list(command), cwd=self.project, timeout_s=timeout_s)
        assert done.returncode == exit_code, f"{command} ended with {done.returncode}:\n{done.stdout[-6000:]}"
        return done.stdout

    def scaletrain(self, *arguments: str, exit_code: int = 0, timeout_s: float = 400) -> str:
        return self.run(SCALETRAIN, *arguments, exit_code=exit_code, timeout_s=timeout_s)

    def init(self, *more: str) -> str:
        request = ["--file", str(self.file), "--region", self.cloud.region, "--bucket", ROOT, "--yes"]
        return self.scaletrain("cluster", "init", "aws", *request, *more)

    def start(self, *arguments: str, log: str) -> "subprocess.Popen[bytes]":
        """Start a scaletrain command on the laptop; `log` names the file that gets what it prints."""
        return self.cloud.start_on_laptop([SCALETRAIN, *arguments], output=self.folder / log, cwd=self.project)

    def workers(self) -> list[Instance]:
        return [each for each in self.cloud.instances("running") if each.node_kind == "worker"]

    def keys(self, prefix: str = "") -> list[str]:
        """The keys of the bucket's objects."""
        listed = self.cloud.aws("s3", "list_objects_v2", Bucket="scaletrain-scenario", Prefix=f"team/{prefix}")
        return [each["Key"] for each in listed.get("Contents", [])]

    def proof(self) -> Any:
        told = self.run(sys.executable, "-c", PROOF, ROOT, "tiny")
        return orjson.loads(told.strip().splitlines()[-1])


def wait_for(condition: Callable[[], Any], what: str, *, limit_s: float) -> Any:
    """Return the condition's first true value, or fail after the limit."""
    deadline = time.monotonic() + limit_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {limit_s} s: {what}"
        time.sleep(0.3)
    return value


@pytest.fixture
def account(tmp_path: Path) -> Iterator[Account]:
    with EmulatedEC2(tmp_path / "cloud") as cloud:
        yield Account(cloud, tmp_path)


def test_the_shipped_file_from_an_empty_account_to_nothing_left(account: Account) -> None:
    """Init, check, up, submit, a spot loss in mid-run, the replacement, exact continuation, idle, down, destroy."""
    cloud = account.cloud
    account.init("--ssh-from", f"{cloud.laptop_address}/32")
    assert "nothing to do" in account.init("--ssh-from", f"{cloud.laptop_address}/32")
    account.run("ray", "up", "-y", "--no-config-cache", str(account.file))
    assert account.workers() == []

    # Long enough to lose a machine on the way; a worker takes all CPUs of a machine, so there are two.
    train = ["train", str(account.config), "train.steps=60", "scaling.cpus_per_worker=8"]
    job = account.start("submit", "--cluster", str(account.file), "--", *train, log="submit.log")
    try:
        wait_for(lambda: account.keys("runs/tiny/checkpoints/step-00000008/manifest"), "a commit", limit_s=300)
        assert [(each.market, each.node_type) for each in account.workers()] == [("spot", "cpu")] * 2
        lost = account.workers()[-1]
        cloud.preempt(lost, notice_s=0)
        wait_for(lambda: len({each.id for each in account.workers()} - {lost.id}) == 2, "a replacement", limit_s=60)
        assert job.wait(timeout=300) == 0, (account.folder / "submit.log").read_text()[-6000:]
    finally:
        job.kill()
    told = (account.folder / "submit.log").read_text()
    assert "a worker was lost" in told
    assert "is at step 60 of 60" in told

    proof = account.proof()
    assert proof["steps"] == list(range(1, 61))
    assert proof["ledger_hash"] == proof["committed_hash"]
    assert (proof["step"], proof["attempt"], proof["world_size"], proof["zero_stage"]) == (60, 2, 2, 2)

    wait_for(lambda: not account.workers(), "idle workers go", limit_s=120)
    account.scaletrain("down", str(account.file), "--yes")
    wait_for(lambda: not cloud.machines(), "no machine is left", limit_s=60)
    account.init("--destroy", "--destroy-bucket")
    assert cloud.aws("s3", "list_buckets")["Buckets"] == []
    groups = cloud.aws("ec2", "describe_security_groups")["SecurityGroups"]
    assert [each["GroupName"] for each in groups if each["GroupName"] != "default"] == []
