"""step: what is not finite on one rank is learned by none, and does not go on for ever."""

from typing import Any

import pytest

from scaletrain import checkpoint
from scaletrain.data.loader import sample_ids
from scaletrain.data.shards import load_index
from scaletrain.errors import TrainingError
from scaletrain.layout import RunLayout
from scaletrain.metrics import read_records
from scaletrain.train import ledger
from workers import Prepared, make_job, run_processes


def _train_poisoned(worker: Any, job: Any, poisoned: range) -> int:
    """Train with a loss that is not finite in some steps (1-based), on rank 1 alone."""
    from scaletrain.train import step
    from scaletrain.train.loop import train

    forward = step.forward

    def poison(job: Any, worker: Any, engine: Any, micro: Any) -> Any:
        loss = forward(job, worker, engine, micro)
        return loss * float("nan") if worker.rank == 1 and engine.global_steps + 1 in poisoned else loss

    step.forward = poison
    return train(job, worker, should_stop=lambda: False)


def _train_as_on_cuda(worker: Any, job: Any) -> int:
    """Train where DeepSpeed sees whether autocast is on, as on CUDA: it asks about no device, and so about that one."""
    import torch

    from scaletrain.train import step
    from scaletrain.train.loop import train

    forward, is_enabled, found = step.forward, torch.is_autocast_enabled, set()

    def watch(job: Any, worker: Any, engine: Any, micro: Any) -> Any:
        linear = next(each for each in engine.module.modules() if isinstance(each, torch.nn.Linear))
        handle = linear.register_forward_hook(lambda _module, _inputs, output: found.add(output.dtype))
        loss = forward(job, worker, engine, micro)
        handle.remove()
        return loss

    step.forward = watch
    torch.is_autocast_enabled = lambda device="cpu": is_enabled(device)
    reached = train(job, worker, should_stop=lambda: False)
    assert found == {torch.bfloat16}, found
    return reached


def test_bf16_at_zero_0_is_computed_in_bf16_where_the_engine_ends_autocast(prepared: Prepared) -> None:
    """DeepSpeed's engine ends an autocast that it did not begin; products are in bf16 all the same."""
    settings = {"zero__stage": 0, "train__precision": "bf16", "train__steps": 1, "checkpoint__every_steps": 1}
    run_processes(1, _train_as_on_cuda, make_job(prepared, "autocast", workers=1, **settings))


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_loss_that_is_not_finite_on_one_rank_is_skipped_by_all(prepared: Prepared, stage: int) -> None:
    """The step counts, its samples are in the ledger, nothing is learned from it, and training goes on."""
    name = f"poisoned-{stage}"
    job = make_job(prepared, name, workers=2, zero__stage=stage, train__steps=8)
    run_processes(2, _train_poisoned, job, range(4, 6))
    metrics = read_records(RunLayout(prepared.root, name).metrics)
    assert [line["step"] for line in metrics if line.get("skipped")] == [4, 5]
    assert [line["step"] for line in metrics if line["loss"] is None] == [4, 5]
    newest = checkpoint.latest(RunLayout(prepared.root, name))
    assert newest is not None
    assert (newest.step, newest.scalars["optimizer_step"]) == (8, 6)
    assert ledger.check_chain(read_records(RunLayout(prepared.root, name).ledger)) == newest.ledger_hash
    assert metrics[-1]["loss"] < metrics[0]["loss"]


def test_steps_that_are_never_finite_end_the_run_with_their_samples(prepared: Prepared) -> None:
    """After three in a row the run halts; the samples of rank 1 are named, and the last good commit is there."""
    job = make_job(prepared, "poisoned-for-good", workers=2, train__steps=20, checkpoint__every_steps=3)
    run = RunLayout(prepared.root, job.config.name)
    with pytest.raises(TrainingError, match="step 8: loss or gradients were not finite in 4 steps in a row") as caught:
        run_processes(2, _train_poisoned, job, range(5, 21))
    newest = checkpoint.latest(run)
    assert newest is not None and newest.scalars["optimizer_step"] == 4
    rows = load_index(prepared.dataset_url)
    order = sample_ids(rows.splits["train"].rows, rows.row_group_rows, seed=job.config.seed, start=84, stop=96)
    # Micro batches of two rows are dealt round the two ranks in order.
    expected = tuple(sorted(int(order[place]) for place in (2, 3, 6, 7, 10, 11)))
    assert f"in the micro batches of samples {expected}" in str(caught.value)
