"""Rows shared out to the workers of a Ray cluster: each holds the model and scores the micro batches it is handed.

Ray Data hands out stretches of rows, whichever worker is free takes the next, and what comes back is put in the order
of the rows. Micro batches are the same whoever runs them, so the figures do not depend on the number of workers.
"""

import logging
import math
import pickle
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from scaletrain import ray_cluster, storage
from scaletrain.data.batches import RUN_TOKENS
from scaletrain.errors import ClusterError, ScaletrainError
from scaletrain.evaluate.contender import Device
from scaletrain.evaluate.rows import RowsToScore, score_here
from scaletrain.evaluate.scoring import Scored, join
from scaletrain.log import get_logger

_STRETCHES_A_WORKER = 8  # so that a slow worker does not leave the others idle for long at the end
_TRIES = 3

log = get_logger(__name__)


def count_workers(wanted: int | None, *, device: Device) -> int:
    """How many workers to share rows out to; 1 stands for this process alone. Needs no Ray where there is none.

    By default the GPUs of the cluster that nobody has taken (this process has its own), or on CPUs 1.
    """
    if wanted is not None or ray_cluster.address() is None or device == "cpu":
        return wanted or 1
    import ray

    with ray_cluster.connected():
        free: Mapping[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
    return max(1, int(free.get("GPU", 0)))


def score_on_ray(work: RowsToScore, *, workers: int, on_rows: Callable[[int], None]) -> Scored:
    """Score rows on so many workers; raises what a worker raised, and ClusterError where Ray fails thrice."""
    import ray.data  # noqa: F401 -- sets the levels that are changed here
    from ray.exceptions import RayError

    for name in ("ray.data", "ray.data._internal.progress"):
        logging.getLogger(name).setLevel(logging.ERROR)  # it tells of its progress, and that it shows none
    parts: dict[int, Scored] = {}
    with ray_cluster.connected(num_cpus=workers + 1):
        for tries_left in reversed(range(_TRIES)):
            left = [each for each in _stretches(work, workers) if each["first"] not in parts]
            if not left:
                break  # what was lost had nothing left to do
            try:
                for first, rows, scored in _scored(work, left, workers=workers):
                    parts[first] = scored
                    on_rows(rows)
                break
            except RayError as error:
                if not tries_left:
                    raise ClusterError(
                        f"scoring rows of {work.dataset_url} failed in Ray: {error}; start again"
                    ) from error
                log.warning("a worker was lost (%s): others score the rows that are left", type(error).__name__)
    return join([parts[first] for first in sorted(parts)])


def _scored(work: RowsToScore, stretches: list[dict[str, int]], *, workers: int) -> Iterator[tuple[int, int, Scored]]:
    """Score stretches on so many workers; yields the first row, the number of rows and the result of each."""
    import ray.data

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Ray 2.60 has no other way to say `max_restarts`
        dataset = ray.data.from_items(stretches, override_num_blocks=len(stretches)).map_batches(
            Scorer,
            fn_constructor_args=(work, dict(storage.options_of(work.dataset_url))),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_gpus=1 if work.device == "cuda" else 0,
            num_cpus=0 if work.device == "cuda" else 1,
            # With restarts of its own Ray prints an error for each actor, that its arguments may get lost.
            ray_remote_args_fn=lambda: {"max_restarts": 0, "max_task_retries": 0},
        )
    dataset.context.enable_progress_bars = False
    dataset.context.print_on_execution_start = False
    for row in dataset.iter_rows():
        if row["failed"]:
            raise pickle.loads(row["result"])
        yield row["first"], row["rows"], pickle.loads(row["result"])


def _stretches(work: RowsToScore, workers: int) -> list[dict[str, int]]:
    """Where each stretch of rows begins and ends; whole micro batches, so that these are the same for any workers."""
    size = work.micro_batch_size
    micro_batches = math.ceil(work.rows / size)
    most = max(1, RUN_TOKENS // (size * work.index.seq_len))
    each = size * min(most, math.ceil(micro_batches / (_STRETCHES_A_WORKER * workers)))
    return [{"first": first, "stop": min(first + each, work.rows)} for first in range(0, work.rows, each)]


class Scorer:
    """What holds the model in a worker process; loaded with the first stretch, so that its errors are told as such."""

    def __init__(self, work: RowsToScore, options: Mapping[str, str | int | float | bool]) -> None:
        self._work = work
        self._options = options
        self._model: Any = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        first, stop = int(batch["first"][0]), int(batch["stop"][0])
        try:
            result, failed = pickle.dumps(self._score(first, stop)), False
        except ScaletrainError as error:
            result, failed = pickle.dumps(error), True
        return {"first": [first], "rows": [stop - first], "result": [result], "failed": [failed]}

    def _score(self, first: int, stop: int) -> Scored:
        work = self._work
        if self._model is None:
            storage.configure(work.dataset_url, dict(self._options))
            self._model = work.contender.load(work.device, work.precision)
        return score_here(work, self._model, first=first, stop=stop, on_rows=lambda rows: None)
