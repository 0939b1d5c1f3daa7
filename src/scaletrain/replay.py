"""One step of a run again: its exact batch, decoded; its state, from the nearest checkpoint; which rows are to blame.

The batch is a function of seed and step, so it is there for any step, whether anything of it is left or not. The state
before a step is the newest checkpoint before it, trained on in this process up to that step, on one GPU or CPU.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from scaletrain import checkpoint, devices, storage
from scaletrain.attempts import read_attempts
from scaletrain.checkpoint import Manifest
from scaletrain.config import Config
from scaletrain.config_file import load_config
from scaletrain.data.loader import MicroBatch, ReadPlan, StepBatch, sample_ids, steps_local
from scaletrain.data.prepare import prepare
from scaletrain.data.shards import DatasetIndex, load_index
from scaletrain.errors import ConfigError
from scaletrain.layout import RunLayout, step_of
from scaletrain.log import get_logger, progress
from scaletrain.metrics import read_records
from scaletrain.model.kernels import resolve_kernels
from scaletrain.run_inputs import inputs_of
from scaletrain.runs import check_exists

if TYPE_CHECKING:
    from rich.console import RenderableType

    from scaletrain.train.job import Job

log = get_logger(__name__)


@dataclass(frozen=True)
class ReplayedRow:
    """One packed row of the step; `loss` is per supervised token (of preference training per pair), before the step's
    update, where it was asked for."""

    sample: int
    epoch: int
    rank: int
    tokens: int
    supervised_tokens: int
    loss: float | None


@dataclass(frozen=True)
class Replay:
    """A step as it was: `loss` is what it comes to here, `recorded_loss` what the run wrote down at the time.

    `state_from` is the checkpoint that the state was rebuilt from (0: the beginning), None where only the batch was.
    """

    run: str
    step: int
    rows: tuple[ReplayedRow, ...]
    in_ledger: bool | None
    state_from: int | None
    loss: float | None
    recorded_loss: float | None

    def record(self) -> dict[str, object]:
        """The replay as plain data."""
        return asdict(self)


def replay_step(
    run: RunLayout,
    step: int,
    *,
    rank: int | None = None,
    blame: bool = False,
    debugger: bool = False,
    show_rows: int = 2,
    device: Literal["auto", "cuda", "cpu"] = "auto",
) -> Replay:
    """Rebuild a step's batch, print its first rows decoded and, with `blame` or `debugger`, rebuild its state too.

    `rank` leaves only the rows of one worker of the time. `blame` sorts the rows by their loss, the highest first;
    `debugger` stops in Python's debugger just before the step. Raises ConfigError for a step or rank that never was.
    """
    from scaletrain.model.build import load_tokenizer
    from scaletrain.train import debug

    config, newest = _read_run(run, step)
    job = _job_of(run, config, newest, device)
    if step > job.total_steps:
        raise ConfigError(f"--step={step}: the run {run.name} has {job.total_steps} steps; use 1 to {job.total_steps}")
    index = load_index(job.dataset_url)
    known = read_attempts(run)
    ledger = {line["step"]: line for line in read_records(run.ledger, last_step_of=known.last_step_of)}
    metrics: dict[Any, Any] = {
        line["step"]: line for line in read_records(run.metrics, last_step_of=known.last_step_of)
    }
    if step not in ledger and step not in metrics and (newest is None or newest.step < step):
        log.warning("step %d of %s is not done yet: this is the batch that it would have", step, run.name)
    world_size = int(metrics.get(step, {}).get("world_size", 1))
    sharing = int(metrics.get(step, {}).get("sequence_parallel", 1))
    if rank is not None and rank >= world_size:
        raise ConfigError(f"--rank={rank}: step {step} was trained by {world_size} workers, 0 to {world_size - 1}")
    plan = _plan(job, index, range(step, step + 1), micro_batch_size=1)
    (batch,) = steps_local(plan)
    ranks = _ranks(config, world_size, sharing)
    chosen = [place for place, first in enumerate(ranks) if rank is None or first <= rank < first + sharing]
    _show([batch.micro_batches[place] for place in chosen], load_tokenizer(job.model_url), debug, show_rows)
    losses: Sequence[float | None] = [None] * len(batch.micro_batches)
    state_from = None
    if blame or debugger:
        state_from, losses = _losses(job, index, step, batch, debugger=debugger)
    rows = [
        ReplayedRow(
            sample=int(micro.sample_ids[0]),
            epoch=(plan.first_step * plan.global_batch_size + place) // index.splits["train"].rows,
            rank=ranks[place],
            tokens=micro.tokens,
            supervised_tokens=micro.supervised_tokens,
            loss=losses[place],
        )
        for place in chosen
        for micro in [batch.micro_batches[place]]
    ]
    if blame:
        rows.sort(key=lambda row: -math.inf if row.loss is None else _badness(row.loss), reverse=True)
    line = ledger.get(step)
    recorded = metrics.get(step, {}).get("loss")
    return Replay(
        run=run.url,
        step=step,
        rows=tuple(rows),
        in_ledger=None if line is None else line["samples"] == _sample_ids(plan),
        state_from=state_from,
        loss=_mean_loss(job, batch, losses),
        recorded_loss=None if recorded is None else float(recorded),
    )


def replay_display(found: Replay) -> "RenderableType":
    """A replay as a person reads it."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table("sample", "epoch", "rank", "tokens", "supervised", "loss")
    for row in found.rows:
        loss = "-" if row.loss is None else f"{row.loss:.4f}"
        table.add_row(*(str(n) for n in (row.sample, row.epoch, row.rank, row.tokens, row.supervised_tokens)), loss)
    told = {None: "the ledger has no line of it", True: "these are the samples in its ledger"}
    lines = [f"step {found.step} of {found.run}: {told.get(found.in_ledger, 'NOT the samples in its ledger')}"]
    if found.loss is not None:
        recorded = "nothing was recorded" if found.recorded_loss is None else f"recorded: {found.recorded_loss:.6f}"
        lines.append(f"loss {found.loss:.6f} with the state from step {found.state_from} on ({recorded})")
    return Group(table, Text("\n".join(lines)))


