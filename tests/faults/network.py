"""A network between the workers of a test that delays, loses or keeps back packets, as the test wants it.

Each worker lives in a network namespace of its own with a TUN device, and this process carries every packet between
them. The kernel's own netem would do the same, but not every kernel has it. Needs root.
"""

import ctypes
import fcntl
import heapq
import os
import random
import selectors
import shutil
import socket
import struct
import subprocess
import threading
import time
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Self

from attempts_on_processes import Arm, act_in_step

from workers import _CONTEXT

_DEVICE = "wire0"
_SUBNET = "10.99.0"
_MTU_BYTES = 9000  # as within the networks of the clouds
_WAKE_EVERY_S = 0.1
_CLONE_NEWNET = 0x40000000  # sched.h
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000  # linux/if_tun.h


def lacking() -> str:
    """What this machine lacks for it; empty where nothing is missing."""
    if os.geteuid() != 0:
        return "needs root"
    if not Path("/dev/net/tun").exists():
        return "needs /dev/net/tun"
    return "" if shutil.which("ip", path=f"{os.environ['PATH']}:/usr/sbin:/sbin") else "needs ip (iproute2)"


class Network:
    """A network of some workers, while the context lasts; one that is `cut` carries nothing, and says nothing.

    A packet takes `latency_s`, one way; `loss` is the share of packets that never arrive.
    """

    def __init__(self, workers: int, *, latency_s: float = 0.0, loss: float = 0.0) -> None:
        self.cut = _CONTEXT.Event()
        self.packets = self.lost = 0
        self._latency_s = latency_s
        self._loss = loss
        self._workers = workers
        self._namespaces: list[int] = []
        self._devices: dict[bytes, int] = {}  # by address
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._carry, name="network", daemon=True)

    def __enter__(self) -> Self:
        for rank in range(self._workers):
            maker = threading.Thread(
                target=self._make_place, args=(rank,)
            )  # a namespace is a thread's, not a process's
            maker.start()
            maker.join()
        assert len(self._devices) == self._workers
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()
        for descriptor in (*self._devices.values(), *self._namespaces):
            os.close(descriptor)

    def arm(self, then: Arm | None = None) -> Arm:
        """Arm workers to live in this network; `then` arms them with something else, too."""
        return partial(_join, [f"/proc/{os.getpid()}/fd/{each}" for each in self._namespaces], then)

    def arm_to_cut(self, step: int) -> Arm:
        """Arm workers to live in this network, which is cut in the middle of a step (1-based)."""
        return self.arm(partial(_cut_in_step, step, self.cut))

    def _make_place(self, rank: int) -> None:
        _call("unshare", _CLONE_NEWNET)
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", _DEVICE.encode(), _IFF_TUN | _IFF_NO_PI))
        address = f"{_SUBNET}.{rank + 1}"
        for command in (
            f"ip link set {_DEVICE} addrgenmode none mtu {_MTU_BYTES}",
            f"ip address add {address}/24 dev {_DEVICE}",
            f"ip link set {_DEVICE} up",
            "ip link set lo up",
        ):
            subprocess.run(command.split(), check=True)
        self._namespaces.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY))
        self._devices[socket.inet_aton(address)] = device

    def _carry(self) -> None:
        """Carry packets until the end: first those that are due, then those that have come."""
        on_the_way: list[tuple[float, int, int, bytes]] = []
        drawn, numbers = random.Random(0), count()
        with selectors.DefaultSelector() as selector:
            for device in self._devices.values():
                selector.register(device, selectors.EVENT_READ)
            while not self._ending.is_set():
                wait_s = on_the_way[0][0] - time.monotonic() if on_the_way else _WAKE_EVERY_S
                for key, _ in selector.select(max(0.0, min(wait_s, _WAKE_EVERY_S))):
                    packet = os.read(key.fd, 2 * _MTU_BYTES)
                    target = self._devices.get(packet[16:20])  # where an IPv4 packet goes to
                    self.packets += 1
                    if target is None or self.cut.is_set() or drawn.random() < self._loss:
                        self.lost += 1
                    else:
                        heapq.heappush(on_the_way, (time.monotonic() + self._latency_s, next(numbers), target, packet))
                while on_the_way and on_the_way[0][0] <= time.monotonic():
                    _, _, target, packet = heapq.heappop(on_the_way)
                    os.write(target, packet)


# ---- what a worker is armed with -----------------------------------------------------------------------------------


def _join(namespaces: list[str], then: Arm | None, worker: Any, job: Any) -> None:
    """Enter this rank's namespace; threads and processes that are started from now on are in it, too."""
    namespace = os.open(namespaces[worker.rank], os.O_RDONLY)
    _call("setns", namespace, _CLONE_NEWNET)
    os.close(namespace)
    os.environ["GLOO_SOCKET_IFNAME"] = _DEVICE
    if then is not None:
        then(worker, job)


def _cut_in_step(step: int, cut: Any, worker: Any, job: Any) -> None:
    act_in_step(step, cut.set, worker.rank == 0)


def _call(name: str, *arguments: int) -> None:
    """Call a function of libc that Python 3.11 has no name for."""
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) != 0:
        raise OSError(ctypes.get_errno(), name)
