"""peers: nobody waits longer than was asked for, and a lost worker is told as one."""

from datetime import timedelta
from typing import Any

import pytest
import torch
from torch.distributed import DistBackendError

from scaletrain.train.peers import loss_explained
from scaletrain.train.worker import Worker
from workers import Prepared, make_job, run_processes

WORKER = Worker(0, 2, 0, 2, torch.device("cpu"))


@pytest.mark.parametrize(
    ("told", "explained"),
    [
        ("[gloo/pair.cc:537] Read error: Connection reset by peer", "step 7: worker 0 of 2 lost another one"),
        ("[gloo/unbound_buffer.cc:78] Timed out waiting 6000ms", r"heard nothing of another one for 6 s \(train.time"),
    ],
)
def test_a_peer_that_is_gone_or_silent_is_named(told: str, explained: str) -> None:
    """The step, the worker, and what to do, with gloo's own words behind."""
    with (
        pytest.raises(DistBackendError, match=explained) as caught,
        loss_explained(WORKER, step=7, timeout_s=6),
    ):
        raise RuntimeError(told)
    assert told in str(caught.value) and "goes on from the newest commit" in str(caught.value)


def test_other_errors_pass_unchanged() -> None:
    """An error of our own is no lost worker."""
    with pytest.raises(RuntimeError, match=r"^shapes do not fit$"), loss_explained(WORKER, step=7, timeout_s=6):
        raise RuntimeError("shapes do not fit")


def test_every_group_waits_as_long_as_the_run_was_told(prepared: Prepared) -> None:
    """Also the groups that DeepSpeed makes for itself, at ZeRO 2 and 3."""
    for stage in (2, 3):
        job = make_job(prepared, f"waiting-{stage}", workers=2, zero__stage=stage, train__timeout_s=77)
        for found in run_processes(2, _timeouts_of_groups, job):
            assert len(found) > 1 and set(found) == {timedelta(seconds=77)}


def _timeouts_of_groups(worker: Any, job: Any) -> list[timedelta]:
    from contextlib import ExitStack

    from torch.distributed import distributed_c10d

    from scaletrain.data.shards import load_index
    from scaletrain.train import start

    with ExitStack() as stack:
        plan, _ = start.open_batches(stack, job, worker, load_index(job.dataset_url), None)
        start.start_engine(job, plan)
    cpu = torch.device("cpu")
    return [group._get_backend(cpu).options._timeout for group in distributed_c10d._world.pg_map]
