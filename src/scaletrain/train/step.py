"""One step: the gradients of a global batch, the update, and what all ranks have to agree on.

Two small all-reduces agree on the number of supervised tokens, or pairs (before the first backward, so that the loss is
per supervised token, or pair, of the whole global batch) and on the loss, the samples and whether to stop (before the
update). A step whose loss or gradients are not finite, on any rank, changes nothing on all of them.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import torch
import torch.distributed as dist

from scaletrain.data.loader import MicroBatch, ReadPlan, StepBatch
from scaletrain.errors import TrainingError
from scaletrain.log import get_logger
from scaletrain.train import ledger, zero
from scaletrain.train.job import Job
from scaletrain.train.peers import loss_explained
from scaletrain.train.preference import SUMS, pair_sums
from scaletrain.train.schedule import learning_rate
from scaletrain.train.worker import Worker

log = get_logger(__name__)


@dataclass(frozen=True)
class Wishes:
    """What one rank, or any rank, wants: to stop the run, to leave (its machine goes), to report that a save failed.

    `too_late`: the machine that goes is gone before a save could be made.
    """

    stop: bool = False
    leave: bool = False
    too_late: bool = False
    save_failed: bool = False


@dataclass(frozen=True)
class StepTotals:
    """One step, summed over all ranks; `skipped`: it was not finite, and nothing was learned.

    `not_finite` has the samples of the micro batches whose loss was not; none where only a gradient was not. Of
    preference training: its pairs, the mean margin of their rewards, and the share of them with a margin above 0.
    """

    loss: float
    grad_norm: float
    learning_rate: float
    supervised_tokens: int
    tokens: int
    samples_digest: int
    wishes: Wishes
    skipped: bool
    not_finite: tuple[int, ...]
    pairs: int | None = None
    reward_margin: float | None = None
    pair_accuracy: float | None = None


def run_step(
    job: Job,
    worker: Worker,
    engine: Any,
    batch: StepBatch,
    plan: ReadPlan,
    *,
    ask: Callable[[], Wishes],
) -> StepTotals:
    """Forward, backward and update of one global batch; the loss is per supervised token (or pair) over all of it.

    `ask` is called once, before the update; what any rank wants, all of them learn.
    """
    with loss_explained(worker, step=batch.step + 1, timeout_s=job.config.train.timeout_s):
        return _run_step(job, worker, engine, batch, plan, ask)


def _run_step(
    job: Job, worker: Worker, engine: Any, batch: StepBatch, plan: ReadPlan, ask: Callable[[], Wishes]
) -> StepTotals:
    step = batch.step + 1
    _seed_dropout(job.config.seed, step, worker)
    rate = learning_rate(job.config.train, step, job.total_steps)
    zero.set_learning_rate(engine, rate)
    scale = _scale(job, batch, worker)
    own_sums = torch.zeros(SUMS, dtype=torch.float64, device=worker.device)
    losses = []
    for micro in batch.micro_batches:
        micro_sums = forward(job, worker, engine, micro)
        losses.append(micro_sums[0].detach())
        own_sums[: len(micro_sums)] += micro_sums.detach() * micro.weight
        zero.accumulate(engine, micro_sums[0] * (scale * micro.weight))
    counting = _counting(batch, worker)
    counted = sum(counted_in(job, micro) for micro in counting)
    supervised = sum(micro.supervised_tokens for micro in counting)
    tokens = sum(micro.tokens for micro in counting if micro.weight)
    told = [0.0] * SUMS + [counted, supervised, tokens, _samples_digest(batch, plan, worker), *astuple(ask())]
    sums = _to_device(torch.tensor(told, dtype=torch.float64), worker)
    sums[:SUMS] = own_sums
    _all_reduce(sums, worker)
    read = _begin_to_read(sums)
    grad_norm = zero.update(engine)
    # The update had to wait for the norm, so the sums are here by now; the GPU need not run dry to have them read.
    total_loss, margins, accurate, total_counted, supervised_tokens, total_tokens, total_digest, *wished = read()
    count, of_pairs = max(total_counted, 1), job.config.train.objective == "dpo"
    loss = total_loss / count
    not_finite: tuple[int, ...] = ()
    if grad_norm is None:
        not_finite = _find_not_finite(batch, losses, worker)
        if worker.rank == 0:
            cause = f"the loss of the micro batches of samples {not_finite}" if not_finite else "a gradient"
            log.warning("step %d was skipped on all workers: %s is not finite", step, cause)
    elif not math.isfinite(loss):
        raise TrainingError(f"step {step}: loss {loss} with gradients of norm {grad_norm}; this step was not saved")
    return StepTotals(
        loss=loss,
        grad_norm=math.nan if grad_norm is None else grad_norm,
        learning_rate=rate,
        supervised_tokens=int(supervised_tokens),
        tokens=int(total_tokens),
        samples_digest=int(total_digest),
        wishes=Wishes(*map(bool, wished)),
        skipped=grad_norm is None,
        not_finite=not_finite,
        pairs=int(total_counted) if of_pairs else None,
        reward_margin=margins / count if of_pairs else None,
        pair_accuracy=accurate / count if of_pairs else None,
    )


def counted_in(job: Job, micro: MicroBatch) -> int:
    """What the loss is a mean over: the supervised tokens of a micro batch, or its pairs."""
    return micro.pairs if job.config.train.objective == "dpo" else micro.supervised_tokens


def forward(job: Job, worker: Worker, engine: Any, micro: MicroBatch) -> torch.Tensor:
    """Sums over a micro batch, in fp32: its loss (with gradients), and of pairs also what `pair_sums` has beside it."""
    if job.config.train.objective == "sft":
        return _run(worker, engine, micro).reshape(1)
    assert micro.reference is not None, "the reference has not been put beside the rows"
    reference = _to_device(torch.from_numpy(micro.reference), worker)
    return pair_sums(answer_log_probs(job, worker, engine, micro), reference, job.config.train.dpo)


def answer_log_probs(job: Job, worker: Worker, engine: Any, micro: MicroBatch) -> torch.Tensor:
    """The log-probability of each document's answer, fp32, row by row; of an engine around an AnswerModel."""
    return _run(worker, engine, micro)


