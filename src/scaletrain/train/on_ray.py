"""The loop on Ray Train: a group of workers on a cluster, or on this machine as a cluster of one.

An attempt is one worker group of fixed size. When a worker is lost, or more or fewer may be had, the attempt ends and
the next one starts from the newest commit with the workers that there are. Metrics and errors come back through a small
actor, the board; nothing calls `ray.train.report`, which would cost a barrier (two seconds) each time.
"""

import math
import os
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

from scaletrain import checkpoint, policy, ray_autoscaler, ray_cluster, storage
from scaletrain.config import Config, WorkerRange
from scaletrain.errors import NotFoundError, ScaletrainError, TrainingError
from scaletrain.log import get_logger, setup_logging
from scaletrain.notices import Sentinel
from scaletrain.train import spares
from scaletrain.train.board import start_board, take_lines
from scaletrain.train.growth import Growth
from scaletrain.train.job import Job
from scaletrain.train.waiting import WorkerGroup, unshared, wait_for_workers
from scaletrain.train.worker import Worker, available_cpus

_POLL_S = 0.5
_STOP_POLL_S = 1.0
_REGROUP = b"regroup"  # a stop request that only ends the attempt
_SETTINGS = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": str(_POLL_S),  # how soon a loss is seen; Ray's is 2
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # a process for each attempt; the sentinels see more
}

log = get_logger(__name__)


def cluster(config: Config) -> AbstractContextManager[None]:
    """Be connected to a cluster; one of this machine alone has a CPU more than the workers take, for reading."""
    workers = config.scaling.workers
    most = workers.max if isinstance(workers, WorkerRange) else workers
    needed = math.ceil(most * config.scaling.cpus_per_worker) + 1
    return ray_cluster.connected(num_cpus=max(available_cpus(), needed))


def count_gpus() -> int:
    """The GPUs that the cluster has, or that its autoscaler may bring."""
    import ray

    there = ray.cluster_resources().get("GPU", 0)  # type: ignore[no-untyped-call]
    types = ray_autoscaler.machine_types() if ray_cluster.address() else ()
    return int(max(there, sum(kind.max_count * kind.resources.get("GPU", 0) for kind in types)))


def run_on_ray(
    job: Job,
    *,
    claim: Callable[[Job], AbstractContextManager[Job]],
    stop: threading.Event,
    on_lines: Callable[[Sequence[bytes]], None],
    most_workers: Callable[[], int | None] = unshared,
) -> None:
    """Run attempts until the run is over; `claim` gives each its number, for as long as it lasts.

    `claim` gets the job of the attempt before, and raises TrainingError where another has taken the run over since.

    An attempt ends before the run is over where a worker is lost, where a machine is about to be taken away, where more
    workers can be had, or where it may have fewer; the next one starts at once with what there is. Raises the
    ScaletrainError that ended the run, ClusterError where too few workers come, or TrainingError when workers are lost
    again and again without a commit in between.
    """
    fruitless, has_begun = 0, False
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    threading.Thread(target=_import_ahead, name="import-ahead", daemon=True).start()
    while True:
        group = wait_for_workers(
            job.config.scaling,
            device=job.device,
            wait_s=60 * job.config.scaling.wait_minutes,
            should_stop=partial(_must_stop, job, stop),
            eager=has_begun,
            most_workers=most_workers,
        )
        before = checkpoint.latest(job.run)
        try:
            with claim(job) as job:
                growth = Growth(group, last_step=job.last_step, most_workers=most_workers)
                _run_attempt(job, group, growth, stop=stop, on_lines=on_lines)
        except _WorkersLost as lost:
            after = checkpoint.latest(job.run)
            fruitless = 0 if after != before else fruitless + 1
            if stop.is_set() or policy.gives_up(fruitless):
                raise TrainingError(
                    f"workers were lost {fruitless} times without a commit in between: {lost}"
                ) from lost
            log.warning("a worker was lost (%s); going on from step %d", lost, after.step if after else 0)
        else:
            after = checkpoint.latest(job.run)
            if after is None or after.step >= job.last_step or _must_stop(job, stop):
                return
            log.info("going on from step %d with other workers", after.step)
        has_begun = True


def _import_ahead() -> None:
    """Import what an attempt needs, which takes seconds, while machines are waited for."""
    import ray.train.torch  # noqa: F401


class _WorkersLost(Exception):
    """A worker process, or its machine, is gone; the message is the first line of what Ray says."""


def _must_stop(job: Job, stop: threading.Event) -> bool:
    """Whether the user asked for a stop: this process, or through the bucket the newest attempt."""
    if stop.is_set() or job.attempt == 0:
        return stop.is_set()
    try:
        return storage.read_bytes(job.run.stop_request(job.attempt)) != _REGROUP
    except NotFoundError:
        return False


