"""Being connected to Ray: to the cluster of a submitted job, or to this machine as a cluster of one."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from scaletrain.errors import ClusterError
from scaletrain.log import get_logger

# Ray counts a process for each actor, and warns of as many again and again: a sweep has some for each trial.
_NOT_PRINTED = "PYTHON worker processes have been started"

log = get_logger(__name__)


def address() -> str | None:
    """The cluster that RAY_ADDRESS names, as in a submitted job; None where this machine alone is one."""
    return os.environ.get("RAY_ADDRESS") or None


@contextmanager
def connected(*, num_cpus: int | None = None) -> Iterator[None]:
    """Use the connection that there is, else the cluster that RAY_ADDRESS names, else start one here and end it after.

    `num_cpus` is how many logical CPUs a cluster of this machine has; its cores by default. A bare `ray.init` might
    join some other cluster of this machine, so the address is always given. Raises ClusterError where Ray is lost, or
    does not start.
    """
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", _NOT_PRINTED)  # read when Ray is imported
    import ray
    from ray.exceptions import LocalRayletDiedError, RayActorError, RaySystemError, RpcError

    if ray.is_initialized():
        yield
        return
    if named := address():
        ray.init(address=named, log_to_driver=False, logging_level=logging.ERROR)
    else:
        _start_here(num_cpus)
    try:
        yield
    except (LocalRayletDiedError, RayActorError, RaySystemError, RpcError) as error:
        raise ClusterError(
            f"Ray is gone, or does not answer ({type(error).__name__}): of a cluster, see whether the head is up "
            f"(`scaletrain status`). The same command goes on from the newest commit. Ray said: {error}"
        ) from error
    finally:
        ray.shutdown()


def _start_here(num_cpus: int | None) -> None:
    """Start Ray on this machine, in a second try if need be.

    Ray gives up when a helper of its own takes more than 15 s to start (ray-project/ray#65983), as it may where many
    processes share few cores, or Python's files were never read before. The second time they have been.
    """
    import ray

    for tries_left in (1, 0):
        try:
            ray.init(
                address="local",
                num_cpus=num_cpus,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
            return
        except Exception as error:
            ray.shutdown()
            if "timed out during startup" not in str(error):
                raise
            if not tries_left:
                raise ClusterError(
                    "Ray did not start on this machine in two tries of 30 s: mostly something else keeps its cores or "
                    "its disk busy. Run the same command again; why it was stands in "
                    "/tmp/ray/session_latest/logs/raylet.err"
                ) from error
            log.warning("Ray was too slow to start on this machine; trying once more")