def _run(worker: Worker, engine: Any, micro: MicroBatch) -> torch.Tensor:
    """Put a micro batch through the engine's module."""
    arrays = (micro.input_ids, micro.positions, micro.labels, micro.documents)
    input_ids, positions, labels, documents = (torch.from_numpy(array).long() for array in arrays)
    input_ids, positions = _to_device(input_ids, worker), _to_device(positions, worker)
    # Labels and documents stay on the CPU: what follows from them is found there, without waiting for a GPU.
    found: torch.Tensor = engine(input_ids=input_ids, labels=labels, positions=positions, documents=documents)
    return found


def _scale(job: Job, batch: StepBatch, worker: Worker) -> torch.Tensor:
    """What this rank's sum of losses is multiplied by, to be per supervised token, or pair, of the global batch.

    DeepSpeed averages over ranks; the sum over ranks is what we want, also where ranks share rows and each has the loss
    of some of their tokens.
    """
    counted = sum(counted_in(job, micro) for micro in _counting(batch, worker))
    agreed = _to_device(torch.tensor(counted, dtype=torch.float32), worker)
    _all_reduce(agreed, worker)
    return worker.world_size / agreed.clamp(min=1)


def _counting(batch: StepBatch, worker: Worker) -> Sequence[MicroBatch]:
    """The micro batches that this rank counts for all."""
    return batch.micro_batches if worker.counts else ()


def _to_device(tensor: torch.Tensor, worker: Worker) -> torch.Tensor:
    """Copy a tensor of the CPU to the worker's device, without waiting for what a GPU has still to do."""
    if worker.device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(worker.device, non_blocking=True)


def _begin_to_read(tensor: torch.Tensor) -> Callable[[], list[float]]:
    """Begin to copy a tensor to the CPU; what is returned waits for that copy alone, and gives its values."""
    if not tensor.is_cuda:
        return tensor.tolist
    host = torch.empty_like(tensor, device="cpu", pin_memory=True)
    host.copy_(tensor, non_blocking=True)
    copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
    copied.record()

    def values() -> list[float]:
        copied.synchronize()
        return host.tolist()

    return values


def _find_not_finite(batch: StepBatch, losses: Sequence[torch.Tensor], worker: Worker) -> tuple[int, ...]:
    """The samples of all ranks' micro batches whose loss is not finite; every rank must call it."""
    ours = [
        int(sample)
        for micro, loss in zip(batch.micro_batches, losses, strict=True)
        if micro.weight and not loss.isfinite()
        for sample in micro.sample_ids
    ]
    found: list[list[int] | None] = [ours]
    if worker.world_size > 1:
        found = [None] * worker.world_size
        dist.all_gather_object(found, ours)
    return tuple(sorted({sample for each in found for sample in each or ()}))


def _samples_digest(batch: StepBatch, plan: ReadPlan, worker: Worker) -> int:
    """What this rank read of the step, as a number that adds up over the ranks."""
    first = batch.step * plan.global_batch_size
    digest = 0
    for round_number, micro in enumerate(_counting(batch, worker)):
        if micro.weight:
            place = (round_number * plan.world_size + plan.rank) * plan.micro_batch_size
            digest += ledger.batch_digest(micro.sample_ids, first + place)
    return digest


def _all_reduce(tensor: torch.Tensor, worker: Worker) -> None:
    if worker.world_size > 1:
        dist.all_reduce(tensor)


def _seed_dropout(seed: int, step: int, worker: Worker) -> None:
    """Make dropout a function of (seed, step, rank), so that a resumed step draws what it would have drawn.

    The device's own generator alone is seeded: torch.manual_seed seeks out every kind of device, for over 1 ms.
    """
    generator = torch.default_generator
    if worker.device.type == "cuda":
        generator = torch.cuda.default_generators[worker.device.index or 0]
    generator.manual_seed((seed * 1_000_003 + step * 8_191 + worker.rank) % (1 << 63))
