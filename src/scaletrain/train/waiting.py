"""Waiting for workers: machines that a cluster has to bring first. A run takes all of them from one group of machines.

Where one group does not come in its share of the time, the next one is asked; what is up already comes first.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from scaletrain import policy, ray_autoscaler, ray_cluster
from scaletrain.config import ScalingSection, WorkerRange
from scaletrain.errors import ClusterError, DeviceError
from scaletrain.ray_waiting import Candidate, Demand, cluster_resources, find_candidates, shown, wait_for_places


@dataclass(frozen=True)
class WorkerGroup:
    """Workers that can start now: how many, what each of them asks Ray for, and how many it could ever be."""

    num_workers: int
    resources: Mapping[str, float]
    most: int


def wait_for_workers(
    scaling: ScalingSection,
    *,
    device: Literal["cuda", "cpu"],
    wait_s: float,
    should_stop: Callable[[], bool],
    eager: bool = False,
) -> WorkerGroup:
    """Return as many of `scaling.workers` as there are, once there are enough; at once where this machine is all.

    `eager` does not wait for more than the minimum: a run that has begun goes on with what is up.

    Raises ClusterError with the reasons where the minimum does not come within `wait_s` or can never come, DeviceError
    where this machine has too few GPUs, Interrupted where `should_stop`, which is asked every second, says so.
    """
    workers = scaling.workers
    least, most = (workers.min, workers.max) if isinstance(workers, WorkerRange) else (workers, workers)
    bundle = {"CPU": scaling.cpus_per_worker}
    if device == "cuda":
        bundle["GPU"] = scaling.gpus_per_worker or 1
    if ray_cluster.address() is None:
        room = _on_this_machine(least, most, bundle)
        return WorkerGroup(room, bundle, most=room)
    demand = Demand(
        bundle=bundle,
        least=least,
        most=most,
        noun="workers",
        needed=f"the {least} workers that the run needs at least",
        alternative="lower scaling.workers",
    )
    candidates = policy.order_candidates(find_candidates(demand), room_now=Candidate.room_now)
    ready, candidate = wait_for_places(demand, candidates, wait_s=wait_s, should_stop=should_stop, eager=eager)
    return WorkerGroup(ready, candidate.bundle, most=most if candidate.most is None else min(most, candidate.most))


def _on_this_machine(least: int, most: int, bundle: Mapping[str, float]) -> int:
    """How many workers fit on this machine alone, whose Ray was started with CPUs enough for all of them."""
    resources = cluster_resources()
    room = ray_autoscaler.whole_bundles(resources, bundle)
    if room >= least:
        return min(room, most)
    if "GPU" in bundle:
        gpus = int(resources.get("GPU", 0))
        raise DeviceError(f"scaling.workers={least}, but this machine has {gpus} GPUs; use scaling.workers={gpus}")
    raise ClusterError(
        f"scaling.workers: at least {least} of {shown(bundle)} each are asked for, but Ray has room for {room} here; "
        "lower scaling.workers or scaling.cpus_per_worker"
    )
