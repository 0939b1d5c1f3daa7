"""The machines of an emulated cloud: sets of Linux namespaces on one bridge, each with sshd at its own address.

Nothing here knows of a cloud's API. The caller is the first process of its own network, mount, uts, ipc and pid
namespaces, so that nothing shows on the host, and killing that one process removes everything. A machine's root is an
overlay of this computer's `/`: what is installed here is its image; what it writes is its own disk, kept in memory.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from scaletrain.emulator.image import PREPARED_VENV, folders_to_hide, folders_to_show
from scaletrain.errors import ClusterError
from scaletrain.log import get_logger

_log = get_logger(__name__)
_SCRIPTS = Path(__file__).parent
_NAMESPACES = ("--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child")
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Boot:
    """What a machine is started with; `keys` are (user, public SSH key).

    As root run `first_boot` once per disk, and `start_script` at every start.
    """

    name: str
    address: str
    hostname: str = ""
    public_address: str = ""
    keys: Sequence[tuple[str, str]] = ()
    first_boot: bytes = b""
    start_script: bytes = b""
    firewall: str = ""


@dataclass
class _Running:
    boot: Boot
    process: subprocess.Popen[bytes]
    link: str
    init: int
    crashed: bool = False


class Machines:
    """All machines of one cloud; every method may be called from any thread, one at a time for each machine."""

    def __init__(
        self,
        folder: Path,
        *,
        gateway: str,
        prefix_length: int,
        settings: Mapping[str, str],
        prepared: bool,
        hosts: str = "",
        files: Mapping[str, str] | None = None,
    ) -> None:
        """`settings` are environment variables of every session; `prepared` shows the environment that runs this.

        `hosts` are lines of everybody's /etc/hosts, `files` the text of files that a machine's image has, by path.
        """
        self._folder = folder
        self._hosts = hosts
        self._files = files or {}
        self._gateway = gateway
        self._prefix_length = prefix_length
        self._prepared = prepared
        path = f"{PREPARED_VENV}/bin:{SYSTEM_PATH}" if prepared else SYSTEM_PATH
        self.settings = {"PATH": path, "PYTHONDONTWRITEBYTECODE": "1", **settings}
        self._running: dict[str, _Running] = {}
        self._lock = threading.Lock()
        (folder / "disks").mkdir(parents=True, exist_ok=True)
        (folder / "consoles").mkdir(exist_ok=True)
        _run("mount", "-t", "tmpfs", "-o", "mode=755", "disks", str(folder / "disks"))  # an overlay wants one on top

    def start_network(self, addresses: Sequence[str] = (), networks: Sequence[str] = ()) -> None:
        """Make the bridge: the gateway, `addresses` of the cloud's own services, `networks` that are on the wire."""
        _run("ip", "link", "set", "lo", "up")
        # A MAC of its own: else it is that of some machine, and when that goes, peers talk to the old one for a minute.
        _run("ip", "link", "add", "br0", "address", "02:01:00:00:00:01", "type", "bridge")
        _run("ip", "addr", "add", f"{self._gateway}/{self._prefix_length}", "dev", "br0")
        for address in addresses:
            _run("ip", "addr", "add", address, "dev", "br0")
        _run("ip", "link", "set", "br0", "up")
        for network in networks:
            _run("ip", "route", "add", network, "dev", "br0", "src", self._gateway)
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        for interface in ("all", "default", "br0"):
            Path(f"/proc/sys/net/ipv4/conf/{interface}/send_redirects").write_text("0")

    def boot(self, boot: Boot) -> None:
        """Start a machine; its disk is found again by its name."""
        disk = self._folder / "disks" / boot.name
        disk.mkdir(exist_ok=True)
        for path, text in self._files.items():
            _write(disk / "up" / path.lstrip("/"), text)
        if boot.first_boot and not (disk / "up/var/lib/cloud/instance/user-data.txt").exists():
            (disk / "first-boot").write_bytes(boot.first_boot)
        (disk / "start-script").write_bytes(boot.start_script)
        environment = {
            "NAME": boot.hostname or boot.name,
            "ADDRESS": boot.address,
            "PREFIX_LENGTH": str(self._prefix_length),
            "GATEWAY": self._gateway,
            "PUBLIC_ADDRESS": boot.public_address,
            "HOSTS": self._hosts,
            "DISK": str(disk),
            "KEYS": "\n".join(f"{user}:{key}" for user, key in boot.keys),
            "SETTINGS": "\n".join(f"{name}={value}" for name, value in self.settings.items()),
            "BIND": "\n".join(folders_to_show() if self._prepared else ()),
            "HIDE": "" if self._prepared else "\n".join(folders_to_hide()),
            "VENV": sys.prefix if self._prepared else "",
        }
        self._start(boot, "machine_init.sh", environment)

    def boot_laptop(self, boot: Boot, *, gateway: str, prefix_length: int) -> None:
        """Start the place that the cloud is used from: this computer's files, but a network and processes apart."""
        hosts = ""
        if self._hosts:
            _write(self._folder / "hosts", f"127.0.0.1 localhost\n{self._hosts}\n")
            hosts = str(self._folder / "hosts")
        environment = {
            "ADDRESS": boot.address,
            "PREFIX_LENGTH": str(prefix_length),
            "GATEWAY": gateway,
            "HOSTS_FILE": hosts,
        }
        self._start(boot, "laptop_init.sh", environment)

    def stop(self, name: str, *, grace_s: float = 10) -> None:
        """Shut down in order: SIGTERM to all, SIGKILL to what is left after `grace_s`, and only then the wire goes.

        Peers see the connections close. With the wire gone first they see nothing: that is `crash`.
        """
        with self._lock:
            machine = self._running.pop(name, None)
        if machine is None:
            return
        if not machine.crashed:
            _end_processes(machine, grace_s)
        _run("ip", "link", "del", machine.link, check=False)
        _log.info("%s (%s) is off", name, machine.boot.address)

    def crash(self, name: str) -> None:
        """Let a machine die without a word: the wire goes first, then every process at once."""
        machine = self._find(name)
        _run("ip", "link", "set", machine.link, "down")
        machine.crashed = True
        _end_processes(machine, 0)
        _log.info("%s (%s) crashed", name, machine.boot.address)

    def begin_shutdown(self, name: str) -> None:
        """Let a machine's guest begin to shut down: SIGTERM to all that runs on it, while it stays on."""
        with self._lock:
            machine = self._running.get(name)
        for process in _processes_of(machine.init) if machine else []:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGTERM)

    def cut(self, name: str) -> None:
        """Unplug a machine's wire; it goes on running."""
        _run("ip", "link", "set", self._find(name).link, "down")

    def heal(self, name: str) -> None:
        """Plug a machine's wire in again."""
        _run("ip", "link", "set", self._find(name).link, "up")

    def remove_disk(self, name: str) -> None:
        """Forget what a stopped machine had written."""
        _run("rm", "-rf", str(self._folder / "disks" / name))

    def set_firewall(self, name: str, rules: str) -> bool:
        """Replace a machine's packet filter (nftables) in one step, open connections stay; False where it is not on."""
        with self._lock:
            machine = self._running.get(name)
        if machine is None or machine.crashed:
            return False
        _load_firewall(machine.process.pid, rules)
        return True

    def init_of(self, name: str) -> int:
        """Return the process id of a machine's PID 1, as this process sees it."""
        return self._find(name).init

    def names(self) -> list[str]:
        """Return the machines that are on, crashed ones too."""
        with self._lock:
            return list(self._running)

    def is_alive(self, name: str) -> bool:
        """Tell whether a machine's PID 1 still runs."""
        with self._lock:
            machine = self._running.get(name)
        return machine is not None and machine.process.poll() is None

    def _find(self, name: str) -> _Running:
        with self._lock:
            if name not in self._running:
                raise ClusterError(f"machine {name} is not running; running are {sorted(self._running)}")
            return self._running[name]

    def _start(self, boot: Boot, script: str, environment: Mapping[str, str]) -> None:
        with (self._folder / "consoles" / f"{boot.name}.log").open("ab") as console:
            process = subprocess.Popen(
                ["unshare", *_NAMESPACES, "bash", str(_SCRIPTS / script)],
                env={"PATH": SYSTEM_PATH, **environment},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=console,
                start_new_session=True,
            )
        assert process.stdin is not None and process.stdout is not None
        if process.stdout.readline() != b"unshared\n":
            process.kill()
            raise ClusterError(f"machine {boot.name} did not start: see {self._folder}/consoles/{boot.name}.log")
        if boot.firewall:
            _load_firewall(process.pid, boot.firewall)
        link = f"v{os.urandom(5).hex()}"
        # The MAC follows from the address: else a peer's ARP cache keeps a reused address dead for half a minute.
        mac = "02:01:" + ":".join(f"{int(part):02x}" for part in boot.address.split("."))
        peer = ("peer", "name", "eth0", "address", mac, "netns", str(process.pid))
        _run("ip", "link", "add", link, "type", "veth", *peer)
        _run("ip", "link", "set", link, "master", "br0", "up")
        init = child_of(process.pid)
        process.stdin.write(b"connected\n")
        process.stdin.close()
        if process.stdout.readline() != b"ready\n":
            process.kill()
            _run("ip", "link", "del", link, check=False)
            raise ClusterError(f"machine {boot.name} did not boot: see {self._folder}/consoles/{boot.name}.log")
        process.stdout.close()
        with self._lock:  # only now: before, a command at its console would still see this computer's own files
            self._running[boot.name] = _Running(boot, process, link, init)
        _log.info("%s (%s) is on", boot.name, boot.address)


