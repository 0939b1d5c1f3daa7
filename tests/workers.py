"""Real training processes on this machine without Ray: the same loop and checkpoint code, started in a moment.

A fork server imports torch, DeepSpeed and transformers once; each worker is a fork of it.
"""

import multiprocessing as mp
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from commands import TINY
from scaletrain.config import Config
from scaletrain.config_file import parse_config
from scaletrain.data.prepare import prepare
from scaletrain.layout import RunLayout
from scaletrain.metrics import read_records
from scaletrain.train.spares import IMPORTS

_CONTEXT = mp.get_context("forkserver")
_CONTEXT.set_forkserver_preload([*IMPORTS, "peft", "pytest", "scaletrain.data.prepare"])
os.environ.setdefault("DS_ACCELERATOR", "cpu")
_TIMEOUT_S = 240

CHANGES = (
    "train.steps=20",
    "train.schedule=linear",
    "train.warmup_steps=3",
    "checkpoint.every_steps=10",
    "checkpoint.keep=3",
    "track.tensorboard=false",
)


@dataclass(frozen=True)
class Prepared:
    """A dataset and a random model, made once, that every run of the tests shares."""

    root: str
    dataset_url: str
    model_url: str


def tiny_config(root: str, **overrides: object) -> Config:
    """The tests' configuration; overrides are dotted paths with __ for the dot, as zero__stage=3."""
    changes = [f"{name.replace('__', '.')}={value}" for name, value in overrides.items()]
    return parse_config(TINY.format(root=root), source="tiny.yaml", overrides=[*CHANGES, *changes])


def make_prepared(root: Path) -> Prepared:
    found = prepare(tiny_config(str(root)), use_ray=False)
    return Prepared(str(root), found.dataset_url, found.model_url)


def train(
    prepared: Prepared, name: str, *, workers: int = 2, attempt: int = 1, **overrides: object
) -> list[dict[str, Any]]:
    """Train to the end (or debug.stop_after) with real processes; returns the run's metrics, a dict a step."""
    job = make_job(prepared, name, workers=workers, attempt=attempt, **overrides)
    run_processes(workers, _train, job)
    return read_records(RunLayout(prepared.root, name).metrics)


def make_job(prepared: Prepared, name: str, *, workers: int = 2, attempt: int = 1, **overrides: object) -> Any:
    """What the workers of an attempt are told, but for Ray."""
    from scaletrain.data.shards import load_index
    from scaletrain.train.job import Job
    from scaletrain.train.trainer import count_steps

    config = tiny_config(prepared.root, name=name, scaling__workers=workers, **overrides)
    return Job(
        config=config,
        dataset_url=prepared.dataset_url,
        model_url=prepared.model_url,
        attempt=attempt,
        total_steps=count_steps(config, load_index(prepared.dataset_url)),
        device="cpu",
        precision="bf16" if config.train.precision == "bf16" else "fp32",
        attention="sdpa",
        reader="local",
    )


def run_processes(workers: int, target: Callable[..., Any], *args: Any) -> list[Any]:
    """Run `target(worker, *args)` in a process group of real processes; returns what each rank returned."""
    with tempfile.TemporaryDirectory() as folder:
        results = _CONTEXT.SimpleQueue()
        rendezvous = Path(folder) / "rendezvous"
        processes = [
            _CONTEXT.Process(target=_main, args=(rank, workers, rendezvous, results, target, args), daemon=True)
            for rank in range(workers)
        ]
        for process in processes:
            process.start()
        found = {}
        for process in processes:
            process.join(_TIMEOUT_S)
            while not results.empty():
                rank, value = results.get()
                found[rank] = value
        for process in processes:
            if process.is_alive():
                process.kill()
        failed = [value for value in found.values() if isinstance(value, BaseException)]
        if failed:
            raise failed[0]
        assert len(found) == workers, f"workers ended with exit codes {[process.exitcode for process in processes]}"
        return [found[rank] for rank in range(workers)]


def _main(rank: int, world_size: int, rendezvous: Path, results: Any, target: Any, args: tuple[Any, ...]) -> None:
    import torch

    from scaletrain.log import setup_logging
    from scaletrain.train.local import process_group
    from scaletrain.train.worker import Worker, prepare_process

    setup_logging()
    worker = Worker(rank, world_size, rank, world_size, torch.device("cpu"))
    prepare_process(worker, deterministic=True)
    torch.set_num_threads(1)
    try:
        with process_group(worker, rendezvous=rendezvous, timeout_s=60):
            results.put((rank, target(worker, *args)))
    except BaseException as error:  # noqa: BLE001 -- sent to the test, which raises it
        results.put((rank, error))


def _train(worker: Any, job: Any) -> int:
    from scaletrain.train.loop import train as run

    return run(job, worker, should_stop=lambda: False)
