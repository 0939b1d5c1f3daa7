"""Where an emulated cloud runs: its process in namespaces of its own, the user's laptop, the consoles of machines."""

import hashlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scaletrain.emulator.api_log import ApiCall
from scaletrain.emulator.cloud_process import PROXY_PORT
from scaletrain.emulator.machines import SYSTEM_PATH
from scaletrain.emulator.proxy import Proxy
from scaletrain.errors import ClusterError

_START_LIMIT_S = 120
_INTO_ALL = ("-n", "-m", "-p", "-u", "-i")


@dataclass(frozen=True)
class Instance:
    """What the cloud says of a machine; `node_kind` is "head" or "worker", `node_type` its name in the cluster's file.

    `state` is one of pending, running, stopping, stopped and terminated; `market` is "spot" or "on-demand"; `profile`
    is whose rights it has: the name of an instance profile of EC2, the address of a service account of Google's.
    """

    id: str
    hostname: str
    address: str
    public_address: str
    state: str
    instance_type: str
    market: str
    node_type: str
    node_kind: str
    node_status: str
    profile: str
    state_reason: str


class Stage:
    """One emulated cloud, from `start` to `end`; `module` is its process, `options` what that is given as JSON."""

    def __init__(
        self, folder: Path, *, module: str, options: Mapping[str, Any], laptop_settings: Mapping[str, str]
    ) -> None:
        self.folder = folder
        self.laptop_home = folder / "laptop"
        self._module = module
        self._options = options
        self._laptop_settings = laptop_settings
        self._proxy: Proxy | None = None
        self._user = f"laptop-{os.urandom(4).hex()}"  # Ray names its folder of SSH connections in /tmp by it
        self._lock = threading.Lock()

    def start(self, *, proxy_address: str = "") -> None:
        """Bring the cloud up; at `proxy_address` machines find a way to the internet."""
        command = ["unshare", *("--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child")]
        command += ["--mount-proc", sys.executable, "-m", self._module]
        environment = {
            "PATH": f"{SYSTEM_PATH}:{os.environ.get('PATH', '')}",
            "PYTHONPATH": str(Path(__file__).parents[2]),  # the same source as this process, installed or not
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        with (self.folder / "cloud.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, json.dumps(self._options)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=self.folder,
                env=environment,
                start_new_session=True,
            )
        try:
            self._answer()
            self._init = _child_of(self.process.pid)
            self._settings: dict[str, str] = self.ask("settings")
            if proxy_address:
                self._proxy = Proxy(self._init, proxy_address, PROXY_PORT)
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """End the cloud and everything in it."""
        if self._proxy is not None:
            self._proxy.close()
        self.process.kill()  # unshare, which takes its child along, and that is PID 1 of everything
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
        shutil.rmtree(self.ssh_connections, ignore_errors=True)

    @property
    def ssh_connections(self) -> Path:
        """The folder in which Ray on the laptop keeps its SSH connections."""
        return Path(f"/tmp/ray_ssh_{hashlib.sha256(self._user.encode()).hexdigest()[:10]}")

    # --- Places to run commands ----------------------------------------------------------------------------------

    def laptop(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        timeout_s: float = 300,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command where the user sits, and return its exit code and what it printed (stderr in stdout)."""
        return self._run(*self._on_laptop(command, env, cwd), timeout_s=timeout_s)

    def start_on_laptop(
        self,
        command: Sequence[str],
        *,
        output: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a command where the user sits; `output` is a file that gets what it prints."""
        line, environment = self._on_laptop(command, env, cwd)
        with output.open("ab") as file:
            return subprocess.Popen(
                line,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def on_machine(
        self, instance: Instance, command: Sequence[str], *, timeout_s: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as root at a machine's console, which needs no network."""
        return self._run(*self._at_console(instance.id, command), timeout_s=timeout_s)

    def third_machine(self, command: Sequence[str], *, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a command on a machine of somebody else in the same network, which no rule speaks of."""
        return self._run(*self._at_console("third", command), timeout_s=timeout_s)

    # --- What every cloud tells and does ----------------------------------------------------------------------------

    def instances(self, *states: str) -> list[Instance]:
        """Return the instances in these states (none given: all), in the order of their launch."""
        found = [Instance(**each) for each in self.ask("instances")]
        return [each for each in found if not states or each.state in states]

    def machines(self) -> list[str]:
        """Return the ids of the instances that really have a machine now."""
        return list(self.ask("machines"))

    def api_log(self) -> list[ApiCall]:
        """Return every call to the API so far, those of the account's administrator left out."""
        return [ApiCall(**each) for each in self.ask("api_log")]

    def now_s(self) -> float:
        """Return this moment on the clock of `api_log`."""
        return float(self.ask("now"))

    def fetches(self, instance: Instance) -> list[str]:
        """Return the host of each request to the internet that a machine has made so far, granted or not."""
        if self._proxy is None:
            raise ClusterError("fetches are counted on the way to the internet; give internet=True")
        own = (instance.address, instance.public_address)
        return [host for address, host in self._proxy.requests() if address in own]

    def crash(self, instance: Instance) -> None:
        """Let a machine die without a word; the cloud goes on saying that it runs."""
        self.ask("crash", name=instance.id)

    def cut(self, instance: Instance) -> None:
        """Unplug a machine from the network; it goes on running."""
        self.ask("cut", name=instance.id)

    def heal(self, instance: Instance) -> None:
        """Plug a machine in again."""
        self.ask("heal", name=instance.id)

    def ask(self, action: str, **arguments: Any) -> Any:
        """Let the cloud's process do something, and return what it answers."""
        with self._lock:
            if self.process.poll() is not None:
                raise ClusterError(f"the emulated cloud has ended: see {self.folder / 'cloud.log'}")
            assert self.process.stdin is not None
            self.process.stdin.write(json.dumps({"action": action, "arguments": arguments}).encode() + b"\n")
            self.process.stdin.flush()
            return self._answer()

    # --- Helpers -----------------------------------------------------------------------------------------------------

    def _on_laptop(
        self, command: Sequence[str], env: Mapping[str, str] | None, cwd: Path | None
    ) -> tuple[list[str], dict[str, str]]:
        environment = {
            "PATH": f"{Path(sys.prefix) / 'bin'}:{SYSTEM_PATH}:{os.environ.get('PATH', '')}",
            "HOME": str(self.laptop_home),
            "TMPDIR": str(self.laptop_home / "tmp"),
            "LOGNAME": self._user,
            "USER": self._user,
            "LANG": "C.UTF-8",
            "RAY_USAGE_STATS_ENABLED": "0",
            "AUTOSCALER_NODE_SSH_INTERVAL_S": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            **self._laptop_settings,
            **(env or {}),
        }
        enter = self._enter("laptop")
        return [*enter, f"--wd={cwd or self.laptop_home}", "--", *command], environment

    def _at_console(self, name: str, command: Sequence[str]) -> tuple[list[str], dict[str, str]]:
        environment = {**self._settings, "HOME": "/root", "LANG": "C.UTF-8"}
        return [*self._enter(name), "-r", "-w", "--", *command], environment

    def _enter(self, name: str) -> list[str]:
        """Into the cloud's namespaces, whose process ids are the ones it tells, and from there into the machine's."""
        cloud = ["/usr/bin/nsenter", "-t", str(self._init), *_INTO_ALL, "--"]
        return [*cloud, "/usr/bin/nsenter", "-t", str(self.ask("machine", name=name)), *_INTO_ALL]

    def _run(
        self, command: Sequence[str], environment: Mapping[str, str], *, timeout_s: float
    ) -> subprocess.CompletedProcess[str]:
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            asked = " ".join(command[command.index("--", command.index("--") + 1) + 1 :])
            raise ClusterError(f"`{asked}` had not ended after {timeout_s:.0f} s; it said:\n{output[-3000:]}") from None
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        return subprocess.CompletedProcess(list(command), process.returncode, output)

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        readable, _, _ = select.select([self.process.stdout], [], [], _START_LIMIT_S)
        line = self.process.stdout.readline() if readable else b""
        if not line:
            log = self.folder / "cloud.log"
            raise ClusterError(f"the emulated cloud does not answer; {log} ends:\n{log.read_text()[-2000:]}")
        answer = json.loads(line)
        if "error" in answer:
            raise ClusterError(answer["error"])
        return answer["result"]


def _child_of(process: int) -> int:
    return int(Path(f"/proc/{process}/task/{process}/children").read_text().split()[0])
