"""spares: an idle process with everything imported takes the place of a worker; nothing else takes it."""

import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from scaletrain.data import ray_reader
from scaletrain.train import spares


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


def start_worker(environment: dict[str, Any]) -> Any:
    """Start what stands for a training worker, as Ray Train does: an actor with this environment."""
    import ray

    def place() -> tuple[int, bool]:
        return os.getpid(), "transformers.models.llama.modeling_llama" in sys.modules

    class Worker:  # nested, as workers cannot import this module
        def want_a_spare(self) -> None:
            os.environ["DS_ACCELERATOR"] = "cpu"
            spares.start_successor()

        def place(self) -> tuple[int, bool]:
            return place()

        def place_of_a_task(self) -> tuple[int, bool]:
            task = ray.remote(num_cpus=0)(place).options(runtime_env=ray_reader.tasks_environment())
            found: tuple[int, bool] = ray.get(task.remote())
            return found

    return ray.remote(num_cpus=0)(Worker).options(runtime_env=environment).remote()


def test_a_new_worker_takes_the_spare_and_a_task_does_not() -> None:
    """The spare has imported what training needs before it is given out, once; others start as they always do."""
    import ray

    environment = spares.worker_environment()
    first = start_worker(environment)
    before = ray.get(first.place.remote())
    ray.get(first.want_a_spare.remote())
    by_task = ray.get(first.place_of_a_task.remote())
    second, third = start_worker(environment), start_worker(environment)
    taken = sorted(ray.get([second.place.remote(), third.place.remote()]), key=lambda place: place[1])
    assert [has_imported for _, has_imported in (before, by_task, *taken)] == [False, False, False, True]
    assert len({pid for pid, _ in (before, by_task, *taken)}) == 4


def test_a_group_leaves_processes_for_the_next_controller() -> None:
    """What Ray Train's controller needs beside it has the environment that the board has."""
    import ray

    environment = spares.controller_environment()
    ray.get(ray.remote(num_cpus=0)(spares.start_like_this).options(runtime_env=environment).remote(1))
    asked_at = time.time()
    pid, _ = ray.get(start_worker(environment).place.remote())
    assert psutil.Process(pid).create_time() <= asked_at
