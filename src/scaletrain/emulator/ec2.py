"""An emulated EC2 on this computer: a laptop, machines with real SSH, S3, IAM and the metadata service; needs root.

    with EmulatedEC2(Path("cloud")) as cloud:
        cloud.laptop(["ray", "up", "-y", "aws.yaml"])
        cloud.preempt(cloud.instances()[-1], notice_s=120)

What runs on it is unmodified: Ray's launcher, boto3, SSH. GPUs are resources in name only, all machines share this
computer's cores and memory, and prices, quotas and the time that machines need to boot are not emulated.
"""

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
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from scaletrain.emulator.account import LAPTOP_ACCESS_KEY
from scaletrain.emulator.api import DIES_AT_BOOT, ApiCall
from scaletrain.emulator.ec2_process import ENDPOINT_URL, GATEWAY, LAPTOP, PROXY_PORT, Options
from scaletrain.emulator.machines import SYSTEM_PATH
from scaletrain.emulator.proxy import Proxy
from scaletrain.emulator.requirements import check_requirements
from scaletrain.errors import ClusterError

__all__ = ["DIES_AT_BOOT", "ApiCall", "EmulatedEC2", "Instance"]
_START_LIMIT_S = 120
_INTO_ALL = ("-n", "-m", "-p", "-u", "-i")


@dataclass(frozen=True)
class Instance:
    """What EC2 says of a machine; `node_kind` is "head" or "worker", `node_type` its name in the cluster's file."""

    id: str
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


