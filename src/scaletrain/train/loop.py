"""The training loop: one function, the same for every worker of a cluster and for one process on a laptop.

A step reads its global batch, accumulates the gradients of its micro batches, updates the weights, writes one line of
metrics and one of the ledger, and now and then commits a checkpoint. Two small all-reduces a step agree on the number
of supervised tokens (before the first backward, so that the loss is per supervised token of the whole global batch)
and on the loss, the samples and whether to stop (after the update).
"""

import math
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.distributed as dist

from scaletrain import attempts, checkpoint
from scaletrain.config import Config
from scaletrain.data.loader import MicroBatch, ReadPlan, StepBatch, sample_ids, steps_local, steps_ray
from scaletrain.data.shards import DatasetIndex, load_index
from scaletrain.devices import memory_bytes, peak_flops
from scaletrain.errors import CheckpointError, DamagedError, TrainingError
from scaletrain.layout import RunLayout
from scaletrain.log import get_logger
from scaletrain.metrics import StepMetrics
from scaletrain.model.build import load_model, load_tokenizer
from scaletrain.model.loss import LossModel
from scaletrain.train import debug, ledger, state, zero
from scaletrain.train.ahead import Ahead
from scaletrain.train.records import Records
from scaletrain.train.saver import Position, Saver
from scaletrain.train.schedule import learning_rate
from scaletrain.train.validation import validation_loss
from scaletrain.train.worker import Worker

log = get_logger(__name__)


@dataclass(frozen=True)
class Job:
    """Everything that an attempt's workers need; the same on each of them.

    Device, precision and attention are resolved (never "auto"); `reader` names who reads the shards: Ray Data's
    tasks, or this process. `attempt` is the fencing token that goes into every manifest.
    """

    config: Config
    dataset_url: str
    model_url: str
    attempt: int
    total_steps: int
    device: Literal["cuda", "cpu"]
    precision: Literal["fp32", "bf16"]
    attention: Literal["sdpa", "flex"]
    reader: Literal["ray", "local"]

    @property
    def run(self) -> RunLayout:
        return RunLayout(self.config.storage.root, self.config.name)

    @property
    def last_step(self) -> int:
        """Where this attempt ends, if nobody stops it before."""
        return min(self.total_steps, self.config.debug.stop_after or self.total_steps)


@dataclass(frozen=True)
class _Totals:
    """One step, summed over all ranks."""

    loss: float
    grad_norm: float
    learning_rate: float
    supervised_tokens: int
    tokens: int
    samples_digest: int
    stop: bool
    save_failed: bool


