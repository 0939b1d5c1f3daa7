"""A rank's own pipeline of Ray Data: tasks anywhere in the cluster fetch and decode, blocks arrive in the plan's order.

Each task reads several runs, about a million tokens, and returns them as one Arrow block. Ray Data's scheduler looks
after its tasks ten times a second, so that a task should take longer than that. It keeps the order of tasks when told
to; that it did is checked where the samples are dealt out. A plan is read in windows of a few tasks, each a dataset of
its own that is read to its end while the window before is consumed. That bounds what lies in the object store, and the
scheduler, which runs in the training process, is idle most of the time: held back by a slow consumer instead, it would
take a whole core for as long as the training lasts.
"""

import logging
import os
import pickle
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import closing
from dataclasses import dataclass, fields
from functools import lru_cache, partial
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from scaletrain import storage
from scaletrain.data.batches import ReadPlan, Run, read_run
from scaletrain.data.rows import Samples
from scaletrain.errors import ClusterError, ScaletrainError

if TYPE_CHECKING:
    import pyarrow as pa
    from ray import ObjectRef

HERE_TOKENS = 8 * 2**20  # Ray Data takes seconds to be imported, to start and to read a window
TASK_TOKENS = 2**20
TASKS_AT_ONCE = 2  # each has many fetches under way; more would only start more processes
WINDOW_TASKS = 4  # some 80 MB of the object store; up to two windows are held
STALLED_AFTER_S = 600
END_WITHIN_S = 10
_ERROR = "error"
_BYTES_PER_TOKEN = 20  # five columns of int32

Item = TypeVar("Item")
Task = Sequence[Run]
Window = Sequence[Task]


