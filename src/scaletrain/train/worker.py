"""A worker's place in its group, and what its process needs before it trains."""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scaletrain.train.extensions import build_extensions

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Worker:
    """One member of a group of workers; `device` is where it computes.

    `sharing` is how many consecutive workers read the same rows, and hold a part of their tokens each.
    """

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    device: "torch.device"
    sharing: int = 1

    @property
    def reader(self) -> int:
        """Whose rows it reads: the number of its group, among `readers`."""
        return self.rank // self.sharing

    @property
    def readers(self) -> int:
        """Among how many the rows are dealt."""
        return self.world_size // self.sharing

    @property
    def counts(self) -> bool:
        """Whether it counts its rows: of workers that share them the first one does, so that each counts once."""
        return self.rank % self.sharing == 0


def prepare_process(worker: Worker, *, deterministic: bool) -> None:
    """Set this process up for training: threads, determinism, the accelerator that DeepSpeed sees."""
    import logging

    import torch

    os.environ["DS_ACCELERATOR"] = worker.device.type
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)  # what it warns of, it prints to stdout
    if worker.device.type == "cpu":
        torch.set_num_threads(max(1, available_cpus() // worker.local_world_size))
        build_extensions()
    else:
        torch.cuda.set_device(worker.device)
        torch.backends.cuda.matmul.allow_tf32 = not deterministic
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=worker.device.type == "cuda")
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # buffers that are written before they are read


def available_cpus() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))