def train(
    job: Job,
    worker: Worker,
    *,
    should_stop: Callable[[], bool],
    on_lines: Callable[[Sequence[bytes]], None] | None = None,
) -> int:
    """Train from the newest commit to the last step, or until asked to stop; returns the last committed step.

    Every worker of the attempt calls it, with the process group up. `should_stop` is asked on rank 0 once a step;
    `on_lines` gets rank 0's new lines of metrics, twice a second. Raises TrainingError (a non-finite loss), DataError,
    CheckpointError, StorageError.
    """
    start = _newest_commit(job, worker)
    if start is not None and start.step >= job.last_step:
        return start.step
    config, index = job.config, load_index(job.dataset_url)

    with ExitStack() as stack:
        plan, batches = _open_batches(stack, job, worker, index, start)  # their start-up hides behind the engine's
        engine = _start_engine(job, plan)
        restored = _restore(job, worker, engine, start)
        if restored != start:
            plan, batches = _open_batches(stack, job, worker, index, restored)
        position = state.position_of(restored) if restored else Position(0, 0, 0, 0, ledger.GENESIS, None)
        if worker.rank == 0:
            attempts.check_newest(job.run, job.attempt)
            attempts.begin(job.run, job.attempt, position.step)
        records = _open_records(stack, job, worker, on_lines)
        profiler = _open_debug_tools(stack, job, worker, engine, position.step)
        saver = stack.enter_context(_open_saver(job, worker, engine))
        flops_per_token = _flops_per_token(engine, index.seq_len)
        clock, stall_s = time.perf_counter(), 0.0
        for batch in batches:
            if config.debug.dump_batch and batch.step == plan.first_step and worker.rank == 0:
                debug.show_batch(batch.micro_batches[0], load_tokenizer(job.model_url))
            totals = _step(job, worker, engine, batch, plan, should_stop, saver)
            line = _ledger_line(batch, plan, index, totals.samples_digest, position.ledger_hash)
            position = replace(
                position,
                step=line.step,
                samples_seen=line.step * plan.global_batch_size,
                tokens=position.tokens + totals.tokens,
                supervised_tokens=position.supervised_tokens + totals.supervised_tokens,
                ledger_hash=line.hash,
            )
            validation = _validate(job, worker, engine, index, position.step)
            if totals.save_failed:
                saver.finish()  # raises, on every rank
            now = time.perf_counter()
            if records is not None:
                metrics = StepMetrics(
                    step=position.step,
                    loss=totals.loss,
                    learning_rate=totals.learning_rate,
                    grad_norm=totals.grad_norm,
                    samples_seen=position.samples_seen,
                    supervised_tokens=totals.supervised_tokens,
                    tokens=totals.tokens,
                    tokens_per_s=totals.tokens / (now - clock),
                    step_s=now - clock,
                    data_wait_s=batches.last_wait_s,
                    checkpoint_stall_s=stall_s,
                    world_size=worker.world_size,
                    memory_bytes=memory_bytes(worker.device),
                    mfu=_mfu(flops_per_token * totals.tokens / (now - clock), worker),
                    validation_loss=validation,
                    validation_perplexity=math.exp(validation) if validation is not None else None,
                )
                records.write(metrics, line)
            clock, stall_s = now, 0.0
            if profiler is not None:
                profiler.step()
            ending = totals.stop or position.step == job.last_step
            if ending or position.step % config.checkpoint.every_steps == 0:
                saver.save(position, before_commit=records.flush if records is not None else _nothing)
                position = replace(position, parent_step=position.step)
                stall_s = time.perf_counter() - clock
            if ending:
                break
        saver.finish()
    return position.step


# ---- one step ------------------------------------------------------------------------------------------------------


def _step(
    job: Job,
    worker: Worker,
    engine: Any,
    batch: StepBatch,
    plan: ReadPlan,
    should_stop: Callable[[], bool],
    saver: Saver,
) -> _Totals:
    """Forward, backward and update of one global batch; the loss is per supervised token over all of it."""
    step = batch.step + 1
    _seed_dropout(job.config.seed, step, worker)
    rate = learning_rate(job.config.train, step, job.total_steps)
    zero.set_learning_rate(engine, rate)
    supervised = sum(micro.supervised_tokens for micro in batch.micro_batches)
    agreed = torch.tensor([supervised], dtype=torch.float32, device=worker.device)
    _all_reduce(agreed, worker)
    # DeepSpeed averages over ranks; the sum over ranks, per supervised token, is what we want.
    scale = worker.world_size / agreed.clamp(min=1)[0]
    loss_sum = torch.zeros((), dtype=torch.float64, device=worker.device)
    for micro in batch.micro_batches:
        micro_loss = _forward(job, worker, engine, micro)
        loss_sum += micro_loss.detach() * micro.weight
        zero.accumulate(engine, micro_loss * (scale * micro.weight))
    grad_norm = zero.update(engine)
    tokens = sum(micro.tokens for micro in batch.micro_batches if micro.weight)
    stop = worker.rank == 0 and should_stop()
    digest = _samples_digest(batch, plan, worker)
    told = [0.0, supervised, tokens, digest, stop, saver.failed]
    sums = torch.tensor(told, dtype=torch.float64, device=worker.device)
    sums[0] = loss_sum
    _all_reduce(sums, worker)
    total_loss, supervised_tokens, total_tokens, total_digest, stopping, failed_saves = sums.tolist()
    loss = total_loss / max(supervised_tokens, 1)
    if not math.isfinite(loss) or not math.isfinite(grad_norm):
        ids = sorted(int(i) for micro in batch.micro_batches for i in micro.sample_ids)
        raise TrainingError(
            f"step {step}: loss {loss}, gradient norm {grad_norm}; this step was not saved. Rank {worker.rank} had the "
            f"samples {ids}. Lower train.learning_rate, or find the module with debug.check_nan=true"
        )
    return _Totals(
        loss=loss,
        grad_norm=grad_norm,
        learning_rate=rate,
        supervised_tokens=int(supervised_tokens),
        tokens=int(total_tokens),
        samples_digest=int(total_digest),
        stop=bool(stopping),
        save_failed=bool(failed_saves),
    )