class EmulatedEC2:
    """A cloud for the time of a `with` block; two may run side by side in different folders.

    `prepared` machines have the environment that runs this at /opt/scaletrain/venv; on bare ones it is hidden.
    With `internet` they reach it through an HTTP proxy (see `scaletrain.emulator.proxy`).
    `image_user` gets the key on images whose name does not tell theirs. `instance_types` are known besides the usual.
    """

    def __init__(
        self,
        folder: Path,
        *,
        region: str = "us-west-2",
        prepared: bool = True,
        internet: bool = False,
        image_user: str = "ubuntu",
        instance_types: Sequence[str] = (),
    ) -> None:
        self.folder = folder.resolve()
        self.region = region
        self.endpoint_url = ENDPOINT_URL
        self.laptop_address = LAPTOP
        self.laptop_home = self.folder / "laptop"
        self._options = Options(str(self.folder), region, prepared, image_user, tuple(instance_types), internet)
        self._proxy: Proxy | None = None
        self._user = f"laptop-{os.urandom(4).hex()}"  # Ray names its folder of SSH connections in /tmp by it
        self._lock = threading.Lock()

    def __enter__(self) -> "EmulatedEC2":
        check_requirements()
        self._make_laptop_home()
        command = ["unshare", *("--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child")]
        command += ["--mount-proc", sys.executable, "-m", "scaletrain.emulator.ec2_process"]
        with (self.folder / "cloud.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, json.dumps(asdict(self._options))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=self.folder,
                env={"PATH": f"{SYSTEM_PATH}:{os.environ.get('PATH', '')}", "PYTHONDONTWRITEBYTECODE": "1"},
                start_new_session=True,
            )
        try:
            self._answer()
            self._init = _child_of(self._process.pid)
            self._settings: dict[str, str] = self._ask("settings")
            if self._options.internet:
                self._proxy = Proxy(self._init, GATEWAY, PROXY_PORT)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._proxy is not None:
            self._proxy.close()
        self._process.kill()  # unshare, which takes its child along, and that is PID 1 of everything
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
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
        """Run a command on a machine of somebody else in the same network, in no security group."""
        return self._run(*self._at_console("third", command), timeout_s=timeout_s)

    # --- What EC2 says and does --------------------------------------------------------------------------------------

    def instances(self, *states: str) -> list[Instance]:
        """Return the instances in these states (none given: all), in the order of their launch."""
        found = [Instance(**each) for each in self._ask("instances")]
        return [each for each in found if not states or each.state in states]

    def machines(self) -> list[str]:
        """Return the ids of the instances that really have a machine now."""
        return [name for name in self._ask("machines") if name.startswith("i-")]

    def aws(self, service: str, operation: str, **arguments: Any) -> Any:
        """Call AWS as the account's administrator: `aws("s3", "create_bucket", Bucket="b", ...)`, as boto3 does."""
        return self._ask("aws", service=service, operation=operation, arguments=arguments)

    def api_log(self) -> list[ApiCall]:
        """Return every call to the API so far, those of `aws` left out."""
        return [ApiCall(**each) for each in self._ask("api_log")]

    def now_s(self) -> float:
        """Return this moment on the clock of `api_log`."""
        return float(self._ask("now"))

    def fetches(self, instance: Instance) -> list[str]:
        """Return the host of each request to the internet that a machine has made so far, granted or not."""
        if self._proxy is None:
            raise ClusterError("fetches are counted on the way to the internet; give internet=True")
        own = (instance.address, instance.public_address)
        return [host for address, host in self._proxy.requests() if address in own]

    def fail_launches(self, code: str, *, count: int = 1, market: str = "", instance_type: str = "") -> None:
        """Let the next `count` calls to launch fail with EC2's `code`, or end at boot with DIES_AT_BOOT; 0: no more.

        Ray's launcher calls five times before it gives up.
        """
        self._ask("fail_launches", code=code, count=count, market=market, instance_type=instance_type)

    def advise_rebalance(self, instance: Instance) -> None:
        """Tell a spot machine, without naming a time, that it is more likely than before to be taken."""
        self._ask("advise_rebalance", instance_id=instance.id)

    def preempt(self, instance: Instance, *, notice_s: float) -> None:
        """Announce the end of a spot machine to it now, and terminate it `notice_s` seconds later."""
        self._ask("preempt", instance_id=instance.id, notice_s=notice_s)

    def crash(self, instance: Instance) -> None:
        """Let a machine die without a word; EC2 goes on saying that it runs."""
        self._ask("crash", instance_id=instance.id)

    def cut(self, instance: Instance) -> None:
        """Unplug a machine from the network; it goes on running."""
        self._ask("cut", instance_id=instance.id)

    def heal(self, instance: Instance) -> None:
        """Plug a machine in again."""
        self._ask("heal", instance_id=instance.id)

    def add_image(self, image_id: str, *, name: str = "") -> None:
        """Let a machine image of this id exist."""
        self._ask("add_image", image_id=image_id, name=name)

    def add_security_group(self, group_id: str, *, name: str) -> None:
        """Let a group of this id exist, which admits SSH from the laptop and everything from itself."""
        self._ask("add_security_group", group_id=group_id, name=name)

    def add_subnet(self, subnet_id: str, *, zone: str = "") -> None:
        """Let a public subnet of this id exist, in a zone if one is named."""
        self._ask("add_subnet", subnet_id=subnet_id, zone=zone)

    # --- Helpers -----------------------------------------------------------------------------------------------------

    def _make_laptop_home(self) -> None:
        for folder in (self.laptop_home / ".aws", self.laptop_home / "tmp"):
            folder.mkdir(parents=True, exist_ok=True)
        keys = f"aws_access_key_id = {LAPTOP_ACCESS_KEY}\naws_secret_access_key = unchecked\n"
        (self.laptop_home / ".aws" / "credentials").write_text(f"[default]\n{keys}")
        (self.laptop_home / ".aws" / "config").write_text(f"[default]\nregion = {self.region}\n")

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
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_EC2_METADATA_DISABLED": "true",
            "RAY_USAGE_STATS_ENABLED": "0",
            "AUTOSCALER_NODE_SSH_INTERVAL_S": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
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
        return [*cloud, "/usr/bin/nsenter", "-t", str(self._ask("machine", name=name)), *_INTO_ALL]

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

    def _ask(self, action: str, **arguments: Any) -> Any:
        with self._lock:
            if self._process.poll() is not None:
                raise ClusterError(f"the emulated EC2 has ended: see {self.folder / 'cloud.log'}")
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps({"action": action, "arguments": arguments}).encode() + b"\n")
            self._process.stdin.flush()
            return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        readable, _, _ = select.select([self._process.stdout], [], [], _START_LIMIT_S)
        line = self._process.stdout.readline() if readable else b""
        if not line:
            tail = (self.folder / "cloud.log").read_text()[-2000:]
            raise ClusterError(f"the emulated EC2 does not answer; its log ({self.folder / 'cloud.log'}) ends:\n{tail}")
        answer = json.loads(line)
        if "error" in answer:
            raise ClusterError(answer["error"])
        return answer["result"]


def _child_of(process: int) -> int:
    return int(Path(f"/proc/{process}/task/{process}/children").read_text().split()[0])
