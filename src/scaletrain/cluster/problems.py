"""What can be said against a cluster file without asking anybody: mistakes, secrets in it, and doors left open."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from scaletrain.cluster.auth_token import token_problem
from scaletrain.cluster.aws_file import aws_file_problems
from scaletrain.cluster.cluster_file import UNFILLED, read_tree, unfilled_places, unfilled_problem
from scaletrain.cluster.gcp_file import gcp_file_problems
from scaletrain.cluster.schema import schema_problems
from scaletrain.cluster.secrecy import SECRETS
from scaletrain.errors import ScaletrainError

_TOKEN_PLACE = "~/.ray/auth_token"
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
# Besides what is a secret anywhere: in a cluster file there is no other reason for such a text.
_SECRETS = SECRETS | {
    "an AWS secret key": re.compile(r"(?i)secret\w*[\"']?\s*[:=]\s*[\"']?[A-Za-z0-9/+]{40}\b"),
    "a key of a Google service account": re.compile(r"\bprivate_key(?:_id)?[\"']?\s*[:=]"),
    "a token": re.compile(r"(?<!sha256:)\b[0-9a-f]{64}\b"),
    "a secret in a command": re.compile(r"\b\w*(?:TOKEN|SECRET|PASSWORD|API_?KEY)\w*=[\"']?(?![$~/])[^\s\"';]{8,}"),
}

_KEYS_IN_FILE = {
    "aws_credentials": "`aws configure` or `aws sso login`",
    "gcp_credentials": "`gcloud auth application-default login`",
}


def file_problems(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Return a cluster file's tree and every problem of it, each with what to do.

    Problems of form come alone, since what a malformed file means cannot be said. Raises ConfigError where the file
    cannot be read at all.
    """
    tree, problems = read_tree(path)
    problems += secret_problems(path)
    problems += schema_problems(tree)
    if problems and schema_problems(tree):
        return tree, problems
    if places := unfilled_places(tree):
        problems.append(unfilled_problem(path, tree, places))
    problems += start_command_problems(tree)
    problems += address_problems(tree)
    problems += path_problems(tree)
    if tree["provider"]["type"] == "aws":
        problems += [*group_problems(tree), *aws_file_problems(tree)]
    if tree["provider"]["type"] == "gcp":
        problems += [*group_problems(tree), *gcp_file_problems(tree)]
    return tree, problems


def answers(questions: Iterable[Callable[[], Iterable[str]]]) -> list[str]:
    """Return the problems that all questions find; one that may not be asked does not hide those of the others."""
    found: list[str] = []
    for question in questions:
        try:
            found.extend(question())
        except ScaletrainError as error:
            found.append(str(error))
    return found


def quota_fact(problems: Iterable[str], unknown: Sequence[str]) -> tuple[str, str]:
    """Return the line of a check's table about quotas."""
    if any(problem.startswith("quota:") for problem in problems):
        return ("quotas", "do not suffice")
    return ("quotas", f"could not be told: {', '.join(unknown)}" if unknown else "suffice")


def secret_problems(path: Path) -> Iterator[str]:
    """Find what looks like a key, a password or a token, in comments too: the file is shared, committed and copied."""
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        for name, pattern in _SECRETS.items():
            if pattern.search(line):
                yield (
                    f"line {number}: looks like {name}; take it out and replace it at its issuer. Machines get their "
                    "rights from their role, other secrets by reference, from the environment or a file on the machine"
                )
                break
    for key, remedy in _KEYS_IN_FILE.items():
        if re.search(rf"^\s*{key}\s*:", path.read_text(encoding="utf-8-sig"), re.M):
            yield f"provider.{key}: keys do not belong in this file; use {remedy}"


def start_command_problems(tree: Mapping[str, Any]) -> Iterator[str]:
    """Ray must ask for a token on every machine, the token must get there, and the dashboard must stay inside."""
    for name in ("head_start_ray_commands", "worker_start_ray_commands"):
        commands = " ".join(tree.get(name) or ())
        if "ray start" not in commands:
            yield f"{name}: missing; Ray's own commands would serve its jobs API to anybody, without a token"
        elif not re.search(r"\bRAY_AUTH_MODE=[\"']?token\b", commands):
            yield f"{name}: Ray is started without a token; put `export RAY_AUTH_MODE=token;` before `ray start`"
    commands = " ".join(tree.get("head_start_ray_commands") or ())
    if tree["provider"]["type"] == "local" and "RAY_enable_autoscaler_v2=0" not in commands:
        yield (
            "head_start_ray_commands: Ray's newer autoscaler starts no workers on machines of your own; put "
            "`export RAY_enable_autoscaler_v2=0;` before `ray start`"
        )
    host = re.search(r"--dashboard-host[= ]\s*[\"']?([\w.:]+)", commands)
    if host and host[1] not in _LOOPBACK:
        yield (
            f"head_start_ray_commands: the dashboard listens on {host[1]}; write --dashboard-host=127.0.0.1 and reach "
            "it by `ray dashboard`"
        )
    mounts = tree.get("file_mounts") or {}
    if _TOKEN_PLACE not in mounts:
        path = f"~/.scaletrain/{tree['cluster_name']}/auth_token"
        yield f"file_mounts: nothing brings the token; add {_TOKEN_PLACE}: {path}"
    elif not str(mounts[_TOKEN_PLACE]).startswith(UNFILLED):
        problem = token_problem(Path(mounts[_TOKEN_PLACE]).expanduser())
        if problem:
            yield f"file_mounts: {problem}"


def group_problems(tree: Mapping[str, Any]) -> Iterator[str]:
    """A run takes its workers from machines that share a `group_...`: two GPU types must not share one, or none."""
    types: dict[str, list[str]] = {}
    for name, kind in tree["available_node_types"].items():
        resources = kind.get("resources") or {}
        if resources.get("GPU") and kind.get("max_workers", 1) > 0:
            group = next((key for key in resources if key.startswith("group_")), "")
            types.setdefault(group, []).append(name)
    for group, names in types.items():
        if len(names) > 1:
            shared = f"share {group}" if group else "have no group_... resource"
            yield (
                f"available_node_types: {' and '.join(names)} {shared}, so a run could mix their GPUs; give each one "
                "of its own, as resources: {GPU: 1, group_mine: 1}"
            )


def address_problems(tree: Any, place: str = "") -> Iterator[str]:
    """Nothing in the file may open a port to the whole world."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from address_problems(value, f"{place}.{key}".lstrip("."))
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            yield from address_problems(value, f"{place}.{index}")
    elif isinstance(tree, str) and tree.strip() in ("0.0.0.0/0", "::/0"):
        yield f"{place}: {tree} opens the machines to the whole world; give your own address, as 203.0.113.7/32"


def path_problems(tree: Mapping[str, Any]) -> Iterator[str]:
    """Files that Ray would miss only after it has started the head."""
    for remote, local in (tree.get("file_mounts") or {}).items():
        path = Path(str(local)).expanduser()
        if str(local).startswith(UNFILLED) or remote == _TOKEN_PLACE:
            continue
        if not path.exists():
            yield f"file_mounts.{remote}: there is no {local} here; correct the path, or run init again"
        elif path.is_dir() and (path / ".venv").exists():
            yield f"file_mounts.{remote}: {local} holds a .venv, which `ray up` would read whole; mount its parts"
    key = (tree.get("auth") or {}).get("ssh_private_key")
    if key and not key.startswith(UNFILLED) and not Path(key).expanduser().is_file():
        yield f"auth.ssh_private_key: there is no {key}; correct the path, or run init again"