def _forward(job: Job, worker: Worker, engine: Any, micro: MicroBatch) -> torch.Tensor:
    """The loss of a micro batch, summed over its supervised tokens, in fp32."""
    input_ids, labels, positions, documents = (
        torch.from_numpy(array).to(worker.device, torch.long, non_blocking=True)
        for array in (micro.input_ids, micro.labels, micro.positions, micro.documents)
    )
    # ZeRO 0 keeps fp32 weights, so bf16 is autocast there; above, the weights themselves are bf16.
    autocast = job.precision == "bf16" and job.config.zero.stage == 0
    with torch.autocast(worker.device.type, torch.bfloat16) if autocast else nullcontext():
        loss: torch.Tensor = engine(input_ids=input_ids, labels=labels, positions=positions, documents=documents)
    return loss


def _samples_digest(batch: StepBatch, plan: ReadPlan, worker: Worker) -> int:
    """What this rank read of the step, as a number that adds up over the ranks."""
    first = batch.step * plan.global_batch_size
    digest = 0
    for round_number, micro in enumerate(batch.micro_batches):
        if micro.weight:
            place = (round_number * worker.world_size + worker.rank) * plan.micro_batch_size
            digest += ledger.batch_digest(micro.sample_ids, first + place)
    return digest


def _ledger_line(
    batch: StepBatch, plan: ReadPlan, index: DatasetIndex, samples_digest: int, previous_hash: str
) -> ledger.LedgerLine:
    """Chain the step's ledger line, once it is proved that the ranks together read exactly its samples."""
    first = batch.step * plan.global_batch_size
    stop = first + plan.global_batch_size
    rows = index.splits["train"].rows
    expected = sample_ids(rows, index.row_group_rows, seed=plan.seed, start=first, stop=stop)
    if samples_digest != ledger.batch_digest(expected, first):
        raise TrainingError(
            f"step {batch.step + 1}: the workers did not read exactly the samples of this step; nothing of it was saved"
        )
    return ledger.next_line(previous_hash, batch.step + 1, expected)


def _validate(job: Job, worker: Worker, engine: Any, index: DatasetIndex, step: int) -> float | None:
    every = job.config.train.evaluate_every_steps
    if not every or step % every or index.splits["validation"].rows == 0:
        return None
    engine.eval()
    loss = validation_loss(
        lambda micro: _forward(job, worker, engine, micro), job.dataset_url, index, job.config.train, worker
    )
    engine.train()
    return loss


# ---- the start -----------------------------------------------------------------------------------------------------


def _newest_commit(job: Job, worker: Worker, *, passing_over: Collection[int] = ()) -> checkpoint.Manifest | None:
    """Rank 0 looks for the newest commit that is whole, and all ranks take its word."""
    box = [checkpoint.latest(job.run, passing_over=passing_over)] if worker.rank == 0 else [None]
    if worker.world_size > 1:
        dist.broadcast_object_list(box, src=0)
    manifest = box[0]
    if manifest is not None and manifest.model_url.rsplit("/", 1)[-1] != job.model_url.rsplit("/", 1)[-1]:
        raise CheckpointError(
            f"{job.run.checkpoint(manifest.step)} was trained from {manifest.model_url}, this run starts from "
            f"{job.model_url}: give the run another name, or its old model back"
        )
    if manifest is not None and manifest.precision != job.precision:
        raise CheckpointError(
            f"{job.run.checkpoint(manifest.step)} was trained in {manifest.precision}, this attempt would go on in "
            f"{job.precision}: set train.precision={manifest.precision}"
        )
    return manifest


