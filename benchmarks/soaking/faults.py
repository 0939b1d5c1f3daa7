"""What each kind of fault does to an arm, and what its kind says is mended after it (see `schedule.KINDS`)."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from fault_proxy import Request
from soaking.arms import flip_a_bit
from soaking.nodes import Node
from soaking.schedule import Fault

if TYPE_CHECKING:
    from soaking.site import Site

_STORE_S = 20.0
_HEAD_DOWN_S = 3.0
_UPLOADED_BYTES = 1000


def make(site: "Site", fault: Fault) -> int:
    """Make a fault; returns how many processes, machines or requests it hit (0: there was nothing to hit)."""
    return _MAKE[fault.kind](site, fault)


def _kill_worker(site: "Site", fault: Fault) -> int:
    return _signal_worker(site, fault, signal.SIGKILL)[0]


def _freeze_worker(site: "Site", fault: Fault) -> int:
    hit, pid = _signal_worker(site, fault, signal.SIGSTOP)
    time.sleep(fault.wait_s)
    _signal(pid, signal.SIGCONT)
    return hit


def _end_worker(site: "Site", fault: Fault) -> int:
    hit, pid = _signal_worker(site, fault, signal.SIGTERM)
    time.sleep(1)
    _signal(pid, signal.SIGKILL)
    return hit


def _kill_node(site: "Site", fault: Fault) -> int:
    node = _victim(site, fault)
    killed = 0 if node is None else site.nodes.kill(node)
    _replace(site, fault)
    return killed


def _take_node(site: "Site", fault: Fault) -> int:
    """Give notice as the cloud does; nothing in stock Ray reads it, so that for the peer Ray is told to drain it."""
    node, notice_s = _victim(site, fault), 30.0 if fault.kind == "notice-30s" else 5.0
    if node is None:
        _replace(site, fault)
        return 0
    ends = time.time() + notice_s
    site.notices[node.address] = datetime.fromtimestamp(ends, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if site.is_stock:
        assert site.head is not None
        drain = [str(Path(sys.executable).with_name("ray")), "drain-node", f"--address={site.head.address}:6379"]
        drain += ["--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=taken"]
        told = site.nodes.start_there(
            node, [*drain, f"--deadline-remaining-seconds={notice_s:.0f}"], log=site.folder / "drain.log"
        )
        with suppress(subprocess.TimeoutExpired):
            told.wait(timeout=max(0.0, ends - time.time()))
    time.sleep(max(0.0, ends - time.time()))
    site.nodes.kill(node)
    _replace(site, fault)
    return 1


def _kill_driver(site: "Site", fault: Fault) -> int:
    killed = site.kill_driver()
    site.start_driver()
    return killed


def _kill_cluster(site: "Site", fault: Fault) -> int:
    killed = site.kill_cluster()
    time.sleep(_HEAD_DOWN_S)
    site.start_cluster()
    site.start_driver()
    return killed


def _refuse(site: "Site", fault: Fault) -> int:
    return _disturb(site, fault, "answer", lambda request: True)


def _reset_uploads(site: "Site", fault: Fault) -> int:
    return _disturb(site, fault, "reset_upload", lambda request: request.method == "PUT")


def _flip_bit(site: "Site", fault: Fault) -> int:
    flipped = flip_a_bit(site.arm, fault.seed)
    _signal_worker(site, fault, signal.SIGKILL)
    return flipped


_MAKE: dict[str, Callable[["Site", Fault], int]] = {
    "worker-killed": _kill_worker,
    "worker-frozen": _freeze_worker,
    "worker-ended": _end_worker,
    "node-killed": _kill_node,
    "notice-30s": _take_node,
    "notice-5s": _take_node,
    "driver-killed": _kill_driver,
    "cluster-killed": _kill_cluster,
    "store-refuses": _refuse,
    "uploads-reset": _reset_uploads,
    "bit-flipped": _flip_bit,
}


def _signal_worker(site: "Site", fault: Fault, number: signal.Signals) -> tuple[int, int]:
    """Send a signal to the worker that the fault names; returns how many were hit, and its process."""
    workers = site.workers()
    if not workers:
        return 0, 0
    _, pid = workers[fault.victim % len(workers)]
    return int(_signal(pid, number)), pid


def _signal(pid: int, number: signal.Signals) -> bool:
    with suppress(ProcessLookupError):
        if pid:
            os.kill(pid, number)
            return True
    return False


def _victim(site: "Site", fault: Fault) -> Node | None:
    """A machine that trains, if there is one, else another one; never the head."""
    training = list({node.name: node for node, _ in site.workers()}.values())
    nodes = training or [node for node in site.nodes.all() if node is not site.head]
    return nodes[fault.victim % len(nodes)] if nodes else None


def _replace(site: "Site", fault: Fault) -> None:
    """Let another machine join, some time later."""
    time.sleep(fault.wait_s)
    site.start_worker_node()


def _disturb(site: "Site", fault: Fault, kind: str, matches: Callable[[Request], bool]) -> int:
    """Let half of the requests that match go wrong for a while, on all machines; returns how many did."""
    source, many = random.Random(fault.seed), 10**9

    def is_hit(request: Request) -> bool:
        return matches(request) and source.random() < 0.5

    made = [
        node.proxy.inject(kind, is_hit, times=many, after_bytes=_UPLOADED_BYTES if kind == "reset_upload" else 0)
        for node in site.nodes.all()
    ]
    time.sleep(_STORE_S)
    hit = sum(many - each.times for each in made)
    for node in site.nodes.all():
        node.proxy.reset()
    return hit
