"""An emulated cloud as it is used: the user's laptop, the consoles of machines, its API, and what befalls machines.

    with emulated_ec2(Path("cloud")) as cloud:
        cloud.laptop(["ray", "up", "-y", "aws.yaml"])
        cloud.preempt(cloud.instances()[-1], notice_s=120)

What is AWS's or Google's alone is in `ec2` and `gce`. The cloud itself is a process in namespaces of its own, see
`cloud_process`.
"""

import hashlib
import json
import os
import select
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from scaletrain.emulator.api_log import ApiCall
from scaletrain.emulator.cloud_process import LAPTOP, PROXY_PORT
from scaletrain.emulator.machines import SYSTEM_PATH, child_of
from scaletrain.emulator.proxy import Proxy
from scaletrain.emulator.requirements import check_requirements
from scaletrain.emulator.run_to_end import run_to_end
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


@dataclass(frozen=True)
class Kind:
    """What makes a cloud AWS's or Google's: its process (a module, and what that is given as JSON), and the laptop's.

    The laptop has `settings` in its environment, and in its home `files` (text by path), the user's credentials among
    them. At `proxy_address`, if there is one, machines find a way to the internet.
    """

    provider: Literal["aws", "gcp"]
    module: str
    options: Mapping[str, Any]
    settings: Mapping[str, str]
    files: Mapping[str, str]
    proxy_address: str


class EmulatedCloud:
    """A cloud for the time of a `with` block; two may run side by side in different folders.

    `project` is Google's; on AWS there is none.
    """

    def __init__(self, folder: Path, kind: Kind, *, region: str, project: str = "") -> None:
        self.folder = folder
        self.provider = kind.provider
        self.region = region
        self.project = project
        self.laptop_address = LAPTOP
        self.laptop_home = folder / "laptop"
        self._kind = kind
        self._proxy: Proxy | None = None
        self._user = f"laptop-{os.urandom(4).hex()}"  # Ray names its folder of SSH connections in /tmp by it
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        check_requirements(self.provider)
        (self.laptop_home / "tmp").mkdir(parents=True, exist_ok=True)
        for path, text in self._kind.files.items():
            (self.laptop_home / path).parent.mkdir(parents=True, exist_ok=True)
            (self.laptop_home / path).write_text(text)
        command = ["unshare", *("--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child")]
        command += ["--mount-proc", sys.executable, "-m", self._kind.module]
        environment = {
            "PATH": f"{SYSTEM_PATH}:{os.environ.get('PATH', '')}",
            "PYTHONPATH": str(Path(__file__).parents[2]),  # the same source as this process, installed or not
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        with (self.folder / "cloud.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, json.dumps(self._kind.options)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=self.folder,
                env=environment,
                start_new_session=True,
            )
        try:
            self._answer()
            self._init = child_of(self.process.pid)
            self._settings: dict[str, str] = self.ask("settings")
            if self._kind.proxy_address:
                self._proxy = Proxy(self._init, self._kind.proxy_address, PROXY_PORT)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
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

    # --- Places to run commands ---------------------------------------------------------------------------------------

    def laptop(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        timeout_s: float = 300,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command where the user sits, and return its exit code and what it printed (stderr in stdout)."""
        return run_to_end(*self._on_laptop(command, env, cwd), timeout_s=timeout_s)

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
        return run_to_end(*self._at_console(instance.id, command), timeout_s=timeout_s)

    def third_machine(self, command: Sequence[str], *, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a command on a machine of somebody else in the same network, which no rule speaks of."""
        return run_to_end(*self._at_console("third", command), timeout_s=timeout_s)

    # --- What the cloud tells -----------------------------------------------------------------------------------------

    def call(self, service: str, operation: str, /, **arguments: Any) -> Any:
        """Call the cloud's API as nobody refuses it.

        On AWS as boto3 does: `call("s3", "create_bucket", Bucket="b")`. On Google's by the names of its own documents:
        `call("compute", "instances.list", zone="us-central1-a")`; `body` is what is sent, `project` this one.
        """
        return self.ask("call", service=service, operation=operation, arguments=arguments)

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

    # --- What befalls machines ----------------------------------------------------------------------------------------

    def preempt(self, instance: Instance, *, notice_s: float) -> None:
        """Announce the end of a spot machine to it now, and take it `notice_s` seconds later."""
        self.ask("preempt", name=instance.id, notice_s=notice_s)

    def fail_launches(self, code: str, *, count: int = 1, market: str = "", instance_type: str = "") -> None:
        """Let the next `count` launches end in an error; 0: no more.

        EC2 refuses with any of its codes, or a machine DIES_AT_BOOT; Ray's launcher calls five times before it gives
        up. Google's operations end with ZONE_RESOURCE_POOL_EXHAUSTED or QUOTA_EXCEEDED.
        """
        self.ask("fail_launches", code=code, count=count, market=market, instance_type=instance_type)

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

    # --- Helpers ------------------------------------------------------------------------------------------------------

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
            **self._kind.settings,
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
