"""Spares: idle processes that have imported what training needs, one for each worker, which its successor takes over.

Starting Python and importing Ray Train, torch, DeepSpeed and transformers is most of what a recovery takes. Ray gives
an actor an idle process of its pool where one was started with the same runtime environment. So each worker, once it
trains, asks the raylet of its machine to start a process like its own; it costs some 0.6 GB of main memory and nothing
of a GPU, and ends with the job. Where Ray refuses, or memory is scarce, workers start as they always did.
"""

import gc
import importlib
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import orjson
import psutil

from scaletrain.log import get_logger
from scaletrain.train.phases import Phases

AFTER_S = 20.0  # of training: the first steps have the machine for themselves, and a short run needs no spare
_SPARE_BYTES = 600_000_000
_OF_AVAILABLE = 0.1  # what spares may take of a machine's available memory at a time
_KEPT_S = 30 * 24 * 3600
_TIMEOUT_S = 10.0
_READ_AT_IMPORT = ("DS_ACCELERATOR", "OMP_NUM_THREADS")  # DeepSpeed's device, and what Ray sets where CPUs are given
_PREFIX = "scaletrain-spare-wanted-"
# What a worker imports until its first step, the longest first.
IMPORTS = (
    "transformers.models.llama.modeling_llama",  # what all causal models need, and a common one
    "deepspeed.module_inject.auto_ep_layer",  # every engine, where nothing of the kind is configured too
    "setuptools",  # every engine, to ask for a compiler
    "scaletrain.train.loop",
)

log = get_logger(__name__)


def worker_environment() -> dict[str, Any]:
    """Ray's runtime environment for workers, which marks their processes and has each of them call `begin` first."""
    from ray._private.ray_constants import WORKER_PROCESS_SETUP_HOOK_ENV_VAR

    return {"env_vars": {WORKER_PROCESS_SETUP_HOOK_ENV_VAR: f"{begin.__module__}.{begin.__name__}"}}


def controller_environment() -> dict[str, Any]:
    """The runtime environment that Ray Train gives its controller, whose own actors inherit it."""
    from ray._common.constants import RAY_WARN_BLOCKING_GET_INSIDE_ASYNC_ENV_VAR
    from ray.train.v2._internal import constants

    variables = constants.get_env_vars_to_propagate()
    variables.setdefault(
        RAY_WARN_BLOCKING_GET_INSIDE_ASYNC_ENV_VAR, constants.DEFAULT_RAY_WARN_BLOCKING_GET_INSIDE_ASYNC_VALUE
    )
    return {"env_vars": variables}


def begin() -> None:
    """What a process does first: where a spare is wanted on this machine, it imports what a worker needs.

    Garbage is not collected before training is (garbage.py): imports make little, and a quarter of their time goes on
    looking for it.
    """
    gc.disable()
    for wish in _folder().glob(f"{_PREFIX}{_job_id()}-*"):
        with suppress(FileNotFoundError, orjson.JSONDecodeError):  # of another process, or half-written
            os.environ.update(orjson.loads(wish.read_bytes()))
            wish.unlink()
            _import_all()
            return


def _import_all() -> None:
    """Import what a worker needs. It touches no device: which ones are its own, a process learns when it is used."""
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # to ask for GPUs does not settle which are seen
    for name in ("ray.train.torch", *IMPORTS):
        importlib.import_module(name)


@contextmanager
def one_ahead(phases: Phases) -> Iterator[None]:
    """Start a spare for this worker once it trains, unless it ends before; off the step path."""
    ending = threading.Event()

    def ask() -> None:
        while "first_step" not in phases.times:
            if ending.wait(1.0):
                return
        if not ending.wait(AFTER_S):
            start_successor()

    threading.Thread(target=ask, name="spare", daemon=True).start()
    try:
        yield
    finally:
        ending.set()


def start_successor() -> None:
    """Start a spare for this worker; its imports go on after the return."""
    known = {name: os.environ[name] for name in _READ_AT_IMPORT if name in os.environ}
    (_folder() / f"{_PREFIX}{_job_id()}-{os.getpid()}").write_bytes(orjson.dumps(known))
    start_like_this(1)


def start_like_this(count: int) -> None:
    """Ask the raylet of this machine for idle processes with the environment of this one, where there is memory."""
    if count * _SPARE_BYTES > _OF_AVAILABLE * psutil.virtual_memory().available:
        return
    try:
        _ask_raylet(count)
    except Exception as error:  # noqa: BLE001 -- Ray promises nothing here, and training goes on as well without
        log.warning("no spares like process %d: %s", os.getpid(), error)


def _ask_raylet(count: int) -> None:
    import ray
    from ray._private.grpc_utils import init_grpc_channel
    from ray.core.generated import common_pb2, node_manager_pb2, node_manager_pb2_grpc

    common: Any = common_pb2
    messages: Any = node_manager_pb2
    stub: Any = node_manager_pb2_grpc.NodeManagerServiceStub
    context: Any = ray.get_runtime_context()
    here = next(node for node in ray.nodes() if node["NodeID"] == context.get_node_id())  # type: ignore[no-untyped-call]
    request = messages.PrestartWorkersRequest(
        language=common.PYTHON,
        job_id=bytes.fromhex(_job_id()),
        num_workers=count,
        keep_alive_duration_secs=_KEPT_S,
    )
    request.runtime_env_info.serialized_runtime_env = context.get_runtime_env_string()
    with init_grpc_channel(f"{here['NodeManagerAddress']}:{here['NodeManagerPort']}") as channel:
        stub(channel).PrestartWorkers(request, timeout=_TIMEOUT_S)


def _job_id() -> str:
    import ray

    return ray.get_runtime_context().get_job_id()


def _folder() -> Path:
    return Path(tempfile.gettempdir())
