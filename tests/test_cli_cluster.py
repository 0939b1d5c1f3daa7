"""cli_cluster: the commands as a user types them, from an empty account to an empty account."""

import json
import os
import subprocess
import sys
from pathlib import Path

import boto3
import pytest

from cluster_projects import IMAGE, OFFICE, REGION, ClusterProject, make_project, use_known_image

PROGRAM = "from scaletrain.cli_cluster import cluster_app; cluster_app(prog_name='scaletrain cluster')"


@pytest.fixture
def project(s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClusterProject:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    made = make_project(tmp_path)
    use_known_image(made)
    return made


def call(*arguments: str, exit_code: int = 0, answer: str = "") -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", PROGRAM, *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, input=answer, timeout=120, env=dict(os.environ), check=False
    )
    assert done.returncode == exit_code, done.stdout + done.stderr
    return done


def init(
    project: ClusterProject, *more: str, answer: str = "", exit_code: int = 0
) -> "subprocess.CompletedProcess[str]":
    arguments = ["init", "aws", "--file", str(project.file), "--region", REGION, "--ssh-from", OFFICE]
    return call(*arguments, "--bucket", f"s3://{project.cluster}/root", *more, answer=answer, exit_code=exit_code)


def test_from_an_empty_account_to_an_empty_account(project: ClusterProject) -> None:
    """init shows its plan and fills the file, a second one has nothing to do, check agrees, destroy leaves nothing."""
    first = init(project, "--yes")
    assert f"bucket {project.cluster}" in first.stdout and "make" in first.stdout
    assert f"Next: scaletrain cluster check {project.file}" in first.stdout
    assert "nothing to do" in init(project).stdout
    found = json.loads(call("check", str(project.file), "--json").stdout)
    assert (found["ok"], found["problems"]) == (True, [])
    assert json.loads(call("sweep-leaks", str(project.file), "--json").stdout) == {"leaks": [], "living": []}
    init(project, "--destroy", "--yes")
    assert "nothing to do" in init(project, "--destroy").stdout


def test_sweep_leaks_tells_a_head_that_runs(project: ClusterProject) -> None:
    """It is no leak, so the exit code stays 0; where and since when, and how to end it."""
    tags = {"ray-cluster-name": project.cluster, "ray-node-type": "head"}
    spec = [{"ResourceType": "instance", "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}]
    boto3.client("ec2", region_name=REGION).run_instances(
        ImageId=IMAGE, MinCount=1, MaxCount=1, InstanceType="m5.large", TagSpecifications=spec
    )
    where = ("--cluster", project.cluster, "--region", REGION)
    told = call("sweep-leaks", *where).stdout.splitlines()[-1]
    assert told.startswith(f"not a leak, but it costs money: {project.cluster}: head i-")
    assert told.endswith(", 0 workers; end it: scaletrain down FILE")
    found = json.loads(call("sweep-leaks", *where, "--json").stdout)
    assert (found["leaks"], [each["cluster"] for each in found["living"]]) == ([], [project.cluster])


def test_no_changes_nothing(project: ClusterProject) -> None:
    """The question comes after the plan, and a no is a no."""
    before = project.file.read_bytes()
    init(project, answer="n\n", exit_code=1)
    assert project.file.read_bytes() == before and not (Path.home() / ".scaletrain").exists()


def test_check_lists_every_problem_and_ends_with_2(project: ClusterProject) -> None:
    """On stderr for people, as JSON for programs."""
    project.edit(("Encrypted: true", "Encrypted: false"), ("max_workers: 8", "max_worker: 8"))
    done = call("check", str(project.file), exit_code=2)
    assert "did you mean max_workers?" in done.stderr and done.stdout == ""
    project.edit(("max_worker: 8", "max_workers: 8"))
    found = json.loads(call("check", str(project.file), "--json", exit_code=2).stdout)
    assert len(found["problems"]) >= 4 and not found["ok"]


@pytest.mark.parametrize(
    "command", ["", "init", "init aws", "init gcp", "init local", "check", "sweep-leaks", "image", "test"]
)
def test_every_command_explains_itself(command: str) -> None:
    """Its help says what it does and what each option means."""
    shown = call(*command.split(), "--help").stdout
    assert f"Usage: scaletrain cluster {command}".rstrip() in shown
