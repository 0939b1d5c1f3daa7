"""A machine dies: how long until the cluster asks EC2 for another one. Nothing trains; a placement group wants it."""

import shlex
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from emulated.files import REGION
from scaletrain.cluster.aws_rehearsal import furnish
from scaletrain.cluster.cluster_file import load_cluster_file
from scaletrain.emulator.ec2 import emulated_ec2
from scaletrain.emulator.emulated_cloud import Instance

Death = Literal["crash", "preempt"]
_UP_LIMIT_S, _PLACE_LIMIT_S, _REQUEST_LIMIT_S = 900, 300, 300
_SETTLE_S = 5  # for the new machine's start to be over
_WITH_RAY = "export PATH=/opt/scaletrain/venv/bin:$PATH RAY_AUTH_MODE=token; cd ~; "
# Holds one machine of the type that has 8 CPUs, and tells whenever the place is on another one.
_HOLDER = """
import time, ray
from ray.util.placement_group import placement_group, placement_group_table
ray.init(address="auto", logging_level="ERROR")
group, told = placement_group([{"CPU": 8}]), ""
while True:
    table = placement_group_table(group)
    place = table["bundles_to_node_id"].get(0, "") if table["state"] == "CREATED" else ""
    if place and place != told:
        told = place
        print("placed", next(n["NodeManagerAddress"] for n in ray.nodes() if n["NodeID"] == place), flush=True)
    time.sleep(0.2)
"""


class HeldCluster:
    """A cluster on an emulated EC2 of its own, on which one worker machine is wanted at any time."""

    def __init__(self, write_file: Callable[[Path], Path]) -> None:
        self._write_file = write_file
        self._lost = 0

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def lose(self, death: Death) -> float:
        """Let the worker die; returns the seconds until a RunInstances that succeeded, and waits for the new worker."""
        time.sleep(_SETTLE_S)
        lost, died_s = self.worker, self.cloud.now_s()
        if death == "crash":
            self.cloud.crash(lost)
        else:
            self.cloud.preempt(lost, notice_s=0)
        deadline = time.monotonic() + _REQUEST_LIMIT_S
        while not (asked := [at for at in self._launches() if at > died_s]):
            assert time.monotonic() < deadline, f"no replacement was asked for in {_REQUEST_LIMIT_S} s"
            time.sleep(0.1)
        self.worker = self._wait_for_worker(not_id=lost.id)
        self._lost += 1
        return asked[0] - died_s

    def replaced_without_need(self) -> int:
        """How many machines were launched beyond the head, the first worker, and one for each that died."""
        return len(self._launches()) - 2 - self._lost

    def _start(self, stack: ExitStack) -> None:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="scaletrain-benchmark-")))
        path = self._write_file(folder)
        file = load_cluster_file(path)
        types = [each.instance_type for each in file.node_types if each.instance_type]
        self.cloud = stack.enter_context(emulated_ec2(folder / "cloud", region=REGION, instance_types=types))
        furnish(self.cloud, file)
        done = self.cloud.laptop(["ray", "up", "-y", "--no-config-cache", str(path)], timeout_s=_UP_LIMIT_S)
        assert done.returncode == 0, done.stdout[-3000:]
        self._told = folder / "holder.log"
        line = f"{_WITH_RAY}python -c {shlex.quote(_HOLDER)}"
        self._holder: subprocess.Popen[bytes] = self.cloud.start_on_laptop(
            ["ray", "exec", "--no-config-cache", str(path), line], output=self._told
        )
        stack.callback(self._holder.kill)
        self.worker = self._wait_for_worker(not_id="")

    def _launches(self) -> list[float]:
        calls = self.cloud.api_log()
        return [call.time_s for call in calls if call.action == "RunInstances" and call.status == 200]

    def _wait_for_worker(self, *, not_id: str) -> Instance:
        """Wait until the placement group is on another machine than the one with this id."""
        deadline = time.monotonic() + _PLACE_LIMIT_S
        while True:
            told = [line.split()[1] for line in self._told.read_text().splitlines() if line.startswith("placed ")]
            running = {each.address: each for each in self.cloud.instances("running")}
            found = running.get(told[-1]) if told else None
            if found is not None and found.id != not_id and found.node_status == "up-to-date":
                return found
            assert self._holder.poll() is None and time.monotonic() < deadline, self._told.read_text()[-3000:]
            time.sleep(0.2)
