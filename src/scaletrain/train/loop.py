"""The training loop: one function, the same for every worker of a cluster and for one process on a laptop.

A step reads its global batch, accumulates the gradients of its micro batches, updates the weights, writes one line of
metrics and one of the ledger, and now and then hands its state over to be saved and committed while the next steps run.
"""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from scaletrain import attempts, policy
from scaletrain.data.loader import MicroBatch, ReadPlan, StepBatch, sample_ids
from scaletrain.data.shards import DatasetIndex, load_index
from scaletrain.devices import memory_bytes, peak_flops
from scaletrain.errors import TrainingError
from scaletrain.log import get_logger
from scaletrain.metrics import StepMetrics
from scaletrain.model.build import load_tokenizer
from scaletrain.train import debug, ledger, start, state
from scaletrain.train.garbage import Garbage
from scaletrain.train.job import Job
from scaletrain.train.phases import Phases
from scaletrain.train.purse import PurseBeingOpened
from scaletrain.train.records import Records
from scaletrain.train.reference import Reference, open_reference
from scaletrain.train.saver import Position, Saver
from scaletrain.train.step import Wishes, counted_in, forward, run_step
from scaletrain.train.validation import Validation, validate
from scaletrain.train.worker import Worker

log = get_logger(__name__)


def train(
    job: Job,
    worker: Worker,
    *,
    should_stop: Callable[[], bool],
    must_leave: Callable[[], bool] = lambda: False,
    left_s: Callable[[], float] = lambda: math.inf,
    on_lines: Callable[[Sequence[bytes]], None] | None = None,
    warn: Callable[[str], object] = log.warning,
    phases: Phases | None = None,
) -> int:
    """Train from the newest commit to the last step, or until asked to stop; returns the last committed step.

    Every worker of the attempt calls it, with the process group up. Once a step `should_stop` is asked on rank 0, and
    `must_leave` on every rank: whether its machine is about to be taken away, so that all save and end. Where less time
    is left until then (`left_s`) than saves take, all end without. `on_lines` gets rank 0's new lines of metrics, twice
    a second, and `warn` what a user should hear of. Raises TrainingError (a loss that is never finite), BudgetError
    (rank 0, once all have saved), DataError, CheckpointError, StorageError.
    """
    phases = phases or Phases()
    newest = start.newest_commit(job, worker)
    phases.ended("found")
    if newest is not None and newest.step >= job.last_step:
        return newest.step
    config, index = job.config, load_index(job.dataset_url)
    worker = replace(worker, sharing=config.scaling.sequence_parallel if worker.world_size > 1 else 1)
    being_opened = PurseBeingOpened(job, worker, warn=warn)

    with ExitStack() as stack:
        garbage = stack.enter_context(Garbage())
        # Reading starts first: its start-up hides behind the engine's.
        plan, batches = start.open_batches(stack, job, worker, index, newest)
        engine = start.start_engine(job, plan)
        phases.ended("engine")
        reference = None
        if config.train.objective == "dpo":  # while the engine has the weights that the run begins with
            reference = open_reference(job, worker, engine, index)
            phases.ended("reference")
        restored = start.restore(job, worker, engine, newest)
        phases.ended("restored")
        if restored != newest:
            batches.close()
            plan, batches = start.open_batches(stack, job, worker, index, restored)
        position = state.position_of(restored) if restored else Position(0, 0, 0, 0, ledger.GENESIS, None)
        if worker.rank == 0:
            after = restored.attempt if restored else 0
            attempts.begin(job.run, job.attempt, position.step, after=after, nonce=job.nonce)
        purse = being_opened.open()
        records = _open_records(stack, job, worker, on_lines, first_step=position.step + 1)
        profiler = _open_debug_tools(stack, job, worker, engine, position.step)
        saver = stack.enter_context(Saver(engine, job, worker))
        garbage.steps_begin()
        flops_per_token = _flops_per_token(engine, index.seq_len)
        phases.ended("ready")

        def ask() -> Wishes:
            stop = worker.rank == 0 and (should_stop() or purse.must_stop(saver.fits))
            leave, save_failed = must_leave(), saver.failed
            too_late = leave and not saver.fits(left_s())
            if too_late:
                log.warning("this machine goes before a save could be made: going on from the last one")
            return Wishes(stop=stop, leave=leave, too_late=too_late, save_failed=save_failed)

        clock, stall_s, skipped_in_a_row = time.perf_counter(), 0.0, 0
        for batch in batches:
            is_first = batch.step == plan.first_step
            if is_first:
                phases.ended("first_batch")
            if config.debug.dump_batch and is_first and worker.rank == 0:
                debug.show_batch(batch.micro_batches[0], load_tokenizer(job.model_url))
            compared = batch if reference is None else reference.beside_all(batch)
            totals = run_step(job, worker, engine, compared, plan, ask=ask)
            line = _ledger_line(batch, plan, index, totals.samples_digest, position.ledger_hash)
            position = replace(
                position,
                step=line.step,
                samples_seen=line.step * plan.global_batch_size,
                tokens=position.tokens + totals.tokens,
                supervised_tokens=position.supervised_tokens + totals.supervised_tokens,
                ledger_hash=line.hash,
            )
            skipped_in_a_row = skipped_in_a_row + 1 if totals.skipped else 0
            if skipped_in_a_row > config.train.max_skipped_steps:
                raise TrainingError(_never_finite(job, line.step, skipped_in_a_row, totals.not_finite))
            validation = _validate(job, worker, engine, index, reference, position.step)
            if totals.wishes.save_failed:
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
                    sequence_parallel=worker.sharing if worker.sharing > 1 else None,
                    memory_bytes=memory_bytes(worker.device),
                    mfu=_mfu(flops_per_token * totals.tokens / (now - clock), worker),
                    **_told_of(validation, of_pairs=reference is not None),
                    skipped=totals.skipped or None,
                    usd_per_hour=purse.usd_per_hour,
                    cost_usd=purse.spent().usd,
                    pairs=totals.pairs,
                    reward_margin=totals.reward_margin,
                    pair_accuracy=totals.pair_accuracy,
                )
                purse.step_ended(position.step, metrics.step_s)
                records.write(metrics, line)
            if is_first:
                phases.ended("first_step")
                if worker.rank == 0:
                    phases.keep(job.run, job.attempt)
            clock, stall_s = now, 0.0
            if profiler is not None:
                profiler.step()
            garbage.step_ended()
            ending = totals.wishes.stop or totals.wishes.leave or position.step == job.last_step
            is_due = policy.save_is_due(position.step, every_steps=config.checkpoint.every_steps, ending=ending)
            if is_due and not totals.wishes.too_late:
                saver.save(position, before_commit=records.flush if records is not None else _nothing)
                position = replace(position, parent_step=position.step)
                stall_s = time.perf_counter() - clock
            if ending:
                break
        saver.finish()
    if position.step < job.last_step:
        purse.check_spent(position.parent_step or 0)
    return position.parent_step or 0


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


