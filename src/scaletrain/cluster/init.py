"""What `scaletrain cluster init` does alike for every kind of cluster file: reads it, makes the secrets, fills it."""

import ipaddress
import re
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scaletrain.cluster import auth_token, places
from scaletrain.cluster.cluster_file import UNFILLED, read_tree
from scaletrain.cluster.plan import Step
from scaletrain.cluster.schema import schema_problems
from scaletrain.errors import ClusterError, ConfigError

_ADDRESS_PAGE = "https://checkip.amazonaws.com"
_NAME = re.compile(r"[a-z][a-z0-9-]{0,28}[a-z0-9]")


def plan_local(
    path: Path, *, head: str, workers: Sequence[str], ssh_user: str, ssh_key: Path, bucket: str
) -> list[Step]:
    """Return what a file for machines of one's own needs: the token, and its places filled."""
    tree, _ = read_file(path, provider="local")
    cluster = tree["cluster_name"]
    if not ssh_key.expanduser().is_file():
        raise ConfigError(f"--ssh-key: there is no {ssh_key}; name the private key that opens all machines")
    values: dict[str, str | list[str]] = {
        "bucket": bucket,
        "head_ip": head,
        "worker_ips": list(workers),
        "ssh_user": ssh_user,
        "ssh_key": str(ssh_key.expanduser()),
        "token": str(auth_token.token_path(cluster)),
        "project": str(find_project(path)),
    }
    return [secret_steps(cluster)[0], fill_step(path, values)]


def read_file(path: Path, *, provider: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the file's tree and what its places hold now (a list as its first entry)."""
    tree, problems = read_tree(path)
    problems += schema_problems(tree)
    if not problems and tree["provider"]["type"] != provider:
        problems.append(f"provider.type: got {tree['provider']['type']}; init {provider} fills files for {provider}")
    if not problems and not _NAME.fullmatch(tree["cluster_name"]):
        problems.append(f"cluster_name: got {tree['cluster_name']}; use 2 to 30 of a-z, 0-9 and -, as my-cluster")
    if problems:
        raise ConfigError([f"{path}: {problem}" for problem in problems])
    written = places.find_places(path.read_text(encoding="utf-8"))
    return tree, {name: value.strip("[]\"'") for name, value in written.items()}


def is_filled(value: str | None) -> bool:
    """Say whether a place of a file holds something that init has put there."""
    return value is not None and not value.startswith(UNFILLED)


def split_bucket_url(url: str, *, scheme: str) -> tuple[str, str]:
    """Return the bucket's name and the prefix of the storage root in it; "scaletrain" where the URL names none."""
    name, _, prefix = url.removeprefix(scheme).strip("/").partition("/")
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", name):
        raise ConfigError(f"--bucket: {name!r} is no bucket's name; use 3 to 63 of a-z, 0-9, . and -")
    return name, prefix or "scaletrain"


def ssh_addresses(given: Sequence[str]) -> tuple[str, ...]:
    """Return the networks that may log in, by default the one that this machine is seen at; never the whole world."""
    addresses = []
    for each in given or [own_address()]:
        try:
            network = ipaddress.ip_network(each)
        except ValueError as error:
            raise ConfigError(f"--ssh-from: {each!r} is no address; write 203.0.113.7/32 ({error})") from error
        if network.prefixlen == 0:
            raise ConfigError(f"--ssh-from: {each} is the whole world; give the address that you come from")
        addresses.append(str(network))
    return tuple(addresses)


def own_address() -> str:
    """Return the address from which this machine is seen on the internet, as 203.0.113.7/32."""
    remedy = "say it yourself, as --ssh-from 203.0.113.7/32"
    try:
        with urllib.request.urlopen(_ADDRESS_PAGE, timeout=10) as answer:
            text = answer.read(100).decode().strip()
        return str(ipaddress.ip_network(text))
    except (urllib.error.URLError, TimeoutError) as error:
        raise ConfigError(f"{_ADDRESS_PAGE} does not say from which address you come ({error}); {remedy}") from error
    except ValueError as error:
        raise ConfigError(f"{_ADDRESS_PAGE} answered with no address; {remedy}") from error


def find_project(path: Path) -> Path:
    """Return the nearest folder above a cluster file that holds scaletrain's project."""
    for folder in path.absolute().parents:
        if (folder / "pyproject.toml").is_file() and (folder / "src/scaletrain").is_dir():
            return folder
    raise ConfigError(
        f"{path}: no folder above it holds scaletrain's pyproject.toml and src; put the file into the cluster/ folder "
        "of a checkout"
    )


def secret_steps(cluster: str) -> list[Step]:
    """Look for Ray's token and the SSH key on this machine."""
    token, key = auth_token.token_path(cluster), auth_token.key_path(cluster)

    def make_token() -> None:
        auth_token.ensure_token(cluster)

    def make_key() -> None:
        auth_token.ensure_key(cluster)

    return [
        Step(f"Ray's token, {token}", "")
        if token.exists()
        else Step(f"Ray's token, {token}", "make", "0600", make_token),
        Step(f"SSH key, {key}", "") if key.exists() else Step(f"SSH key, {key}", "make", "0600", make_key),
    ]


def secret_removal_steps(cluster: str) -> list[Step]:
    """Say that the secrets of this machine go."""
    folder = auth_token.folder_of(cluster)
    if not folder.is_dir():
        return []
    return [Step(f"token and SSH key in {folder}", "remove", "", lambda: auth_token.remove_secrets(cluster))]


def fill_step(path: Path, values: dict[str, str | list[str]]) -> Step:
    """Compare the file's places with what should stand there."""
    text = path.read_text(encoding="utf-8")
    if places.fill_places(text, values, source=str(path)) == text:
        return Step(str(path), "", "filled")
    return Step(str(path), "change", "fill its places", lambda: rewrite(path, values))


def empty_steps(path: Path, current: dict[str, str]) -> list[Step]:
    """Say that the file's places are emptied, so that it fails closed again."""
    filled = {name.partition("/")[0] for name, value in current.items() if is_filled(value)}
    kind = read_tree(path)[0]["provider"]["type"]
    empty: dict[str, str | list[str]] = dict.fromkeys(filled, f"{UNFILLED}, run: scaletrain cluster init {kind}")
    return [Step(str(path), "change", "empty its places", lambda: rewrite(path, empty))] if empty else []


def left_behind(path: Path, where: str, machines: Sequence[str], *, option: str) -> ClusterError:
    """The error where a file is to move to another place while its machines are still in the old one."""
    return ClusterError(
        f"machines of this cluster are still in {where} ({', '.join(machines)}): `scaletrain down {path}` first, or "
        f"stay there: {option} {where}. What `down` leaves is ended by `scaletrain cluster sweep-leaks {path} --delete`"
    )


def rewrite(path: Path, values: dict[str, str | list[str]]) -> None:
    """Fill a file's places, as the action of a step."""
    places.rewrite(path, values)
