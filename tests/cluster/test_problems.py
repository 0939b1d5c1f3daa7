"""problems: secrets in a file and doors left open are found without asking anybody, and all at once."""

from pathlib import Path

import pytest

from cluster_projects import make_project
from scaletrain.cluster.problems import (
    address_problems,
    file_problems,
    group_problems,
    path_problems,
    secret_problems,
)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("# AKIAIOSFODNN7EXAMPLE", "an AWS access key"),
        ("aws_secret_access_key: wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEYab", "an AWS secret key"),
        ("x: hf_" + "abcdefghijklmnopqrstuvwxyz", "a Hugging Face token"),
        ("x: ghp_" + "abcdefghijklmnopqrstuvwxyz0123456789", "a GitHub token"),
        ("  - export RAY_AUTH_TOKEN=0123456789", "a secret in a command"),
        ("x: " + "0123456789abcdef" * 4, "a token"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----", "a private key"),
        ("private_key_id: 0f0f0f0f", "a key of a Google service account"),
    ],
)
def test_what_looks_like_a_secret_is_found_and_not_shown(tmp_path: Path, line: str, kind: str) -> None:
    """In comments too; the message names the line and repeats nothing of it."""
    path = tmp_path / "c.yaml"
    path.write_text(f"cluster_name: c\n{line}\n")
    (problem,) = secret_problems(path)
    assert problem.startswith(f"line 2: looks like {kind}; ")
    assert line.split()[-1] not in problem


@pytest.mark.parametrize(
    "line", ["image: a@sha256:" + "0123456789abcdef" * 4, "x: RAY_AUTH_MODE=token", "t: $HF_TOKEN"]
)
def test_what_is_no_secret_passes(tmp_path: Path, line: str) -> None:
    """A reference to a secret is the right way."""
    path = tmp_path / "c.yaml"
    path.write_text(line + "\n")
    assert list(secret_problems(path)) == []


@pytest.mark.parametrize("kind", ["aws", "gcp", "local"])
def test_the_shipped_files_have_no_problem_but_being_unfilled(tmp_path: Path, kind: str) -> None:
    """They are the example that every remedy points at."""
    _, problems = file_problems(make_project(tmp_path, kind=kind).file)
    assert len(problems) == 1 and "not filled yet" in problems[0]


def test_doors_left_open_are_all_found(tmp_path: Path) -> None:
    """Each of Ray's unsafe defaults, put back by hand."""
    project = make_project(tmp_path)
    project.edit(
        ("--dashboard-host=127.0.0.1", "--dashboard-host=0.0.0.0"),
        ("RAY_AUTH_MODE=token", "A=b"),
        ("HttpTokens: required", "HttpTokens: optional"),
        ("Encrypted: true", "Encrypted: false"),
        ("  ~/.ray/auth_token:", "  ~/elsewhere:"),
        ("  type: aws\n", "  type: aws\n  security_group: {GroupName: open, IpPermissions: [{CidrIp: 0.0.0.0/0}]}\n"),
    )
    _, problems = file_problems(project.file)
    for part in (
        "head_start_ray_commands: Ray is started without a token",
        "worker_start_ray_commands: Ray is started without a token",
        "the dashboard listens on 0.0.0.0",
        "nothing brings the token",
        "provider.security_group.IpPermissions.0.CidrIp: 0.0.0.0/0 opens the machines",
        "provider.security_group: Ray would make this group",
        "node_types.head.node_config: the machine's credentials can be fetched",
        "node_types.cpu.node_config: the disk /dev/sda1 is not encrypted",
    ):
        assert any(part in problem for problem in problems), part
    assert all(";" in problem for problem in problems), "each with what to do"


def test_a_file_without_start_commands_is_refused() -> None:
    """Ray's own would start it open to anybody."""
    from scaletrain.cluster.problems import start_command_problems

    problems = list(start_command_problems({"cluster_name": "c", "provider": {"type": "local"}}))
    assert sum("without a token" in problem for problem in problems) == 2
    assert any("starts no workers on machines of your own" in problem for problem in problems)


def test_addresses_are_looked_for_everywhere() -> None:
    """IPv6 has a whole world too."""
    assert [each.partition(":")[0] for each in address_problems({"a": [{"b": "::/0"}], "c": "10.0.0.0/8"})] == ["a.0.b"]


def test_a_missing_mount_is_found_before_the_head_starts(tmp_path: Path) -> None:
    """Ray would notice only afterwards, and the head would cost money."""
    (tmp_path / ".venv").mkdir()
    tree = {"file_mounts": {"~/a": str(tmp_path / "none"), "~/b": str(tmp_path)}, "auth": {"ssh_private_key": "/no"}}
    found = list(path_problems(tree))
    assert len(found) == 3 and "there is no" in found[0] and ".venv" in found[1] and "auth.ssh_private_key" in found[2]


def test_gpu_types_that_a_run_could_mix_are_found() -> None:
    """The slowest GPU would set the pace; a type that is switched off does not count."""
    types = {"gpu": {"resources": {"GPU": 1}}, "other": {"resources": {"GPU": 1}}}
    (problem,) = group_problems({"available_node_types": types})
    assert "gpu and other have no group_... resource, so a run could mix their GPUs" in problem
    types["other"]["max_workers"] = 0  # type: ignore[assignment]
    assert list(group_problems({"available_node_types": types})) == []
