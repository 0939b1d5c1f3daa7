"""A user on the laptop of an emulated cloud: what they type in a copy of the project, and what comes of it."""

import base64
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from commands import SCALETRAIN, TINY
from scaletrain.emulator.emulated_cloud import EmulatedCloud, Instance

PROJECT = Path(__file__).parents[2]
ROOT, GOOGLE_ROOT = "s3://scaletrain-scenario/team", "gs://scaletrain-scenario/team"
SOURCES = {"PYTHONPATH": str(PROJECT / "src")}  # what is tested, installed or not
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
}).decode())
"""


class Account:
    """A user on the laptop of an emulated cloud, in a copy of the project; `extensions` is a folder of its machines."""

    def __init__(self, cloud: EmulatedCloud, folder: Path, extensions: Path) -> None:
        self.cloud = cloud
        self.provider = cloud.provider
        self.root = ROOT if self.provider == "aws" else GOOGLE_ROOT
        self._extensions = extensions
        self.folder = folder
        self.project = folder / "project"
        for name in ("src", "cluster"):
            shutil.copytree(PROJECT / name, self.project / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "constraints.txt", "README.md", "LICENSE"):
            shutil.copy(PROJECT / name, self.project)
        self.file = self.project / "cluster" / f"{self.provider}.yaml"
        shipped = self.file.read_text()
        assert "idle_timeout_minutes: 5\n" in shipped
        self.file.write_text(shipped.replace("idle_timeout_minutes: 5\n", "idle_timeout_minutes: 0.5\n"))
        self.config = self.project / "tiny.yaml"
        self.config.write_text(TINY.format(root=self.root))

    def run(self, *command: str, exit_code: int = 0, timeout_s: float = 400) -> str:
        """Run a command on the laptop to its end, in the project's folder; returns what it printed."""
        done = self.cloud.laptop(list(command), cwd=self.project, env=SOURCES, timeout_s=timeout_s)
        assert done.returncode == exit_code, f"{command} ended with {done.returncode}:\n{done.stdout[-6000:]}"
        return done.stdout

    def scaletrain(self, *arguments: str, exit_code: int = 0, timeout_s: float = 400) -> str:
        return self.run(SCALETRAIN, *arguments, exit_code=exit_code, timeout_s=timeout_s)

    def init(self, *more: str) -> str:
        request = ["--file", str(self.file), "--region", self.cloud.region, "--bucket", self.root, "--yes"]
        return self.scaletrain("cluster", "init", self.provider, *request, *more)

    def keep_secret(self, value: str) -> str:
        """Put a secret where the cloud keeps them, and return the reference by which a job has it as HF_TOKEN."""
        if self.provider == "aws":
            self.cloud.call("ssm", "put_parameter", Name="/scaletrain/hf-token", Value=value, Type="SecureString")
            return "HF_TOKEN=ssm:/scaletrain/hf-token"
        secrets, name = "projects.secrets", "scaletrain-hf-token"
        parent = f"projects/{self.cloud.project}"
        body: dict[str, Any] = {"replication": {"automatic": {}}}
        self.cloud.call("secretmanager", f"{secrets}.create", parent=parent, secretId=name, body=body)
        version = {"payload": {"data": base64.b64encode(value.encode()).decode()}}
        place = f"{parent}/secrets/{name}"
        self.cloud.call("secretmanager", f"{secrets}.addVersion", parent=place, body=version)
        return f"HF_TOKEN=gcp:{name}"

    def start(self, *arguments: str, log: str) -> "subprocess.Popen[bytes]":
        """Start a scaletrain command on the laptop; `log` names the file that gets what it prints."""
        command, output = [SCALETRAIN, *arguments], self.folder / log
        return self.cloud.start_on_laptop(command, output=output, env=SOURCES, cwd=self.project)

    def submit(self, *command: str, options: Sequence[str] = (), log: str) -> "subprocess.Popen[bytes]":
        """Start to submit a command and to follow it."""
        # The second one for the reason that tests/conftest.py gives: all machines compute on the cores of this one.
        settings = (f"TORCH_EXTENSIONS_DIR={self._extensions}", "OMP_WAIT_POLICY=PASSIVE")
        env = [word for each in settings for word in ("--env", each)]
        return self.start("submit", "--cluster", str(self.file), *env, *options, "--", *command, log=log)

    def head(self) -> Instance:
        (found,) = (each for each in self.cloud.instances("running") if each.node_kind == "head")
        return found

    def workers(self) -> list[Instance]:
        return [each for each in self.cloud.instances("running") if each.node_kind == "worker"]

    def keys(self, prefix: str = "") -> list[str]:
        """The keys of the bucket's objects."""
        if self.provider == "gcp":
            found = self.cloud.call("storage", "objects.list", bucket="scaletrain-scenario", prefix=f"team/{prefix}")
            return [each["name"] for each in found.get("items", [])]
        listed = self.cloud.call("s3", "list_objects_v2", Bucket="scaletrain-scenario", Prefix=f"team/{prefix}")
        return [each["Key"] for each in listed.get("Contents", [])]

    def newest_commit(self) -> int:
        """The newest step that has a manifest; 0 before the first."""
        steps = [key.split("/")[-2] for key in self.keys("runs/tiny/checkpoints/") if key.endswith("/manifest.json")]
        return max((int(step.removeprefix("step-")) for step in steps), default=0)

    def exit_code(self, started: "subprocess.Popen[bytes]", *, log: str, limit_s: float) -> int:
        """Wait for the end of a started command; one that does not come is told with what was printed so far."""
        try:
            return started.wait(timeout=limit_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"not ended within {limit_s} s:\n{self.read(log)[-6000:]}") from None

    def read(self, log: str) -> str:
        """What a started command has printed so far."""
        return (self.folder / log).read_text()

    def proof(self) -> Any:
        told = self.run(sys.executable, "-c", PROOF, self.root, "tiny")
        return orjson.loads(told.strip().splitlines()[-1])
