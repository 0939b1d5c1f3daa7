"""An SSH tunnel to ports on a machine's loopback, open for as long as a block of code runs.

An own `ssh` child rather than `ray dashboard`: that one fixes the local port (two commands at once would collide), runs
set-up code of the launcher first, and ends on a key press. The child's far end is a `cat` of its standard input: its
first line says that the tunnel is up, and it ends with this process, whatever ends it.
"""

import os
import selectors
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scaletrain.errors import ClusterError
from scaletrain.log import get_logger

_CONNECT_TIMEOUT_S = 20
_TRIES = 3
_READY = b"tunnel is up"
# As Ray does it: a new machine may have an old one's address, so host keys are not remembered.
_OPTIONS = (
    "BatchMode=yes",
    "IdentitiesOnly=yes",
    "StrictHostKeyChecking=no",
    f"UserKnownHostsFile={os.devnull}",
    "ExitOnForwardFailure=yes",
    "ServerAliveInterval=5",
    "ServerAliveCountMax=3",
    f"ConnectTimeout={_CONNECT_TIMEOUT_S}",
    "ControlMaster=no",
    "ControlPath=none",
    "LogLevel=ERROR",
)

log = get_logger(__name__)


class UnreachableError(ClusterError):
    """A machine or what listens on it cannot be reached, which may pass: the network or the machine is gone."""


@dataclass(frozen=True)
class Host:
    """A machine that can be reached by SSH."""

    address: str
    user: str
    key: Path | None = None
    proxy_command: str | None = None
    port: int = 22


@contextmanager
def open_tunnel(host: Host, remote_ports: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Yield a local port for each port on the host's loopback; raises ClusterError that says why there is no tunnel."""
    process, ports = _connect(host, remote_ports)
    try:
        yield ports
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.terminate()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _connect(host: Host, remote_ports: Sequence[int]) -> tuple[subprocess.Popen[bytes], tuple[int, ...]]:
    """Start ssh and wait until it has connected; another process may take a port first, so try again with others."""
    command = shutil.which("ssh")
    if command is None:
        raise ClusterError("no ssh on this machine; install it: apt-get install openssh-client")
    if host.key is not None and not host.key.is_file():
        raise ClusterError(f"{host.key}: there is no such SSH key; it is made by `scaletrain cluster init`")
    for attempt in range(1, _TRIES + 1):
        ports = _free_ports(len(remote_ports))
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(
                _arguments(command, host, ports, remote_ports),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
            if _says_ready(process):
                return process, ports
            process.kill()
            process.wait()
            errors.seek(0)
            said = errors.read().decode(errors="replace")
        if "in use" not in said and "cannot listen" not in said:
            break
        log.debug("a port was taken meanwhile (try %d): %s", attempt, said.strip())
    raise _explained(host, said.strip())


def _arguments(command: str, host: Host, ports: Sequence[int], remote_ports: Sequence[int]) -> list[str]:
    arguments = [command, "-T", "-p", str(host.port)]
    for option in _OPTIONS:
        arguments += ["-o", option]
    if host.key is not None:
        arguments += ["-i", str(host.key)]
    if host.proxy_command:
        arguments += ["-o", f"ProxyCommand={host.proxy_command}"]
    for local, remote in zip(ports, remote_ports, strict=True):
        arguments += ["-L", f"127.0.0.1:{local}:127.0.0.1:{remote}"]
    return [*arguments, "-l", host.user, host.address, f"echo {_READY.decode()} && exec cat"]


def _says_ready(process: subprocess.Popen[bytes]) -> bool:
    """Read the child's output up to the line that its far end prints; False where it ends or is silent instead."""
    assert process.stdout is not None
    deadline, said = time.monotonic() + _CONNECT_TIMEOUT_S + 10, b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while (left_s := deadline - time.monotonic()) > 0:
            if not selector.select(left_s):
                break
            block = os.read(process.stdout.fileno(), 4096)
            said += block
            if _READY in said:
                return True
            if not block:
                break
    return False


def _free_ports(count: int) -> tuple[int, ...]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return tuple(each.getsockname()[1] for each in sockets)
    finally:
        for each in sockets:
            each.close()


def _explained(host: Host, said: str) -> ClusterError:
    """What ssh's last words mean, and what to do."""
    place = f"{host.user}@{host.address}"
    reason = said.splitlines()[-1] if said else "no answer in time"
    if "UNPROTECTED PRIVATE KEY" in said or "bad permissions" in said:
        return ClusterError(f"{host.key}: other users can read it, so ssh refuses it; run: chmod 600 {host.key}")
    if "Permission denied" in said:
        key = host.key or "the SSH agent's keys"
        return ClusterError(
            f"{place} does not accept {key}; use the key and the ssh_user that the cluster was started with"
        )
    if "Connection refused" in said:
        return UnreachableError(
            f"{place} answers, but not on port {host.port}: it is still starting, or has no SSH; try again"
        )
    if "Could not resolve" in said:
        return UnreachableError(f"{host.address} cannot be found; check the network and the cluster file")
    if not said or "timed out" in said or "No route" in said or "unreachable" in said:
        return UnreachableError(
            f"{place} cannot be reached ({reason}); its firewall admits the address that `scaletrain cluster init` was "
            "run from: run it again if yours has changed, and check that the machine runs"
        )
    return UnreachableError(f"{place}: ssh failed ({reason}); try `ssh {place}` by hand")
