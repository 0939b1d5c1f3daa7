"""The machines of a cluster: namespaces with processes, network card and address of their own, below one bridge.

The caller is the first process of its own namespaces. Each machine reaches the bucket through a proxy of its own on
its loopback, and the cloud's metadata service at the usual address. Killing its first process ends all of it at once.
"""

import ctypes
import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fault_proxy import FaultProxy

GATEWAY = "10.77.0.1"
METADATA = "169.254.169.254"
_NEW_NETWORK = 0x40000000  # CLONE_NEWNET, for setns(2)
_UP_LIMIT_S = 150.0
_INIT = """
set -euo pipefail
mkdir -p "$FOLDER/ray" "$FOLDER/tmp" /tmp/ray
mount --bind "$FOLDER/ray" /tmp/ray
printf '127.0.0.1 localhost\\n%s %s\\n' "$ADDRESS" "$NAME" >"$FOLDER/hosts"
mount --bind "$FOLDER/hosts" /etc/hosts
mount --bind /dev/null /etc/resolv.conf  # there is no resolver: a name that is not there is known not to be at once
hostname "$NAME"
echo unshared
read -r _
ip link set lo up
ip address add "$ADDRESS/16" dev eth0
ip link set eth0 up
ip route add default via "$GATEWAY"
# The proxy takes any free port: here there is one, the same on all machines, for Ray Train hands the address that its
# driver found on to its workers.
ports=/proc/sys/net/ipv4/ip_local_port_range
before=$(cat $ports)
echo 9000 9000 >$ports
echo connected
read -r AWS_ENDPOINT_URL
echo "$before" >$ports
export AWS_ENDPOINT_URL TMPDIR="$FOLDER/tmp"
exec >"$FOLDER/ray.log" 2>&1 </dev/null
"$@" &
wait
"""


@dataclass
class Node:
    """One machine; `init` is the process whose end is the machine's."""

    name: str
    address: str
    folder: Path
    process: "subprocess.Popen[bytes]"
    link: str
    init: int
    proxy: FaultProxy

    def is_up(self) -> bool:
        """Whether Ray runs there."""
        log = self.folder / "ray.log"
        return log.exists() and "Ray runtime started" in log.read_text()


class Nodes:
    """Machines by the order in which they came; addresses are not used twice."""

    def __init__(self, folder: Path, *, settings: Mapping[str, str], bucket_url: str) -> None:
        self._folder = folder
        self._settings = settings
        self._bucket_url = bucket_url
        self._count = 0
        self._lock = threading.Lock()
        self._on: list[Node] = []

    def start_network(self) -> None:
        """Make the bridge."""
        _run("ip", "link", "set", "lo", "up")
        # A MAC of its own: else it is that of some machine, and when that goes, peers talk to the old one for a minute.
        _run("ip", "link", "add", "br0", "address", "02:01:00:00:00:01", "type", "bridge")
        _run("ip", "address", "add", f"{GATEWAY}/16", "dev", "br0")
        _run("ip", "address", "add", f"{METADATA}/32", "dev", "br0")
        _run("ip", "link", "set", "br0", "up")

    def all(self) -> list[Node]:
        """The machines that are on."""
        with self._lock:
            return list(self._on)

    def next_address(self) -> str:
        """The address that the next machine will have."""
        return f"10.77.1.{self._count + 1}"

    def start(self, *command: str, **settings: str) -> Node:
        """Start a machine whose one task is a command; with that it ends."""
        address = self.next_address()
        self._count += 1
        name = f"node-{self._count}"
        folder = self._folder / name
        folder.mkdir(parents=True)
        environment = {**self._settings, **settings, "ADDRESS": address, "NAME": name, "GATEWAY": GATEWAY}
        isolated = ["--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc"]
        process = subprocess.Popen(
            ["unshare", *isolated, "bash", "-c", _INIT, "init", *command],
            env={**environment, "FOLDER": str(folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == b"unshared\n", f"{name} did not start"
        link, mac = f"v{self._count}", "02:01:" + ":".join(f"{int(part):02x}" for part in address.split("."))
        peer = ("peer", "name", "eth0", "address", mac, "netns", str(process.pid))
        _run("ip", "link", "add", link, "type", "veth", *peer)
        _run("ip", "link", "set", link, "master", "br0", "up")
        init = child_of(process.pid)
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"connected\n", f"{name} did not get its network"
        proxy = FaultProxy(self._bucket_url)
        _in_network_of(process.pid, proxy)
        process.stdin.write(f"{proxy.url}\n".encode())
        process.stdin.close()
        process.stdout.close()
        node = Node(name, address, folder, process, link, init, proxy)
        with self._lock:
            self._on.append(node)
        return node

    def kill(self, *nodes: Node) -> int:
        """SIGKILL to everything on some machines at once; returns how many of them were still on."""
        killed = sum(node.process.poll() is None for node in nodes)
        for node in nodes:
            with suppress(ProcessLookupError):
                os.kill(node.init, 9)  # the kernel ends every process of its namespace with it
        for node in nodes:
            node.process.wait()
            node.proxy.__exit__()
            subprocess.run(["ip", "link", "delete", node.link], capture_output=True, check=False)
            with self._lock, suppress(ValueError):  # where another thread did it meanwhile
                self._on.remove(node)
        return killed

    def start_there(
        self, node: Node, command: Sequence[str], *, log: Path, **settings: str
    ) -> "subprocess.Popen[bytes]":
        """Start a command on a machine beside its task."""
        environment = {
            **self._settings,
            "AWS_ENDPOINT_URL": node.proxy.url,
            "TMPDIR": str(node.folder / "tmp"),
            **settings,
        }
        inside = ["nsenter", "-t", str(node.init), "-n", "-m", "-p", "-u", "-i", f"--wd={self._folder}", "--"]
        with log.open("ab") as output:
            return subprocess.Popen(
                [*inside, *command], env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )

    def processes(self, node: Node, title: str) -> list[int]:
        """The processes of a machine whose command line begins with a title, oldest first."""
        found = []
        with suppress(OSError):
            namespace = Path(f"/proc/{node.init}/ns/pid").readlink()
            for entry in Path("/proc").glob("[0-9]*"):
                with suppress(OSError):
                    if (entry / "ns/pid").readlink() == namespace and (entry / "cmdline").read_text().startswith(title):
                        found.append(int(entry.name))
        return sorted(found)


def wait_until_up(node: Node) -> bool:
    """Wait until Ray runs on a machine that has just been started; False where it gave up."""
    deadline = time.monotonic() + _UP_LIMIT_S
    while time.monotonic() < deadline and node.process.poll() is None:
        if node.is_up():
            return True
        time.sleep(0.2)
    return False


def child_of(process: int) -> int:
    """The only child of a process that only waits for it."""
    deadline = time.monotonic() + 10
    while not (children := Path(f"/proc/{process}/task/{process}/children").read_text().split()):
        assert time.monotonic() < deadline, f"process {process} has no child"
        time.sleep(0.01)
    return int(children[0])


def _in_network_of(process: int, proxy: FaultProxy) -> None:
    """Start a proxy that listens on the loopback of another network: its thread inherits that of the one before it."""
    failure: list[BaseException] = []

    def enter() -> None:
        try:
            with Path(f"/proc/{process}/ns/net").open() as network:
                if ctypes.CDLL(None, use_errno=True).setns(network.fileno(), _NEW_NETWORK) != 0:
                    raise OSError(ctypes.get_errno(), "setns")
            proxy.__enter__()
        except BaseException as error:  # noqa: BLE001 -- raised by the thread that waits
            failure.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"`{' '.join(command)}` failed: {done.stderr.strip()}"