def _read_run(run: RunLayout, step: int) -> tuple[Config, Manifest | None]:
    check_exists(run)
    if step < 1:
        raise ConfigError(f"--step={step}: steps count from 1")
    return load_config(run.config), checkpoint.newest_whole(run)


def _job_of(run: RunLayout, config: Config, newest: Manifest | None, device: Literal["auto", "cuda", "cpu"]) -> "Job":
    """The run as a job of this process."""
    from scaletrain.train.job import Job

    inputs = inputs_of(run, newest) if newest is not None else prepare(config, use_ray=False)
    resolved = devices.resolve_device(device, gpus=devices.count_local_gpus())
    found = newest.precision if newest else devices.resolve_precision(config.train.precision, resolved)
    precision: Literal["fp32", "bf16"] = "bf16" if found == "bf16" else "fp32"
    return Job(
        config=config.model_copy(
            update={"storage": config.storage.model_copy(update={"root": run.root}), "name": run.name}
        ),
        dataset_url=inputs.dataset_url,
        model_url=inputs.model_url,
        attempt=0,
        total_steps=_total_steps(config, inputs.dataset_url),
        device=resolved,
        precision=precision,
        attention=devices.resolve_attention(config.model.attention, resolved, precision),
        kernels=resolve_kernels(config.model.kernels, resolved, zero_stage=config.zero.stage),
        reader="local",
    )


def _total_steps(config: Config, url: str) -> int:
    from scaletrain.train.trainer import count_steps

    return count_steps(config, load_index(url))


def _plan(job: "Job", index: DatasetIndex, steps: range, *, micro_batch_size: int) -> ReadPlan:
    """All rows of some steps, counted from 1, for one worker."""
    return ReadPlan(
        dataset_url=job.dataset_url,
        index=index,
        seed=job.config.seed,
        global_batch_size=job.config.train.global_batch_size,
        micro_batch_size=micro_batch_size,
        world_size=1,
        rank=0,
        first_step=steps.start - 1,
        stop_step=steps.stop - 1,
    )