def _end_processes(machine: _Running, grace_s: float) -> None:
    deadline = time.monotonic() + grace_s
    left = _processes_of(machine.init)
    for process in left:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGTERM if grace_s else signal.SIGKILL)
    while left and time.monotonic() < deadline:
        time.sleep(0.05)
        left = _processes_of(machine.init)
    with suppress(ProcessLookupError):
        os.kill(machine.init, signal.SIGKILL)  # the kernel ends every process of its namespace with it
    machine.process.wait()


def _processes_of(init: int) -> list[int]:
    """The processes of a machine, without its PID 1 and what is dead already."""
    with suppress(OSError):
        namespace = Path(f"/proc/{init}/ns/pid").readlink()
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if int(entry.name) != init and (entry / "ns/pid").readlink() == namespace:
                    found.append(int(entry.name))
        return found
    return []


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def child_of(process: int) -> int:
    """Return the only child of a process."""
    return int(Path(f"/proc/{process}/task/{process}/children").read_text().split()[0])


def _load_firewall(process: int, rules: str) -> None:
    command = ["nsenter", "-t", str(process), "--net", "nft", "-f", "-"]
    done = subprocess.run(command, input=rules, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ClusterError(f"the firewall's rules were refused: {done.stderr.strip()}\n{rules}")


def _run(*command: str, check: bool = True) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        raise ClusterError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
