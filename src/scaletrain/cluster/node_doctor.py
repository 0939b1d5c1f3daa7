"""Are the nodes of a cluster ready for a long run? Each is looked at, and then all of them work together once.

Runs in a process that is connected to the cluster (a submitted job, or this machine as a cluster of one), takes about
two minutes, and leaves nothing behind. Every node: driver and GPU, memory, /dev/shm, disk, the bucket and its speed,
the clock. The group: an all-reduce, and 20 ZeRO-3 steps.
"""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scaletrain import doctor, storage
from scaletrain.config import Config, StorageSection
from scaletrain.doctor import Finding
from scaletrain.errors import ClusterError, ScaletrainError
from scaletrain.train.group_check import GroupSpeed, check_group
from scaletrain.train.waiting import WorkerGroup

if TYPE_CHECKING:
    from rich.table import Table

_SPEED_BYTES = 64 * 2**20
_SLOW_BUCKET_MB_PER_S = 25.0
_CLOCK_WARN_S, _CLOCK_FAIL_S = 1.0, 300.0  # stores refuse requests whose clock is 15 minutes off
_NODE_TIMEOUT_S = 180.0


@dataclass(frozen=True)
class NodeFinding:
    """What one check found on one node; `node` is its address, or "group" for all together."""

    node: str
    finding: Finding

    def record(self) -> dict[str, str]:
        """The finding as plain data."""
        return {"node": self.node, **asdict(self.finding)}


def check_nodes(config: Config, group: WorkerGroup, *, device: str) -> list[NodeFinding]:
    """Look at every node that is alive, and let a group of workers work together; raises nothing.

    The process must be connected to Ray.
    """
    found: list[NodeFinding] = []
    for address, node_id in _alive_nodes():
        found += [NodeFinding(address, each) for each in _on_node(node_id, config.storage)]
    if not any(each.finding.status == "fail" for each in found):
        found.append(NodeFinding("group", _group(config, group, device=device)))
    return found


def render(findings: Sequence[NodeFinding]) -> "Table":
    """Return the findings as a table for the terminal, node by node."""
    from rich.table import Table

    table = Table("node", "check", "", "found", "what to do")
    last = ""
    for each in findings:
        node, last = ("" if each.node == last else each.node), each.node
        table.add_row(node, *doctor.cells(each.finding))
    return table


def _alive_nodes() -> list[tuple[str, str]]:
    import ray

    nodes: list[Mapping[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return sorted((node["NodeManagerAddress"], node["NodeID"]) for node in nodes if node["Alive"])


def _on_node(node_id: str, section: StorageSection) -> list[Finding]:
    """Run the checks on one node; a node that does not answer is a finding too."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    pinned = {"num_cpus": 0, "scheduling_strategy": NodeAffinitySchedulingStrategy(node_id, soft=False)}
    try:
        findings: list[Finding] = ray.get(
            ray.remote(_look).options(**pinned).remote(section.root, dict(section.options)), timeout=_NODE_TIMEOUT_S
        )
        return [*findings, _clock(ray.remote(_read_clock).options(**pinned))]
    except ray.exceptions.GetTimeoutError:
        return [Finding("node", "fail", f"no answer in {_NODE_TIMEOUT_S:.0f} s", "look at it with ray attach")]
    except ray.exceptions.RayError as error:
        first = str(error).strip().splitlines()[0]
        return [Finding("node", "fail", first, "look at its logs with ray attach, below /tmp/ray/session_latest")]


def _look(root: str, options: Mapping[str, str | int | float | bool]) -> list[Finding]:
    """What each node's task does."""
    findings = [
        doctor.gpu(doctor.installed_cuda()),
        doctor.memory(),
        doctor.shared_memory(),
        doctor.disk("disk, cache", Path("~/.cache").expanduser()),
        doctor.bucket(root, options),
    ]
    if findings[-1].status != "fail":
        findings.append(bucket_speed(root))
    return findings


def bucket_speed(root: str) -> Finding:
    """Write and read 64 MB below a storage root that this process was configured for."""
    name = "storage, speed"
    url = storage.join(root, f"doctor-{os.urandom(6).hex()}")
    data = os.urandom(_SPEED_BYTES)
    try:
        began = time.perf_counter()
        storage.write_bytes(url, data)
        written = time.perf_counter()
        same = storage.read_bytes(url) == data
        ended = time.perf_counter()
        storage.remove(url)
    except ScaletrainError as error:
        return Finding(name, "fail", str(error))
    if not same:
        return Finding(name, "fail", "does not give back what was written", "use another store")
    up, down = (_SPEED_BYTES / 1e6 / seconds for seconds in (written - began, ended - written))
    found = f"{up:,.0f} MB/s up, {down:,.0f} MB/s down"
    if min(up, down) < _SLOW_BUCKET_MB_PER_S:
        return Finding(
            name, "warn", found, "slow: is the bucket in the cluster's region, and is there a gateway endpoint?"
        )
    return Finding(name, "ok", found)


def _read_clock() -> float:
    return time.time()


def _clock(read_clock: Any) -> Finding:
    """Compare a node's clock with this one's, to within half of what asking takes."""
    import ray

    asked = time.time()
    there: float = ray.get(read_clock.remote(), timeout=_NODE_TIMEOUT_S)
    answered = time.time()
    offset_s, error_s = there - (asked + answered) / 2, (answered - asked) / 2
    found = f"{offset_s:+.2f} s from the head's (to within {error_s:.2f} s)"
    apart_s = max(0.0, abs(offset_s) - error_s)
    remedy = "let it follow a time server: systemctl enable --now chrony"
    if apart_s > _CLOCK_WARN_S:
        return Finding("clock", "fail" if apart_s > _CLOCK_FAIL_S else "warn", found, remedy)
    return Finding("clock", "ok", found)


def _group(config: Config, group: WorkerGroup, *, device: str) -> Finding:
    scratch = storage.join(config.storage.root, f"doctor-{os.urandom(6).hex()}")
    name = f"{group.num_workers} workers together"
    try:
        speed = check_group(config, group, device=device, scratch=scratch)
    except ClusterError as error:
        return Finding(name, "fail", str(error), "NCCL_DEBUG=INFO in the worker's start command tells more")
    return Finding(name, "ok", _describe(speed))


def _describe(speed: GroupSpeed) -> str:
    bus = f"all-reduce {speed.bus_gb_per_s:.2f} GB/s on the bus, " if speed.num_workers > 1 else ""
    return f"{bus}a ZeRO-3 step takes {1e3 * speed.step_s:.0f} ms (the slowest {1e3 * speed.slowest_step_s:.0f})"
