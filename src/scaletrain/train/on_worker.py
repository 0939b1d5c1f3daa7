"""Running one function where a worker of a run would run, before there is an attempt."""

from collections.abc import Callable
from typing import Any, TypeVar

from scaletrain import ray_cluster
from scaletrain.errors import ScaletrainError
from scaletrain.train.job import Job
from scaletrain.train.waiting import unshared, wait_for_workers

T = TypeVar("T")


def on_a_worker(job: Job, function: Callable[[], T], *, most_workers: Callable[[], int | None] = unshared) -> T:
    """What `function` returns on a machine and GPU of the run's workers, which are waited for as the run itself does.

    In this process where that is as good: without Ray, and on CPUs of this machine. Raises ClusterError, and whatever
    ScaletrainError the function raises.
    """
    if job.reader == "local" or (job.device == "cpu" and ray_cluster.address() is None):
        return function()
    import ray
    from ray.exceptions import RayTaskError

    scaling = job.config.scaling
    group = wait_for_workers(
        scaling,
        device=job.device,
        wait_s=60 * scaling.wait_minutes,
        should_stop=lambda: False,
        most_workers=most_workers,
    )
    own = {name: amount for name, amount in group.resources.items() if name not in ("CPU", "GPU")}
    task: Any = ray.remote(
        num_cpus=group.resources.get("CPU", 0), num_gpus=group.resources.get("GPU", 0), resources=own, max_calls=1
    )(_call)
    try:
        found: T = ray.get(task.remote(function))
    except RayTaskError as error:
        if isinstance(error.cause, ScaletrainError):
            raise error.cause from error
        raise
    return found


def _call(function: Callable[[], T]) -> T:
    return function()
