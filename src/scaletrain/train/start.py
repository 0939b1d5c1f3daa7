"""Where an attempt begins: the newest commit that verifies, the rows after it, and an engine with its state."""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch
import torch.distributed as dist

from scaletrain import checkpoint, devices
from scaletrain.data.loader import ReadPlan, StepBatch, steps_local, steps_ray
from scaletrain.data.shards import DatasetIndex
from scaletrain.errors import CheckpointError, ScaletrainError
from scaletrain.log import get_logger
from scaletrain.model.answer_log_probs import AnswerModel
from scaletrain.model.build import load_model
from scaletrain.model.loss import LossModel
from scaletrain.model.sequence_parallel import form_group
from scaletrain.train import state, zero
from scaletrain.train.ahead import Ahead
from scaletrain.train.job import Job
from scaletrain.train.peers import bound_waiting
from scaletrain.train.worker import Worker

log = get_logger(__name__)


def newest_commit(
    job: Job, worker: Worker, *, passing_over: Mapping[int, CheckpointError] = {}
) -> checkpoint.Manifest | None:
    """Rank 0 looks for the newest commit that is whole, and all ranks take its word."""
    box: list[checkpoint.Manifest | ScaletrainError | None] = [None]
    if worker.rank == 0:
        try:
            box = [checkpoint.latest(job.run, passing_over=passing_over)]
        except ScaletrainError as error:
            box = [error]
    if worker.world_size > 1:
        dist.broadcast_object_list(box, src=0)
    manifest = box[0]
    if isinstance(manifest, ScaletrainError):
        raise manifest
    if manifest is not None:
        _check_inputs(job, manifest)
    if manifest is not None and manifest.precision != job.precision:
        raise CheckpointError(
            f"{job.run.checkpoint(manifest.step)} was trained in {manifest.precision}, this attempt would go on in "
            f"{job.precision}: set train.precision={manifest.precision}"
        )
    return manifest


def _check_inputs(job: Job, manifest: checkpoint.Manifest) -> None:
    """Raise CheckpointError where a commit was made of other rows, or from another model, than would come now."""
    for what, before, now in (
        ("dataset", manifest.dataset_url, job.dataset_url),
        ("model", manifest.model_url, job.model_url),
    ):
        if before.rsplit("/", 1)[-1] != now.rsplit("/", 1)[-1]:
            raise CheckpointError(
                f"{job.run.checkpoint(manifest.step)} was trained with the {what} {before}, which is gone; what the "
                f"configuration makes now is another, {now}: give the run another name, or its old {what} back"
            )


def restore(job: Job, worker: Worker, engine: Any, newest: checkpoint.Manifest | None) -> checkpoint.Manifest | None:
    """Load the newest commit whose bytes verify, `newest` if it does; returns it, or None where there is no commit.

    Raises DamagedError where there are commits and none can be loaded.
    """
    damaged: dict[int, CheckpointError] = {}
    while newest is not None:
        complaint = state.load(engine, job.run.checkpoint(newest.step), newest)
        if complaint is None:
            return newest
        damaged[newest.step] = complaint
        if worker.rank == 0:
            log.warning("passing over step %d: %s", newest.step, complaint)
        newest = newest_commit(job, worker, passing_over=damaged)
    return None


def open_batches(
    stack: ExitStack, job: Job, worker: Worker, index: DatasetIndex, start: checkpoint.Manifest | None
) -> tuple[ReadPlan, Ahead[StepBatch]]:
    """Begin to read what comes after a checkpoint."""
    plan = _read_plan(job, worker, index, start.step if start else 0)
    read = steps_ray if job.reader == "ray" else steps_local
    return plan, stack.enter_context(Ahead(read(plan)))


def start_engine(job: Job, plan: ReadPlan) -> Any:
    config, stage = job.config, job.config.zero.stage
    group = form_group(config.scaling.sequence_parallel)
    dtype = torch.bfloat16 if job.precision == "bf16" and stage > 0 else torch.float32
    workers = dist.get_world_size()
    partitioned = (
        zero.deepspeed_config(config, rounds=plan.rounds, precision=job.precision, workers=workers)
        if stage == 3 and workers > 1
        else None
    )
    model = load_model(
        job.model_url,
        config.model,
        dtype=dtype,
        attention=job.attention,
        kernels=job.kernels,
        seed=config.seed,
        zero3=partitioned,
        group=group,
        computing=devices.dtype_of(job.precision),
        device=job.device,
    )
    autocast = torch.bfloat16 if job.autocasts else None
    is_dpo = config.train.objective == "dpo"
    wrapped = AnswerModel(model, autocast=autocast) if is_dpo else LossModel(model, group, autocast=autocast)
    engine = zero.build_engine(wrapped, config, rounds=plan.rounds, precision=job.precision)
    bound_waiting(config.train.timeout_s)
    return engine


def _read_plan(job: Job, worker: Worker, index: DatasetIndex, first_step: int) -> ReadPlan:
    return ReadPlan(
        dataset_url=job.dataset_url,
        index=index,
        seed=job.config.seed,
        global_batch_size=job.config.train.global_batch_size,
        micro_batch_size=job.config.train.micro_rows,
        world_size=worker.readers,
        rank=worker.reader,
        first_step=first_step,
        stop_step=job.last_step,
    )
