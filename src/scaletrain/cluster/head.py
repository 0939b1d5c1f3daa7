"""The head of a cluster: where it is, how this machine gets in, and taking the whole cluster down, all through Ray."""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

from scaletrain.cluster.auth_token import token_path
from scaletrain.cluster.cluster_file import ClusterFile
from scaletrain.cluster.ssh_tunnel import Host, UnreachableError
from scaletrain.errors import ClusterError
from scaletrain.log import get_logger
from scaletrain.storage.errors import service_code

_TOKEN_ON_MACHINES = "~/.ray/auth_token"
_NO_ANSWER = {
    "EndpointConnectionError",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "TransportError",
    "ServerNotFoundError",
}

log = get_logger(__name__)


def use_token_of(cluster: ClusterFile) -> None:
    """Make Ray in this process, and in its children, use the cluster's token; it is never passed as an argument.

    To be called before Ray is imported. A token named by the environment is left alone.
    """
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    # A job that runs somewhere else may have set these; Ray would then talk to that cluster instead.
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        os.environ.pop(name, None)
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return
    path = token_file(cluster)
    if path is not None:
        os.environ["RAY_AUTH_TOKEN_PATH"] = str(path)


def token_file(cluster: ClusterFile) -> Path | None:
    """The file of the cluster's token on this machine: the one that `ray up` brings to the machines."""
    mounted = (cluster.raw.get("file_mounts") or {}).get(_TOKEN_ON_MACHINES)
    for path in (Path(mounted).expanduser() if mounted else None, token_path(cluster.name)):
        if path is not None and path.is_file():
            return path
    return None


def quieten_ray() -> None:
    """Keep what Ray's launcher and job client note on the way out of the user's sight; after their import."""
    for name in ("ray.autoscaler", "ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk"):
        logging.getLogger(name).setLevel(logging.WARNING)


def find_head(cluster: ClusterFile) -> Host:
    """Ask the cloud where the cluster's head is; raises ClusterError where the cluster is not up."""
    from ray.autoscaler.sdk import get_head_node_ip

    quieten_ray()
    try:
        with _errors_of(cluster), redirect_stdout(sys.stderr):
            address = get_head_node_ip(str(cluster.path))
    except NotUpError as error:
        raise NotUpError(f"{error}{_of_workers(cluster)}") from error
    auth = cluster.raw.get("auth") or {}
    return Host(
        address=address,
        user=cluster.ssh_user,
        key=cluster.ssh_private_key or _key_made_by_ray(cluster),
        proxy_command=auth.get("ssh_proxy_command"),
    )


def is_up(cluster: ClusterFile) -> bool:
    """Whether the cluster has a head that is set up."""
    try:
        find_head(cluster)
    except NotUpError:
        return False
    return True


def take_down(cluster: ClusterFile) -> None:
    """Run `ray down`; what it says goes to stderr. Raises ClusterError where it fails."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "down", "-y", str(cluster.path)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False)
    if done.returncode != 0:
        raise ClusterError(
            f"`ray down {cluster.path}` ended with {done.returncode}: machines may still run and cost money; run it "
            f"again, and look for what is left with `scaletrain cluster sweep-leaks {cluster.path}`"
        )


class NotUpError(ClusterError):
    """There is no head of this cluster that is set up."""


def _of_workers(cluster: ClusterFile) -> str:
    """A line on the workers that run without a head; empty where there are none, or the cloud does not tell."""
    from ray.autoscaler._private.providers import _get_node_provider
    from ray.autoscaler.tags import NODE_KIND_WORKER, TAG_RAY_NODE_KIND

    if cluster.provider == "local":
        return ""
    try:
        provider = _get_node_provider(dict(cluster.raw["provider"]), cluster.name)
        count = len(provider.non_terminated_nodes({TAG_RAY_NODE_KIND: NODE_KIND_WORKER}))
    except Exception as error:  # noqa: BLE001 each cloud has its own; that the cluster is not up is said all the same
        log.debug("the workers of %s could not be counted: %s", cluster.name, error)
        return ""
    machines = (
        "1 worker of this cluster still runs and costs"
        if count == 1
        else (f"{count} workers of this cluster still run and cost")
    )
    return f"\n{machines} money; to end it all: scaletrain down {cluster.path}" if count else ""


def _key_made_by_ray(cluster: ClusterFile) -> Path | None:
    """Where a file names no key, `ray up` made one and wrote its path into its cached configuration."""
    from ray.autoscaler.sdk import bootstrap_config

    if cluster.provider == "local":
        return None
    with _errors_of(cluster), redirect_stdout(sys.stderr):
        key = bootstrap_config(dict(cluster.raw)).get("auth", {}).get("ssh_private_key")
    return Path(key).expanduser() if key else None


@contextmanager
def _errors_of(cluster: ClusterFile) -> Iterator[None]:
    """Translate what Ray's launcher and the cloud's library raise."""
    try:
        yield
    except RuntimeError as error:
        if "not found" not in str(error):
            raise
        raise NotUpError(
            f"the cluster {cluster.name} is not up (it has no head whose set-up has ended); run: ray up {cluster.path}"
        ) from error
    except Exception as error:
        kind = type(error)
        if not kind.__module__.startswith(("botocore", "google", "googleapiclient", "httplib2")):
            raise
        if kind.__name__ in _NO_ANSWER:
            raise UnreachableError(f"{cluster.path}: the cloud does not answer ({error}); check the network") from error
        reason = service_code(error) or kind.__name__
        raise ClusterError(
            f"{cluster.path}: the cloud does not say where the head is ({reason}: {error}); log in to the account that "
            "the cluster belongs to (`aws sso login`, AWS_PROFILE, or `gcloud auth application-default login`)"
        ) from error
