"""The steps of a rehearsal on the emulated cloud: up, the head, a worker, the bucket, the ports, down, the rest.

Each returns what it found, or raises `Failed` with the reason in the user's words.
"""

import json
import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from scaletrain.cluster import aws_rehearsal
from scaletrain.cluster.cluster_file import ClusterFile, NodeType
from scaletrain.cluster.rehearsal_verdicts import Verdict, explain
from scaletrain.emulator.emulated_cloud import EmulatedCloud, Instance
from scaletrain.emulator.worker_probe import MARK

_UP_LIMIT_S = 900
_WORKER_LIMIT_S = 600
_GONE_LIMIT_S = 60
_WITH_RAY = (
    "export PATH=/opt/scaletrain/venv/bin:$PATH; [ ! -f ~/.ray/auth_token ] || export RAY_AUTH_MODE=token; cd ~; "
)
_LAUNCHES = ("RunInstances", "instances.create")
_RIGHTS = {"aws": "an IamInstanceProfile", "gcp": "a service account that may"}
_DOORS = {
    "aws": "a security group admits 0.0.0.0/0, or one that Ray makes by itself does; give SecurityGroupIds of a "
    "group that admits SSH from your address only (scaletrain cluster init aws)",
    "gcp": "the network's own rules do, as in `default`; give the machines the tag of firewall rules that admit SSH "
    "from your address only (scaletrain cluster init gcp)",
}
_AUTOSCALER_LOGS = "cat /tmp/ray/session_latest/logs/monitor.* 2>/dev/null | tail -n 2000"
# Run on somebody else's machine: which of these (address, port) pairs answer within a second?
_SCAN = """
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor
def answers(place):
    try:
        socket.create_connection(tuple(place), timeout=1).close()
        return True
    except OSError:
        return False
places = json.loads(sys.argv[1])
with ThreadPoolExecutor(64) as pool:
    print(json.dumps([place for place, open in zip(places, pool.map(answers, places)) if open]))
"""


class Failed(Exception):
    """A step did not come to its end."""

    def __init__(self, reason: str, line: str = "") -> None:
        super().__init__(reason)
        self.verdict = Verdict(reason, line)


def bring_up(cloud: EmulatedCloud, file: ClusterFile) -> str:
    """`ray up`, from the folder in which the user stands."""
    done = cloud.laptop(
        ["ray", "up", "-y", "--no-config-cache", str(file.path.resolve())], cwd=Path.cwd(), timeout_s=_UP_LIMIT_S
    )
    (cloud.folder / "ray-up.log").write_text(done.stdout)
    if done.returncode != 0:
        verdict = explain(done.stdout)
        raise Failed(verdict.reason, verdict.line)
    return f"the head runs: {_head(cloud).instance_type}"


def ask_head(cloud: EmulatedCloud, file: ClusterFile) -> str:
    """Ray on the head answers whoever has the token."""
    done = _ray_exec(cloud, file, "ray status")
    if done.returncode != 0 or "Resources" not in done.stdout:
        verdict = explain(done.stdout)
        raise Failed(f"Ray on the head does not answer: {verdict.reason}", verdict.line)
    return "Ray answers"


def start_worker(cloud: EmulatedCloud, file: ClusterFile) -> dict[str, Any]:
    """Let a small job ask for a machine of the first worker type with GPUs, else of the first; return what it found."""
    kinds = [each for each in file.workers if each.max_workers > 0]
    if not kinds:
        raise Failed("no worker type has max_workers above 0, so no job can ever run")
    kind = next((each for each in kinds if each.gpus), kinds[0])
    arguments = [json.dumps(_demand(cloud, kind)), file.bucket_root or ""]
    probe = f"python -m scaletrain.emulator.worker_probe {' '.join(shlex.quote(each) for each in arguments)}"
    output = cloud.folder / "worker.log"
    process = cloud.start_on_laptop(_exec_command(file, probe), output=output, cwd=Path.cwd())
    deadline = time.monotonic() + _WORKER_LIMIT_S
    while process.poll() is None:
        if reason := _hopeless(cloud):
            process.kill()
            raise Failed(reason, explain(_autoscaler_log(cloud)).line)
        if time.monotonic() > deadline:
            process.kill()
            verdict = explain(_autoscaler_log(cloud))
            raise Failed(f"no {kind.name} within {_WORKER_LIMIT_S} s: {verdict.reason}", verdict.line)
        time.sleep(1)
    line = next((each for each in output.read_text().splitlines() if each.startswith(MARK)), None)
    if line is None:
        verdict = explain(output.read_text())
        raise Failed(f"the job on {kind.name} failed: {verdict.reason}", verdict.line)
    found: dict[str, Any] = json.loads(line.removeprefix(MARK))
    hosts = {each.hostname: each.node_type for each in cloud.instances("running")}
    return {**found, "node_type": hosts.get(found["host"], kind.name)}


def judge_bucket(file: ClusterFile, found: dict[str, Any]) -> str:
    """What the worker met when it wrote below the storage root."""
    if not file.bucket_root:
        return "no metadata.bucket in the file: not tried"
    if found["bucket_error"]:
        needed = _RIGHTS[file.provider]
        reason = f"a {found['node_type']} may not write {file.bucket_root}: give its node_config {needed}"
        raise Failed(reason, found["bucket_error"])
    return f"{found['node_type']} writes and reads {file.bucket_root}"


