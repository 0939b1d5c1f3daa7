"""The cloud says that it takes a worker's machine: all save before, where the time is long enough for a save."""

import math
import os
import threading
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from attempts_on_processes import wait_for_persisters

import metadata_server
from bucket_servers import environment_of
from commands import wait_for
from fault_proxy import FaultProxy
from scaletrain import attempts, checkpoint, storage
from scaletrain.config_file import dump_config
from scaletrain.layout import RunLayout
from scaletrain.metrics import read_records
from scaletrain.notices import Sentinel
from scaletrain.verify import verify_run
from workers import Prepared, make_job, run_processes

pytestmark = pytest.mark.long

REQUEST_S = 0.5  # at the store; a save takes at least two of them, one after the other


@pytest.mark.parametrize(("rank", "notice_s"), [pytest.param(0, 1, marks=pytest.mark.soak), (1, 1), (1, 120)])
def test_a_notice_and_the_time_that_a_save_takes(
    prepared: Prepared, make_s3_bucket: Callable[[], str], s3_server: str, rank: int, notice_s: int
) -> None:
    """With time enough the step is committed that was under way; else all end at once with the commit before."""
    run, service = RunLayout(make_s3_bucket(), f"notice-{rank}-{notice_s}"), metadata_server.ec2()
    with FaultProxy(s3_server, latency_s=REQUEST_S) as proxy, service.serving() as address:
        ended: list[list[int]] = []
        training = threading.Thread(target=lambda: ended.append(_train(prepared, run, proxy.url, rank, address)))
        training.start()
        wait_for(lambda: _has_committed_twice(run), "two commits", limit_s=120)  # how long the first took is known then
        end = datetime.now(UTC) + timedelta(seconds=notice_s)
        service.items[metadata_server.ACTION] = f'{{"action": "terminate", "time": "{end:%Y-%m-%dT%H:%M:%SZ}"}}'
        training.join(timeout=180)
    [steps] = ended
    committed = checkpoint.latest(run)
    assert committed is not None and steps == [committed.step, committed.step]
    trained = read_records(run.metrics)[-1]["step"]
    assert (trained == committed.step) == (notice_s > 60)
    wait_for_persisters(run)
    assert verify_run(run).problems == ()


def _has_committed_twice(run: RunLayout) -> bool:
    newest = checkpoint.latest(run)
    return newest is not None and newest.parent_step is not None


def _train(prepared: Prepared, run: RunLayout, endpoint_url: str, rank: int, address: str) -> list[int]:
    """Train on two workers, until the cloud's notice for the machine of one of them; returns what each one returned."""
    job = make_job(
        Prepared(run.root, prepared.dataset_url, prepared.model_url),
        run.name,
        attempt=attempts.claim(run),
        train__steps=100_000,
        checkpoint__every_steps=20,
        storage__options__endpoint_url=endpoint_url,
    )
    storage.write_text(run.config, dump_config(job.config))
    return run_processes(2, _train_watching, job, endpoint_url, rank, address)


def _train_watching(worker: Any, job: Any, endpoint_url: str, rank: int, address: str) -> int:
    from scaletrain.train.loop import train

    os.environ.update(environment_of(endpoint_url))
    storage.configure(job.config.storage.root, job.config.storage.options)
    with Sentinel(address=address) if worker.rank == rank else nullcontext() as sentinel:
        return train(
            job,
            worker,
            should_stop=lambda: False,
            must_leave=lambda: sentinel is not None and sentinel.notice is not None,
            left_s=lambda: sentinel.notice.left_s() if sentinel and sentinel.notice else math.inf,
        )
