"""The commands as a user of Google Cloud types them, from an empty project to an empty project."""

import json
import os
import subprocess
import sys

from cluster_projects import OFFICE, ClusterProject
from google_project import PROJECT, REGION, GoogleProject

PROGRAM = "from scaletrain.cli_cluster import cluster_app; cluster_app(prog_name='scaletrain cluster')"


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
    arguments = ["init", "gcp", "--file", str(project.file), "--region", REGION, "--ssh-from", OFFICE]
    return call(*arguments, "--bucket", f"gs://{project.cluster}/root", *more, answer=answer, exit_code=exit_code)


def test_from_an_empty_project_to_an_empty_project(google: GoogleProject, gcp: ClusterProject) -> None:
    """init shows its plan and fills the file, a second one has nothing to do, check agrees, destroy leaves nothing."""
    first = init(gcp, "--yes")
    assert f"bucket {gcp.cluster}" in first.stdout and "make" in first.stdout
    assert f"Next: scaletrain cluster check {gcp.file}" in first.stdout
    assert "nothing to do" in init(gcp).stdout
    found = json.loads(call("check", str(gcp.file), "--json").stdout)
    assert (found["ok"], found["problems"]) == (True, [])
    for where in ((str(gcp.file),), ("--project", PROJECT, "--cluster", gcp.cluster)):
        assert json.loads(call("sweep-leaks", *where, "--json").stdout) == {"leaks": [], "living": []}
    init(gcp, "--destroy", "--yes")
    assert "nothing to do" in init(gcp, "--destroy").stdout


def test_no_changes_nothing(google: GoogleProject, gcp: ClusterProject) -> None:
    """The question comes after the plan, and a no is a no."""
    before = gcp.file.read_bytes()
    init(gcp, answer="n\n", exit_code=1)
    assert gcp.file.read_bytes() == before


def test_check_lists_every_problem_and_ends_with_2(google: GoogleProject, gcp: ClusterProject) -> None:
    """On stderr for people, as JSON for programs."""
    gcp.edit(("autoDelete: true", "autoDelete: false"), ("max_workers: 24", "max_worker: 24"))
    done = call("check", str(gcp.file), exit_code=2)
    assert "did you mean max_workers?" in done.stderr and done.stdout == ""
    gcp.edit(("max_worker: 24", "max_workers: 24"))
    found = json.loads(call("check", str(gcp.file), "--json", exit_code=2).stdout)
    assert len(found["problems"]) >= 4 and not found["ok"]