def read_runs(plan: ReadPlan, runs: Sequence[Run]) -> Generator[tuple[Run, Samples], None, None]:
    """Yield runs in order, read by Ray Data's tasks; raises what a task raised, and ClusterError where tasks are lost.

    The first runs are read in this process, so that no step waits for Ray Data to start; it begins to once the very
    first is there, which it would only delay. Needs a Ray that is connected. Closing the generator ends the tasks.
    """
    import ray
    from ray.exceptions import RayError

    if not runs:
        return
    run_tokens = _rows(plan, runs[:1]) * plan.index.seq_len
    num_here, a_task = (max(1, tokens // run_tokens) for tokens in (HERE_TOKENS, TASK_TOKENS))
    here, tasks = _read_here(plan, runs[:num_here]), _pieces(runs[num_here:], a_task)
    first = next(here)
    try:
        with closing(_blocks(plan, tasks)) as blocks:
            next(blocks)  # begins to read
            yield from chain([first], here)
            for task, block in zip(tasks, blocks, strict=True):
                assert block is not None
                yield from _runs_of(plan, task, ray.get(block))
    except RayError as error:
        raise _lost(plan, error) from error


def _read_here(plan: ReadPlan, runs: Sequence[Run]) -> Iterator[tuple[Run, Samples]]:
    """Read runs in this process, each while the one before is consumed."""
    coming: Future[Samples] | None = None
    for run, following in zip_longest(runs, runs[1:]):
        samples = coming.result() if coming else read_run(plan, run)
        coming = _in_background(partial(read_run, plan, following)) if following else None
        yield run, samples


def _blocks(plan: ReadPlan, tasks: Sequence[Task]) -> Generator["ObjectRef[pa.Table] | None", None, None]:
    """Yield None once it reads, then the block of each task; while one window is consumed, the next one is read."""
    import ray

    if not tasks:
        yield None
        return
    task_input = ray.put(_TaskInput(plan, storage.options_of(plan.dataset_url)))
    ending = threading.Event()
    reading: deque[Future[list[ObjectRef[pa.Table]]]] = deque()
    try:
        for window in _pieces(tasks, WINDOW_TASKS):
            reading.append(_in_background(partial(_read_window, plan, task_input, window, ending)))
            if len(reading) > 1:
                yield from reading.popleft().result()
            else:
                yield None
        yield from reading.popleft().result()
    finally:
        ending.set()
        wait(reading, timeout=END_WITHIN_S)  # a thread that asked a closed Ray for anything would start a new one


def _read_window(
    plan: ReadPlan, task_input: "ObjectRef[_TaskInput]", window: Window, ending: threading.Event
) -> list["ObjectRef[pa.Table]"]:
    """Run the tasks of a window to their end, unless nobody needs them any more; returns their blocks, in order."""
    import ray
    import ray.data  # takes seconds the first time: here it takes them from nobody
    from ray.data.exceptions import ExecutionTimeoutError

    _quieten_ray_data()
    if ending.is_set():
        return []
    block_bytes = _rows(plan, window[0]) * plan.index.seq_len * _BYTES_PER_TOKEN
    dataset = ray.data.read_datasource(
        _datasource(task_input, window, block_bytes),
        num_cpus=0,  # the training workers may have taken every CPU: a task must find its place all the same
        runtime_env=tasks_environment(),
        concurrency=min(TASKS_AT_ONCE, len(window)),
        override_num_blocks=len(window),
    )
    context = dataset.context  # of this dataset alone
    context.execution_options.preserve_order = True
    context.target_max_block_size = None  # a task's block is neither split nor merged
    context.execution_no_progress_timeout_s = STALLED_AFTER_S
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.memory_usage_poll_interval_s = None
    context.issue_detectors_config.detectors = []
    blocks: list[ObjectRef[pa.Table]] = []
    try:
        for bundle in dataset.iter_internal_ref_bundles():
            if ending.is_set():
                return blocks
            blocks += (entry.ref for entry in bundle.blocks)
    except ExecutionTimeoutError as error:
        raise _lost(plan, error) from error
    ray.wait(blocks, num_returns=len(blocks), timeout=0, fetch_local=True)  # begins to bring them to this machine
    return blocks


def _runs_of(plan: ReadPlan, task: Task, block: "pa.Table") -> Iterator[tuple[Run, Samples]]:
    """Cut a task's block into its runs again; raises what the task raised."""
    if block.column_names == [_ERROR]:
        raise pickle.loads(block[_ERROR][0].as_py())
    for run in task:
        first = (run.start - task[0].start) * plan.micro_batch_size
        yield run, _samples_from(block.slice(first, _rows(plan, [run])))


def _samples_from(rows: "pa.Table") -> Samples:
    """Copy rows out of the object store, where nobody may write to them: a run at a time, which delays no step."""
    columns = {}
    for field in fields(Samples):
        column: Any = rows[field.name].combine_chunks()
        if hasattr(column.type, "list_size"):
            columns[field.name] = np.array(column.flatten()).reshape(-1, column.type.list_size)
        else:
            columns[field.name] = np.array(column)
    return Samples(**columns)


def _lost(plan: ReadPlan, error: Exception) -> ClusterError:
    return ClusterError(
        f"reading {plan.dataset_url} for rank {plan.rank} failed in Ray: {error}; if machines were lost or had no "
        "room for the tasks, start again: the run goes on from its last checkpoint"
    )


def _pieces(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _rows(plan: ReadPlan, runs: Sequence[Run]) -> int:
    """The rows of consecutive runs."""
    return (runs[-1].stop - runs[0].start) * plan.micro_batch_size


def tasks_environment() -> dict[str, Any] | None:
    """What gives a training worker's tasks processes of their own, not those that are kept for workers."""
    from ray._private.ray_constants import WORKER_PROCESS_SETUP_HOOK_ENV_VAR

    hook = WORKER_PROCESS_SETUP_HOOK_ENV_VAR
    return {"env_vars": {hook: ""}} if os.environ.get(hook) else None


def _in_background(read: Callable[[], Item]) -> Future[Item]:
    """Call a function in a thread that keeps no process from ending, as those of an executor would."""
    future: Future[Item] = Future()

    def run() -> None:
        try:
            future.set_result(read())
        except BaseException as error:  # noqa: BLE001 -- handed over to the thread that asks for the result
            future.set_exception(error)

    threading.Thread(target=run, name="read-runs", daemon=True).start()
    return future


def _quieten_ray_data() -> None:
    """Let Ray Data tell this process of problems only; that it shows no progress bars is not one."""
    import ray.data  # sets the levels that are changed here

    logging.getLogger(ray.data.__name__).setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)


# ---- inside a task -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _TaskInput:
    """What every task of a pipeline needs to know."""

    plan: ReadPlan
    storage_options: Mapping[str, str | int | float | bool]


def _datasource(task_input: "ObjectRef[_TaskInput]", window: Window, block_bytes: int) -> Any:
    """Return a Ray Data datasource that has the tasks of a window, in order."""
    from ray.data import Datasource, ReadTask
    from ray.data.block import BlockMetadata

    class Runs(Datasource):
        def estimate_inmemory_data_size(self) -> int:
            return block_bytes * len(window)

        def get_read_tasks(self, parallelism: int, *args: Any, **kwargs: Any) -> list[ReadTask]:
            metadata = BlockMetadata(num_rows=None, size_bytes=block_bytes, input_files=None, exec_stats=None)
            spans = [Run(task[0].start, task[-1].stop) for task in window]
            return [ReadTask(partial(_read_block, task_input, span), metadata) for span in spans]

    return Runs()  # type: ignore[no-untyped-call]


def _read_block(task_input: "ObjectRef[_TaskInput]", span: Run) -> list["pa.Table"]:
    import pyarrow as pa
    import ray

    known = ray.get(task_input)
    _configure_storage(known.plan.dataset_url, tuple(known.storage_options.items()))
    try:
        return [_table_from(read_run(known.plan, span))]
    except ScaletrainError as error:  # as a block: Ray would add advice of its own to the message, and 200 lines of log
        return [pa.table({_ERROR: [pickle.dumps(error)]})]


@lru_cache(maxsize=1)
def _configure_storage(url: str, options: tuple[tuple[str, str | int | float | bool], ...]) -> None:
    storage.configure(url, dict(options))


def _table_from(samples: Samples) -> "pa.Table":
    import pyarrow as pa

    columns = {}
    for field in fields(Samples):
        values = getattr(samples, field.name)
        flat = pa.array(values.reshape(-1))
        columns[field.name] = flat if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    return pa.table(columns)