def _sample_ids(plan: ReadPlan) -> list[int]:
    start, stop = plan.first_step * plan.global_batch_size, plan.stop_step * plan.global_batch_size
    rows = plan.index.splits["train"].rows
    return [int(i) for i in sample_ids(rows, plan.index.row_group_rows, seed=plan.seed, start=start, stop=stop)]


def _ranks(config: Config, world_size: int, sharing: int) -> list[int]:
    """Which worker had each row of a step, the first where several shared it: micro batches are dealt in order."""
    train, readers = config.train, world_size // sharing
    return [place // train.micro_rows % readers * sharing for place in range(train.global_batch_size)]


def _show(micro_batches: Sequence[MicroBatch], tokenizer: Any, debug: Any, rows: int) -> None:
    for micro in micro_batches[:rows]:
        debug.show_batch(micro, tokenizer, rows=1)


def _losses(
    job: "Job", index: DatasetIndex, step: int, batch: StepBatch, *, debugger: bool
) -> tuple[int, list[float | None]]:
    """Rebuild the state before a step; returns where it came from, and each row's loss per supervised token or pair."""
    import torch

    from scaletrain.train import state
    from scaletrain.train.local import only_worker
    from scaletrain.train.reference import open_reference
    from scaletrain.train.start import start_engine
    from scaletrain.train.step import Wishes, counted_in, forward, run_step

    with only_worker(job) as worker:
        start = _nearest(job.run, step)
        first_step = start.step if start else 0
        before = range(first_step + 1, step)
        plan = _plan(job, index, before, micro_batch_size=job.config.train.micro_rows)
        engine = start_engine(job, plan)
        reference = None
        if job.config.train.objective == "dpo":
            reference = open_reference(job, worker, engine, index)
            batch = reference.beside_all(batch)
        if start is not None:
            complaint = state.load(engine, job.run.checkpoint(start.step), start)
            if complaint is not None:
                raise complaint
        with progress(unit="steps") as display:
            task = display.add_task("training up to it", total=len(before))
            for each in steps_local(plan):
                compared = each if reference is None else reference.beside_all(each)
                run_step(job, worker, engine, compared, plan, ask=Wishes)
                display.advance(task)
        engine.eval()
        if debugger:
            _stop_before(engine, batch, lambda micro: forward(job, worker, engine, micro)[0])
        losses: list[float | None] = []
        with torch.no_grad():
            for micro in batch.micro_batches:
                loss_sum = float(forward(job, worker, engine, micro)[0])
                losses.append(loss_sum / counted if (counted := counted_in(job, micro)) else None)
    return first_step, losses


def _stop_before(engine: Any, batch: StepBatch, loss_of: Any) -> None:
    """Where --local stops: `engine.module.causal_lm` is the model, `batch.micro_batches` has a row each, and
    `loss_of(batch.micro_batches[0])` is the loss of the first, summed over its supervised tokens (or pairs)."""
    log.info(_stop_before.__doc__)
    breakpoint()  # noqa: T100 -- what the user asked for


def _nearest(run: RunLayout, step: int) -> Manifest | None:
    """The newest checkpoint before a step."""
    steps = {found for name in storage.list_folders(run.checkpoints) if (found := step_of(name)) is not None}
    return checkpoint.newest_whole(run, passing_over={each for each in steps if each >= step})


def _mean_loss(job: "Job", batch: StepBatch, losses: Sequence[float | None]) -> float | None:
    """The step's loss per supervised token or pair, from its rows'."""
    from scaletrain.train.step import counted_in

    if all(loss is None for loss in losses):
        return None
    counted = [(loss, counted_in(job, micro)) for loss, micro in zip(losses, batch.micro_batches, strict=True)]
    return sum(loss * count for loss, count in counted if loss is not None) / sum(count for _, count in counted)


def _badness(loss: float) -> float:
    """What is not finite is worse than any number."""
    return loss if math.isfinite(loss) else math.inf