def _run_attempt(
    job: Job, group: WorkerGroup, growth: Growth, *, stop: threading.Event, on_lines: Callable[[Sequence[bytes]], None]
) -> None:
    """Start one worker group and watch it to its end; raises _WorkersLost or the error that a worker reported."""
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig

    from scaletrain.train.ray_trainer import Trainer, ray_storage

    board = start_board()
    scratch = storage.join(job.run.url, "ray")
    trainer = Trainer(
        _worker,
        train_loop_config={"job": job, "board": board, "on_cluster": ray_cluster.address() is not None},
        torch_config=TorchConfig(
            backend="nccl" if job.device == "cuda" else "gloo", timeout_s=int(job.config.train.timeout_s)
        ),
        scaling_config=ScalingConfig(
            num_workers=group.num_workers,
            use_gpu=job.device == "cuda",
            resources_per_worker=dict(group.resources),
        ),
        run_config=RunConfig(
            name=f"attempt-{job.attempt:04d}",
            worker_runtime_env=spares.worker_environment(),
            # Ray would start a group anew by itself, within the attempt: one whose workers die at their start without
            # end, and where its watcher is on, that of a drained machine.
            failure_config=FailureConfig(  # type: ignore[call-arg]
                max_failures=0, max_preemption_failures=0, controller_failure_limit=0
            ),
            **ray_storage(scratch),
        ),
    )
    failure: list[BaseException] = []

    def fit() -> None:
        try:
            trainer.fit()
        except BaseException as error:  # noqa: BLE001 -- handed over to the thread that waits, which raises it
            failure.append(error)

    thread = threading.Thread(target=fit, name="ray-train", daemon=True)
    thread.start()
    stop_sent = regroup_sent = False
    while thread.is_alive():
        thread.join(timeout=_POLL_S)
        # First, for it is an error at once where Ray's head is lost; a look at places would wait, and end this process.
        growth.show(take_lines(board, on_lines))
        if stop.is_set() and not stop_sent:
            storage.write_bytes(job.run.stop_request(job.attempt), b"")
            stop_sent = True
        elif not regroup_sent and growth.must_regroup():
            storage.create(job.run.stop_request(job.attempt), _REGROUP)  # what the user asked for before stays
            regroup_sent = True
    growth.release()
    error = ray.get(board.first_error.remote())
    take_lines(board, on_lines)
    ray.kill(board)
    storage.remove(scratch)
    if error is not None:
        raise error
    if failure:
        raise _WorkersLost(_headline(failure[0])) from failure[0]


def _worker(settings: dict[str, Any]) -> None:
    """What Ray Train runs in each worker process."""
    import ray

    from scaletrain.train.phases import Phases
    from scaletrain.train.worker import prepare_process

    job, board, phases = settings["job"], settings["board"], Phases()
    phases.ended("entered")
    setup_logging()
    storage.configure(job.config.storage.root, job.config.storage.options)
    worker = make_worker(job.device)
    prepare_process(worker, deterministic=job.config.train.deterministic)
    try:
        from scaletrain.train.loop import train

        phases.ended("imported")
        watch = Sentinel() if settings["on_cluster"] and worker.local_rank == 0 else nullcontext()
        with _watching_stop_request(job, worker) as asked, watch as sentinel, spares.one_ahead(phases):
            train(
                job,
                worker,
                should_stop=asked.is_set,
                must_leave=lambda: sentinel is not None and sentinel.notice is not None,
                left_s=lambda: notice.left_s() if sentinel and (notice := sentinel.notice) else math.inf,
                on_lines=lambda lines: board.add_lines.remote(list(lines)),
                warn=board.add_warning.remote,
                phases=phases,
            )
    except ScaletrainError as error:
        ray.get(board.add_error.remote(error))
        raise
    except Exception as error:
        if not _peer_was_lost(error):
            told = TrainingError(f"worker {worker.rank} failed:\n{traceback.format_exc()}")
            ray.get(board.add_error.remote(told))
        raise


def make_worker(device: str) -> Worker:
    """The place in its group of the Ray Train worker that this process is."""
    import ray.train
    import ray.train.torch
    import torch

    context = ray.train.get_context()
    return Worker(
        rank=context.get_world_rank(),
        world_size=context.get_world_size(),
        local_rank=context.get_local_rank(),
        local_world_size=context.get_local_world_size(),
        device=ray.train.torch.get_device() if device == "cuda" else torch.device("cpu"),
    )


@contextmanager
def _watching_stop_request(job: Job, worker: Any) -> Iterator[threading.Event]:
    """On rank 0, look for the stop request once a second, off the step path."""
    asked, ending = threading.Event(), threading.Event()

    def watch() -> None:
        while not ending.wait(_STOP_POLL_S):
            try:
                if storage.exists(job.run.stop_request(job.attempt)):
                    asked.set()
                    return
            except ScaletrainError as error:
                log.warning("cannot look for a stop request: %s", error)

    if worker.rank == 0:
        threading.Thread(target=watch, name="stop-watch", daemon=True).start()
    try:
        yield asked
    finally:
        ending.set()


def _peer_was_lost(error: Exception) -> bool:
    """Whether a collective failed because another worker is gone (gloo and NCCL raise these)."""
    from torch.distributed import DistBackendError, DistNetworkError

    if isinstance(error, DistBackendError | DistNetworkError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("gloo" in text or "Connection closed by peer" in text)


def _headline(error: BaseException) -> str:
    """What Ray says of a lost group, in one line: of each worker that failed, how."""
    failures: Mapping[int, BaseException] = getattr(error, "worker_failures", {})
    if not failures:
        return _line_of(getattr(error, "controller_failure", error))
    ranks: dict[str, list[str]] = {}
    for rank, failure in sorted(failures.items()):
        ranks.setdefault(_line_of(failure), []).append(str(rank))
    return "; ".join(f"rank {', '.join(of_line)}: {line}" for line, of_line in ranks.items())


def _line_of(error: BaseException) -> str:
    """The last line of a traceback, which has the error, or the first one of anything else."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1] if lines[0].startswith("Traceback") else lines[0]
