"""zero.communication: what gradients are sent in, and that one worker rounds nothing by it."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from workers import Prepared, make_job, run_processes

BF16: dict[str, Any] = {"train__precision": "bf16", "train__steps": 3}


def _losses(worker: Any, jobs: Sequence[Any], *, as_of_many: Sequence[bool] = ()) -> list[list[float]]:
    """Train each job; `as_of_many`: with gradients sent as they would be if there were more workers."""
    import torch.distributed as dist

    from scaletrain.metrics import read_records
    from scaletrain.train import zero
    from scaletrain.train.loop import train

    for job, pretend in zip(jobs, as_of_many or [False] * len(jobs), strict=True):
        zero.dist = SimpleNamespace(get_world_size=lambda: 2) if pretend else dist  # type: ignore[assignment]
        train(job, worker, should_stop=lambda: False)
        dist.barrier()  # until rank 0 has written its lines
    return [[line["loss"] for line in read_records(job.run.metrics)] for job in jobs]


def _alone_and_as_of_many(worker: Any, jobs: Sequence[Any]) -> list[list[float]]:
    return _losses(worker, jobs, as_of_many=[False, True] * (len(jobs) // 2))


def test_one_worker_computes_the_same_bits_without_copies_in_fp32(prepared: Prepared) -> None:
    """Nothing is rounded where nothing is added up among workers, also at stage 1, which has sums in fp32 by then."""
    jobs = [
        make_job(prepared, f"{name}-{stage}", workers=1, zero__stage=stage, **BF16)
        for stage in (1, 2, 3)
        for name in ("alone", "as-of-many")
    ]
    [found] = run_processes(1, _alone_and_as_of_many, jobs)
    assert len(found[0]) == 3
    assert found[0] == found[1]
    assert found[2] == found[3]
    assert found[4] == found[5]


def test_gradients_sent_in_bf16_train_nearly_the_same(prepared: Prepared) -> None:
    """Two workers: other bits than in fp32, and losses that agree to a thousandth."""
    jobs = [make_job(prepared, f"sent-{name}", **BF16, zero__communication=name) for name in ("fp32", "bf16")]
    (in_fp32, in_bf16), _ = run_processes(2, _losses, jobs)
    assert in_bf16 == pytest.approx(in_fp32, rel=1e-3)
    assert in_bf16 != in_fp32
