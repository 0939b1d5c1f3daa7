"""What a cluster that `ray up` started may bring, what it is bringing, and why machines did not come.

Ray's status names a machine that could not be launched, but not the reason; that stands in the log of the autoscaler,
on the head. `ray up` puts the cluster file, complete, on the head as ~/ray_bootstrap_config.yaml.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from scaletrain.log import get_logger
from scaletrain.price_table import Market

_ON_THE_HEAD = Path("~/ray_bootstrap_config.yaml")
_LOG_LINES = 2000
_LOG_LINE = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),\d+\t\w+ \S+ -- (.*)$", re.MULTILINE)
_LAUNCH_FAILED = re.compile(r"Failed to launch \d+ nodes of type (\S+): (.*)")
_SETUP_FAILED = re.compile(r"Ray installation failed on instance (\S+): (.*)")
_SETUP_SAID = re.compile(r"set-up FAILED.*")
_THROTTLED = re.compile(r"RequestLimitExceeded|Throttl|[Rr]ateLimitExceeded|RATE_LIMIT_EXCEEDED")
_REMEDIES = (
    (
        _THROTTLED.pattern,
        "the cloud was asked too often and refuses for a while: wait; if it goes on, see what else asks this account",
    ),
    (
        r"VcpuLimitExceeded|InstanceLimitExceeded|SpotInstanceCountExceeded|QUOTA|[Qq]uota",
        "the account's quota is used up: ask for more at https://console.aws.amazon.com/servicequotas/home/services/ec2"
        " (GCP: https://console.cloud.google.com/iam-admin/quotas), or lower scaling.workers",
    ),
    (
        r"Insufficient\w*Capacity|UnfulfillableCapacity|SpotMaxPriceTooLow|RESOURCE_POOL_EXHAUSTED|stockout",
        "the cloud has no such machine to give now: set max_workers of another type or zone in the cluster file, or "
        "take on-demand instead of spot, and run `ray up` again; or wait",
    ),
    (
        r"InvalidAMI|ImageId|[Ii]mage\b.*(not found|does not exist)",
        "the image cannot be used in this region: run `scaletrain cluster check FILE`",
    ),
    (
        r"UnauthorizedOperation|AccessDenied|AuthFailure|ServiceLinkedRole|ExpiredToken|InvalidClientTokenId|forbidden",
        "the head's role may not launch it: run `scaletrain cluster init` again, then `scaletrain cluster check FILE`",
    ),
)
SETUP_REMEDY = "log in with `ray attach FILE` and read /tmp/ray/session_latest/logs/monitor.out"

log = get_logger(__name__)


@dataclass(frozen=True)
class MachineType:
    """A type of machine that the autoscaler may start: `resources` of one, and how many at most.

    `instance_type` is the cloud's name for it, `market` and `region` where it is rented: None where it is one's own.
    """

    name: str
    max_count: int
    resources: Mapping[str, float]
    instance_type: str | None = None
    market: Market | None = None
    region: str | None = None

    def room_for(self, bundle: Mapping[str, float]) -> int:
        """How many workers, each of which needs `bundle`, fit on all machines of this type."""
        return self.max_count * whole_bundles(self.resources, bundle)


@dataclass(frozen=True)
class Machine:
    """A machine that has joined the cluster; `used` is what of its resources is taken."""

    type: str
    address: str
    node_id: str
    state: Literal["busy", "idle"]
    is_head: bool
    resources: Mapping[str, float]
    used: Mapping[str, float]


@dataclass(frozen=True)
class ClusterState:
    """The machines there are, and how many of each type are being launched or set up."""

    machines: tuple[Machine, ...]
    launching: Mapping[str, int]
    setting_up: Mapping[str, int]

    @property
    def coming(self) -> int:
        return sum(self.launching.values()) + sum(self.setting_up.values())

    def describe_coming(self) -> str:
        """As "gpu_spot: 1 launching, 1 being set up"; empty where nothing is coming."""
        types = dict.fromkeys((*self.launching, *self.setting_up))
        return "; ".join(f"{name}: {', '.join(self._counts(name))}" for name in types)

    def _counts(self, name: str) -> list[str]:
        counts = ((self.launching.get(name, 0), "launching"), (self.setting_up.get(name, 0), "being set up"))
        return [f"{count} {what}" for count, what in counts if count]


@dataclass(frozen=True)
class Failure:
    """A machine that did not come: what happened, why, and what to do about it."""

    happened: str
    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.happened}: {self.reason}; {self.remedy}" if self.remedy else f"{self.happened}: {self.reason}"


def whole_bundles(resources: Mapping[str, float], bundle: Mapping[str, float]) -> int:
    """How many times `bundle` fits into `resources`."""
    return min((int(resources.get(name, 0) / need + 1e-9) for name, need in bundle.items() if need), default=0)


def machine_types(path: Path = _ON_THE_HEAD) -> tuple[MachineType, ...]:
    """The types of worker that this cluster's autoscaler may start; none where there is no autoscaler.

    Asked on the head. A type whose resources the file leaves to Ray (machines of one's own) is left out.
    """
    head, types = _types(path)
    return tuple(each for each in types if each.name != head and each.resources and each.max_count)


def head_type(path: Path = _ON_THE_HEAD) -> MachineType | None:
    """The head's own type; None where there is no autoscaler."""
    head, types = _types(path)
    return next((each for each in types if each.name == head), None)


def _types(path: Path) -> tuple[str | None, list[MachineType]]:
    """The name of the head's type, and every type of the cluster's file."""
    import yaml

    path = path.expanduser()
    if not path.is_file():
        return None, []
    tree: Mapping[str, Any] = yaml.safe_load(path.read_text()) or {}
    most, region = int(tree.get("max_workers", 0)), (tree.get("provider") or {}).get("region")
    types = [
        _type(name, kind, most=most, region=region) for name, kind in (tree.get("available_node_types") or {}).items()
    ]
    return tree.get("head_node_type"), types


def _type(name: str, kind: Mapping[str, Any], *, most: int, region: str | None) -> MachineType:
    node = kind.get("node_config") or {}
    instance_type = node.get("InstanceType") or node.get("machineType")
    is_spot = (node.get("InstanceMarketOptions") or {}).get("MarketType") == "spot" or (
        node.get("scheduling") or {}
    ).get("provisioningModel") == "SPOT"
    return MachineType(
        name,
        max_count=min(int(kind.get("max_workers", most)), most),
        resources=kind.get("resources") or {},
        instance_type=instance_type,
        market=None if instance_type is None else "spot" if is_spot else "on-demand",
        region=region if instance_type else None,
    )


def read_state(gcs_address: str) -> ClusterState:
    """Ask the cluster for its machines; `gcs_address` is Ray's own address, as 10.0.0.1:6379."""
    from ray.autoscaler.v2.sdk import get_cluster_status

    status = get_cluster_status(gcs_address)
    busy = tuple(_machine(node, state="busy") for node in status.active_nodes)
    idle = tuple(_machine(node, state="idle") for node in status.idle_nodes)
    launching: Counter[str] = Counter()
    for launch in status.pending_launches:
        launching[launch.ray_node_type_name] += launch.count
    return ClusterState(busy + idle, launching, Counter(node.ray_node_type_name for node in status.pending_nodes))


def read_failures(state: ClusterState, *, api_url: str | None = None, since: datetime | None = None) -> list[Failure]:
    """Read from the head's logs why machines did not come; the newest last, each reason once.

    `api_url` is the dashboard's; without it, that of the cluster this process is connected to. `since` is in the
    head's local time.
    """
    head = next((machine for machine in state.machines if machine.is_head), None)
    if head is None:
        return []
    told = _read_log("monitor.log", head, api_url)
    setup_output = _read_log("monitor.out", head, api_url) if _SETUP_FAILED.search(told) else ""
    return parse_failures(told, setup_output, since=since)


def parse_failures(told: str, setup_output: str = "", *, since: datetime | None = None) -> list[Failure]:
    """Find the failures in the autoscaler's log, and the reason of a failed set-up in its output."""
    found: dict[Failure, None] = {}
    for time, message in _LOG_LINE.findall(told):
        if since is not None and datetime.fromisoformat(time) < since.replace(microsecond=0):
            continue
        if launch := _LAUNCH_FAILED.search(message):
            reason = launch[2].strip().removeprefix("Node Launch Exception ")
            remedy = next((remedy for pattern, remedy in _REMEDIES if re.search(pattern, reason)), "")
            failure = Failure(f"a machine of type {launch[1]} was not launched", reason, remedy)
        elif setup := _SETUP_FAILED.search(message):
            reason = _setup_reason(setup_output) or setup[2].strip()
            failure = Failure(f"the set-up of {setup[1]} failed", reason, SETUP_REMEDY)
        else:
            continue
        if _THROTTLED.search(failure.reason):
            failure = _older_reason(failure, found)
        found.pop(failure, None)
        found[failure] = None
    return list(found)


def _older_reason(throttled: Failure, found: Mapping[Failure, None]) -> Failure:
    """Who is refused asks again until the cloud throttles: the reason is the one that came before."""
    return next((each for each in reversed(list(found)) if each.happened == throttled.happened), throttled)


def _machine(node: Any, *, state: Literal["busy", "idle"]) -> Machine:
    resources = node.total_resources()
    return Machine(
        type=node.ray_node_type_name,
        address=node.ip_address,
        node_id=node.node_id,
        state=state,
        is_head="node:__internal_head__" in resources,
        resources=resources,
        used=node.used_resources(),
    )


def _setup_reason(output: str) -> str:
    """The last thing a failed set-up said of itself: its own verdict, or the lines before Ray gave up."""
    verdicts = _SETUP_SAID.findall(output)
    if verdicts:
        return str(verdicts[-1]).strip()
    before = output.rpartition("update-failed")[0]
    said = [line.strip() for line in before.splitlines() if line.strip() and "New status" not in line]
    return " / ".join(said[-4:])


def _read_log(name: str, head: Machine, api_url: str | None) -> str:
    """Return the end of a log of the head, or nothing where there is none: reasons are for show, never one to end."""
    import requests
    from ray._private.authentication.http_token_authentication import get_auth_headers_if_auth_enabled
    from ray.util.state import get_log
    from ray.util.state.exception import RayStateApiException

    try:
        if api_url is None:
            return "".join(get_log(node_id=head.node_id, filename=name, tail=_LOG_LINES, errors="replace"))
        # As get_log does it, which finds the dashboard by itself, and not through a tunnel.
        query: dict[str, str | int] = {"node_id": head.node_id, "filename": name, "lines": _LOG_LINES}
        headers = get_auth_headers_if_auth_enabled({})
        answer = requests.get(f"{api_url}/api/v0/logs/file", params=query, headers=headers, timeout=30)
        return answer.text if answer.ok else ""
    except (RayStateApiException, requests.RequestException, ConnectionError) as error:
        log.debug("%s of the head cannot be read: %s", name, error)
        return ""