def scan_ports(cloud: EmulatedCloud, file: ClusterFile) -> str:
    """Try everything that listens on the machines, from a machine of somebody else."""
    places = listening_places(cloud)
    open_to_all = open_places(cloud.third_machine, places)
    if open_to_all:
        listed = ", ".join(str(port) for port in sorted({port for _, port in open_to_all}))
        raise Failed(
            f"anybody reaches port {listed}: {_DOORS[file.provider]}",
            f"open to a stranger: {open_to_all}",
        )
    return f"{len(places)} ports listen, none answers a stranger"


def listening_places(cloud: EmulatedCloud) -> list[tuple[str, int]]:
    """Address and port of whatever listens on the machines, but for what only the machine itself reaches."""
    places: list[tuple[str, int]] = []
    on = cloud.machines()
    for each in cloud.instances("running"):
        if each.id not in on:
            continue  # it boots
        listening = [line.split()[3] for line in cloud.on_machine(each, ["ss", "-Hltn"]).stdout.splitlines()]
        ports = {place.rpartition(":")[2] for place in listening if not place.startswith(("127.", "[::1]"))}
        places += [(each.address, int(port)) for port in sorted(ports)]
    return places


def open_places(run: Callable[[list[str]], Any], places: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """Those of some places that answer where `run` runs a command."""
    done = run(["/usr/bin/python3", "-c", _SCAN, json.dumps(places)])
    return [(address, port) for address, port in json.loads(done.stdout)]


def take_down(cloud: EmulatedCloud, file: ClusterFile) -> str:
    """`ray down`."""
    done = cloud.laptop(["ray", "down", "-y", str(file.path.resolve())], cwd=Path.cwd(), timeout_s=_UP_LIMIT_S)
    (cloud.folder / "ray-down.log").write_text(done.stdout)
    if done.returncode != 0:
        verdict = explain(done.stdout)
        raise Failed(verdict.reason, verdict.line)
    return "done"


def look_for_rest(cloud: EmulatedCloud) -> str:
    """Wait until no machine is left on."""
    deadline = time.monotonic() + _GONE_LIMIT_S
    while cloud.machines() or cloud.instances("pending", "running"):
        if time.monotonic() > deadline:
            left = ", ".join(f"{each.node_type} {each.id}" for each in cloud.instances("pending", "running"))
            raise Failed(f"still on {_GONE_LIMIT_S} s after ray down: {left}")
        time.sleep(0.5)
    if stopped := cloud.instances("stopped"):
        return f"{len(stopped)} stopped machines, as cache_stopped_nodes wants: their disks go on costing"
    return "no machine"


def keep_logs(cloud: EmulatedCloud) -> None:
    """Save what the head's autoscaler wrote, before the head goes."""
    if any(each.node_kind == "head" for each in cloud.instances("running")):
        (cloud.folder / "autoscaler.log").write_text(_autoscaler_log(cloud))


def _demand(cloud: EmulatedCloud, kind: NodeType) -> dict[str, float]:
    """A little of everything that only this type has; its CPUs and GPUs as EC2 tells them where the file does not."""
    # On Google Cloud, Ray knows of a machine what the file says, and no more.
    shape = aws_rehearsal.shape_of(cloud, kind) if cloud.provider == "aws" else {}
    has: dict[str, float] = {"CPU": 0, "GPU": 0, **shape, **kind.resources}
    custom = {name: 1 for name, count in has.items() if name not in ("CPU", "GPU", "memory") and count >= 1}
    return {**custom, "CPU": min(1, has["CPU"]), "GPU": min(1, has["GPU"])}


def _hopeless(cloud: EmulatedCloud) -> str:
    """Why no worker will come, as soon as it is certain."""
    for each in cloud.instances():
        if each.node_kind == "worker" and each.node_status == "update-failed":
            return f"set-up of {each.node_type} failed: {explain(_autoscaler_log(cloud)).reason}"
    refused = [call for call in cloud.api_log() if call.action in _LAUNCHES and call.error and "(" in call.caller]
    if len(refused) >= 5:  # as often as Ray tries one launch
        return f"the head cannot launch workers: {refused[-1].error}. {explain(_autoscaler_log(cloud)).reason}"
    return ""


def _ray_exec(cloud: EmulatedCloud, file: ClusterFile, command: str) -> Any:
    return cloud.laptop(_exec_command(file, command), cwd=Path.cwd(), timeout_s=120)


def _exec_command(file: ClusterFile, command: str) -> list[str]:
    return ["ray", "exec", "--no-config-cache", str(file.path.resolve()), _WITH_RAY + command]


def _autoscaler_log(cloud: EmulatedCloud) -> str:
    return str(cloud.on_machine(_head(cloud), ["sh", "-c", _AUTOSCALER_LOGS]).stdout)


def _head(cloud: EmulatedCloud) -> Instance:
    heads = [each for each in cloud.instances("running") if each.node_kind == "head"]
    if not heads:
        raise Failed("no head is running")
    return heads[0]