def _restore(job: Job, worker: Worker, engine: Any, newest: checkpoint.Manifest | None) -> checkpoint.Manifest | None:
    """Load the newest commit whose bytes verify, `newest` if it does; returns it, or None where there is no commit."""
    damaged: list[DamagedError] = []
    passed_over: list[int] = []
    while newest is not None:
        complaint = state.load(engine, job.run.checkpoint(newest.step), newest)
        if complaint is None:
            return newest
        damaged.append(complaint)
        passed_over.append(newest.step)
        if worker.rank == 0:
            log.warning("passing over step %d: %s", newest.step, complaint)
        newest = _newest_commit(job, worker, passing_over=passed_over)
    if damaged:
        raise CheckpointError(
            f"no checkpoint of {job.run.url} can be loaded: {'; '.join(map(str, damaged))}. Bring an older version of "
            "these files back (a bucket made by `scaletrain cluster init` keeps them), or start anew with name=..."
        )
    return None


def _open_batches(
    stack: ExitStack, job: Job, worker: Worker, index: DatasetIndex, start: checkpoint.Manifest | None
) -> tuple[ReadPlan, Ahead[StepBatch]]:
    """Begin to read what comes after a checkpoint."""
    plan = _read_plan(job, worker, index, start.step if start else 0)
    read = steps_ray if job.reader == "ray" else steps_local
    return plan, stack.enter_context(Ahead(read(plan)))


def _open_saver(job: Job, worker: Worker, engine: Any) -> Saver:
    return Saver(
        engine,
        job.run,
        worker,
        attempt=job.attempt,
        model_url=job.model_url,
        precision=job.precision,
        keep=job.config.checkpoint.keep,
    )


def _read_plan(job: Job, worker: Worker, index: DatasetIndex, first_step: int) -> ReadPlan:
    return ReadPlan(
        dataset_url=job.dataset_url,
        index=index,
        seed=job.config.seed,
        global_batch_size=job.config.train.global_batch_size,
        micro_batch_size=job.config.train.micro_batch_size,
        world_size=worker.world_size,
        rank=worker.rank,
        first_step=first_step,
        stop_step=job.last_step,
    )


def _start_engine(job: Job, plan: ReadPlan) -> Any:
    config, stage = job.config, job.config.zero.stage
    dtype = torch.bfloat16 if job.precision == "bf16" and stage > 0 else torch.float32
    partitioned = (
        zero.deepspeed_config(config, rounds=plan.rounds, precision=job.precision)
        if stage == 3 and plan.world_size > 1
        else None
    )
    model = load_model(
        job.model_url, config.model, dtype=dtype, attention=job.attention, seed=config.seed, zero3=partitioned
    )
    return zero.build_engine(LossModel(model), config, rounds=plan.rounds, precision=job.precision)


def _open_records(
    stack: ExitStack, job: Job, worker: Worker, on_lines: Callable[[Sequence[bytes]], None] | None
) -> Records | None:
    if worker.rank != 0:
        return None
    tensorboard = job.config.track.tensorboard
    return stack.enter_context(Records(job.run, attempt=job.attempt, tensorboard=tensorboard, on_lines=on_lines))


def _open_debug_tools(stack: ExitStack, job: Job, worker: Worker, engine: Any, step: int) -> Any:
    """Switch on what the debug section asks for; returns the profiler, if any."""
    if job.config.debug.check_nan:
        stack.enter_context(debug.checking_nan(engine.module.causal_lm))
    if job.config.debug.profile_steps and worker.rank == 0:
        return stack.enter_context(debug.profiling(job.run, steps=job.config.debug.profile_steps, first_step=step + 1))
    return None


# ---- helpers -------------------------------------------------------------------------------------------------------


def _nothing() -> None:
    """What ranks without records have to do before a commit."""


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


def _flops_per_token(engine: Any, seq_len: int) -> float:
    """6 N + 6 L H T FLOPs for forward and backward of a causal model (Chowdhery et al. 2022, arXiv:2204.02311, B).

    Attention over a whole row is halved for causality; that documents are shorter than rows is not counted.
    """
    model = engine.module.causal_lm
    shape = model.config
    numel = sum(getattr(p, "ds_numel", p.numel()) for p in model.parameters())
    return float(6 * numel + 6 * shape.num_hidden_layers * shape.hidden_size * seq_len)


def _mfu(flops_per_s: float, worker: Worker) -> float | None:
    """Model FLOPs utilisation: the share of the peak of all workers' devices, where it is known."""
    peak = peak_flops(worker.device)
    return flops_per_s / (peak * worker.world_size) if peak else None
