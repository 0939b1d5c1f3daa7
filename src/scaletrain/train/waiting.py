"""Waiting for workers: machines that a cluster has to bring first. A run takes all of them from one group of machines.

Where one group does not come in its share of the time, the next one is asked; what is up already comes first. Runs that
share machines are told how many workers each of them may have now, which may change while they wait.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Literal

from scaletrain import policy, ray_autoscaler, ray_cluster
from scaletrain.config import ScalingSection, WorkerRange
from scaletrain.errors import ClusterError, DeviceError
from scaletrain.log import get_logger
from scaletrain.ray_waiting import Candidate, Demand, cluster_resources, find_candidates, shown, wait_for_places

log = get_logger(__name__)


@dataclass(frozen=True)
class WorkerGroup:
    """Workers that can start now: how many, what each of them asks Ray for, and how many it could ever be.

    That last number knows nothing of other runs, which may have to have some of them. Workers come and go `together`.
    """

    num_workers: int
    resources: Mapping[str, float]
    most: int
    together: int = 1


def unshared() -> None:
    """The `most_workers` of a run that shares its machines with no other: as many as `scaling.workers` says."""


def wait_for_workers(
    scaling: ScalingSection,
    *,
    device: Literal["cuda", "cpu"],
    wait_s: float,
    should_stop: Callable[[], bool],
    eager: bool = False,
    most_workers: Callable[[], int | None] = unshared,
) -> WorkerGroup:
    """Return as many of `scaling.workers` as there are, once there are enough; at once where this machine is all.

    `eager` does not wait for more than the minimum: a run that has begun goes on with what is up. `most_workers` says
    how many the run may have now, where it shares machines with others (else None), and is asked every second too.

    Raises ClusterError with the reasons where the minimum does not come within `wait_s` or can never come, DeviceError
    where this machine has too few GPUs, Interrupted where `should_stop`, which is asked every second, says so.
    """
    least, most = _range(scaling)
    bundle, together = _bundle(scaling, device), scaling.sequence_parallel
    if ray_cluster.address() is None:
        most = whole_groups(_on_this_machine(least, most, bundle, is_alone=most_workers is unshared), together)
        if most_workers() is None:
            return WorkerGroup(most, bundle, most=most, together=together)
    began = time.monotonic()
    while True:
        share = most_workers()
        demand = _demand(bundle, least=least, most=most if share is None else max(least, min(share, most)))
        candidates = policy.order_candidates(find_candidates(demand), room_now=Candidate.room_now)
        try:
            ready, candidate = wait_for_places(
                demand,
                candidates,
                wait_s=max(0.0, wait_s - (time.monotonic() - began)),
                should_stop=partial(_asked, should_stop, most_workers, share),
                eager=eager,
            )
        except _ShareChanged:
            continue
        most = most if candidate.most is None else whole_groups(min(most, candidate.most), together)
        return WorkerGroup(whole_groups(ready, together), candidate.bundle, most=most, together=together)


def whole_groups(workers: int, together: int) -> int:
    """As many of these workers as make whole groups that share their rows."""
    return workers - workers % together


@dataclass(frozen=True)
class Room:
    """For how many workers there is room: on the machines that are up, used or not, and with those that may come."""

    there: int
    may_come: int


def find_room(scaling: ScalingSection, *, device: Literal["cuda", "cpu"]) -> Room:
    """How many workers all runs together could have; none where not even one run's least number can ever be had."""
    least, most = _range(scaling)
    try:
        candidates = find_candidates(_demand(_bundle(scaling, device), least=least, most=most))
    except ClusterError:  # which each run that waits for workers raises again, and tells
        return Room(0, 0)
    there = [each.room_now() for each in candidates]
    return Room(
        sum(there),
        sum(now if each.most is None else max(now, each.most) for now, each in zip(there, candidates, strict=True)),
    )


class _ShareChanged(Exception):
    """The run may have another number of workers than the one that it waits for."""


def _asked(should_stop: Callable[[], bool], most_workers: Callable[[], int | None], share: int | None) -> bool:
    if most_workers() != share:
        raise _ShareChanged
    return should_stop()


def _range(scaling: ScalingSection) -> tuple[int, int]:
    workers = scaling.workers
    return (workers.min, workers.max) if isinstance(workers, WorkerRange) else (workers, workers)


def _bundle(scaling: ScalingSection, device: Literal["cuda", "cpu"]) -> dict[str, float]:
    """What one worker asks Ray for."""
    cpus = {"CPU": scaling.cpus_per_worker}
    return {**cpus, "GPU": scaling.gpus_per_worker or 1} if device == "cuda" else cpus


def _demand(bundle: Mapping[str, float], *, least: int, most: int) -> Demand:
    return Demand(
        bundle=bundle,
        least=least,
        most=most,
        noun="workers",
        needed=f"the {least} workers that the run needs at least",
        alternative="lower scaling.workers",
    )


@cache  # said once, however often workers are waited for
def _tell_of_idle_gpus(gpus: int, used: int, room: int) -> None:
    log.warning("this machine has %d GPUs, the run uses %d: scaling.workers=%d takes all", gpus, used, room)


def _on_this_machine(least: int, most: int, bundle: Mapping[str, float], *, is_alone: bool) -> int:
    """How many workers fit on this machine alone, whose Ray was started with CPUs enough for all of them."""
    resources = cluster_resources()
    room = ray_autoscaler.whole_bundles(resources, bundle)
    if room >= least:
        if room > most and "GPU" in bundle and is_alone:
            _tell_of_idle_gpus(int(resources["GPU"]), int(most * bundle["GPU"]), room)
        return min(room, most)
    if "GPU" in bundle:
        gpus = int(resources.get("GPU", 0))
        raise DeviceError(f"scaling.workers={least}, but this machine has {gpus} GPUs; use scaling.workers={gpus}")
    raise ClusterError(
        f"scaling.workers: at least {least} of {shown(bundle)} each are asked for, but Ray has room for {room} here; "
        "lower scaling.workers or scaling.cpus_per_worker"
    )