def _validate(
    job: Job, worker: Worker, engine: Any, index: DatasetIndex, reference: Reference | None, step: int
) -> Validation | None:
    every = job.config.train.evaluate_every_steps
    if not every or step % every or index.splits["validation"].rows == 0:
        return None

    def measure(micro: MicroBatch) -> torch.Tensor:
        compared = micro if reference is None else reference.beside(micro, split="validation")
        return forward(job, worker, engine, compared)

    engine.eval()
    found = validate(measure, partial(counted_in, job), job.dataset_url, index, job.config.train, worker)
    engine.train()
    return found


def _told_of(validation: Validation | None, *, of_pairs: bool) -> dict[str, float]:
    """The fields of a line of metrics that tell of a validation."""
    if validation is None:
        return {}
    told = {"validation_loss": validation.loss}
    if not of_pairs:
        return told | {"validation_perplexity": math.exp(validation.loss)}
    margin, accuracy = validation.reward_margin, validation.pair_accuracy
    return told | {"validation_reward_margin": margin, "validation_pair_accuracy": accuracy}


def _open_records(
    stack: ExitStack,
    job: Job,
    worker: Worker,
    on_lines: Callable[[Sequence[bytes]], None] | None,
    *,
    first_step: int,
) -> Records | None:
    if worker.rank != 0:
        return None
    records = Records(
        job.run,
        attempt=job.attempt,
        nonce=job.nonce,
        first_step=first_step,
        tensorboard=job.config.track.tensorboard,
        on_lines=on_lines,
    )
    return stack.enter_context(records)


def _open_debug_tools(stack: ExitStack, job: Job, worker: Worker, engine: Any, step: int) -> Any:
    """Switch on what the debug section asks for; returns the profiler, if any."""
    if job.config.debug.check_nan:
        stack.enter_context(debug.checking_nan(engine.module.causal_lm))
    if job.config.debug.profile_steps and worker.rank == 0:
        return stack.enter_context(debug.profiling(job.run, steps=job.config.debug.profile_steps, first_step=step + 1))
    return None


def _never_finite(job: Job, step: int, count: int, samples: Sequence[int]) -> str:
    name = job.config.name
    where = f"the micro batches of samples {tuple(samples)}" if samples else "a gradient, with finite losses"
    return (
        f"step {step}: loss or gradients were not finite in {count} steps in a row (train.max_skipped_steps="
        f"{job.config.train.max_skipped_steps}), this time in {where}. Look at it with `scaletrain replay {name} "
        f"--step {step}`, lower train.learning_rate, or find the module with debug.check_nan=true; the same command "
        "goes on from the newest commit"
    )


def _nothing() -> None:
    """What ranks without records have to do before a commit."""


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
