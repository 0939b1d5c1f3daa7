"""The loop in this process: one GPU or CPU, no Ray, breakpoint() works and a traceback points into your own code."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from scaletrain.train.job import Job
from scaletrain.train.loop import train
from scaletrain.train.worker import Worker, prepare_process


def run_local(job: Job, *, stop: threading.Event, on_lines: Callable[[Sequence[bytes]], None] | None = None) -> int:
    """Run one attempt in this process; returns the last committed step."""
    with only_worker(job) as worker:
        return train(job, worker, should_stop=stop.is_set, on_lines=on_lines)


@contextmanager
def only_worker(job: Job) -> Iterator[Worker]:
    """Make this process the only worker of a job, in a process group of one."""
    import torch

    device = torch.device("cuda", 0) if job.device == "cuda" else torch.device("cpu")
    worker = Worker(rank=0, world_size=1, local_rank=0, local_world_size=1, device=device)
    prepare_process(worker, deterministic=job.config.train.deterministic)
    with (
        TemporaryDirectory(prefix="scaletrain-") as folder,
        process_group(worker, rendezvous=Path(folder) / "rendezvous", timeout_s=job.config.train.timeout_s),
    ):
        yield worker


@contextmanager
def process_group(worker: Worker, *, rendezvous: Path, timeout_s: float) -> Iterator[None]:
    """Be a member of a process group on this machine, which meets at a file; for one worker as for several."""
    import torch.distributed as dist

    # DeepSpeed reads these names whoever made the group.
    os.environ.update(
        RANK=str(worker.rank),
        LOCAL_RANK=str(worker.local_rank),
        WORLD_SIZE=str(worker.world_size),
        LOCAL_SIZE=str(worker.local_world_size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT="29500",
    )
    dist.init_process_group(
        "nccl" if worker.device.type == "cuda" else "gloo",
        init_method=f"file://{rendezvous}",
        rank=worker.rank,
        world_size=worker.world_size,
        timeout=timedelta(seconds=timeout_s),
    )
    try:
        yield
    finally:
        dist.destroy_process_group()
