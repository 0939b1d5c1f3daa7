"""The forecast of one way to train on one kind of machine: does it fit, how long is a step, what does it cost."""

from dataclasses import dataclass
from typing import Literal

from scaletrain.config import CheckpointSection, Config, WorkerRange
from scaletrain.devices import resolve_precision
from scaletrain.model.shape import ModelShape
from scaletrain.plan.compute import StepTime, forecast_step, step_flops
from scaletrain.plan.machines import Machines
from scaletrain.plan.memory import GB, Amount, Memory, Way, forecast_memory
from scaletrain.plan.money import Cost, MachinePrices, Saving, forecast_cost, forecast_saving
from scaletrain.plan.work import Work

Verdict = Literal["fits", "may fit", "does not fit"]


@dataclass(frozen=True)
class Forecast:
    """What to expect of one way; `why` says what does not fit, or may not."""

    way: Way
    machines: Machines
    memory: Memory
    verdict: Verdict
    why: str
    step: StepTime | None
    saving: Saving
    cost: Cost | None

    @property
    def usd(self) -> float | None:
        """What it probably costs on the market it is meant for: spot where nothing is said."""
        if self.cost is None:
            return None
        band = self.cost.on_demand_usd if self.machines.market == "on-demand" else self.cost.spot_usd
        band = band or self.cost.on_demand_usd
        return None if band is None else band.middle


def way_of(config: Config, machines: Machines, *, num_workers: int | None = None) -> Way:
    """The way that a configuration describes, on these machines; the most workers, where it has a range.

    A micro batch of "auto" counts as one row, and gradient checkpointing of "auto" as none: `choices.automatic_ways`
    has what may take their place.
    """
    workers = config.scaling.workers
    device = machines.device if config.train.device == "auto" else config.train.device
    rows, recomputing = config.train.micro_batch_size, config.model.gradient_checkpointing
    num_workers = num_workers or (workers.max if isinstance(workers, WorkerRange) else workers)
    return Way(
        stage=config.zero.stage,
        num_workers=num_workers,
        micro_batch_size=1 if rows == "auto" else rows,
        seq_len=config.data.seq_len,
        device=device,
        precision=resolve_precision(config.train.precision, device),
        offload_optimizer=config.zero.offload_optimizer == "cpu",
        offload_parameters=config.zero.offload_parameters == "cpu",
        gradient_checkpointing=False if recomputing == "auto" else recomputing,
        lora=config.model.lora,
        sequence_parallel=config.scaling.sequence_parallel if num_workers > 1 else 1,
        optimizer=config.train.optimizer,
    )


def forecast(
    shape: ModelShape, way: Way, machines: Machines, *, work: Work, section: CheckpointSection, prices: MachinePrices
) -> Forecast:
    """Everything there is to expect of one way."""
    memory = forecast_memory(shape, way, supervised_share=work.supervised_share)
    verdict, why = judge_memory(memory, way, machines)
    flops = step_flops(
        shape,
        way,
        rows=work.rows,
        tokens_per_row=work.tokens_per_row,
        supervised_share=work.likely_supervised_share,
        document_tokens=way.seq_len / 2,
    )
    step = forecast_step(shape, way, machines, global_batch_size=work.rows, flops=flops)
    step_s = step.total_s if step else None
    saving = forecast_saving(memory, way, machines, every_steps=section.every_steps, step_s=step_s, steps=work.steps)
    cost = None
    if step_s is not None and work.steps is not None:
        cost = forecast_cost(
            saving,
            way,
            machines,
            step_s=step_s,
            steps=work.steps,
            keep=section.keep,
            model_bytes=2 * shape.numel,
            prices=prices,
        )
    return Forecast(way, machines, memory, verdict, why, step, saving, cost)


def judge_memory(memory: Memory, way: Way, machines: Machines) -> tuple[Verdict, str]:
    """Hold what is needed against what there is: on a worker's GPU, and on a machine for all workers on it."""
    together = machines.workers_here(way.num_workers)
    on_host = Amount(together * memory.on_host.low, together * memory.on_host.high)
    found = [_judge("host memory", on_host, machines.usable_host_bytes, memory.host)]
    if way.device == "cuda":
        found.append(_judge(f"{machines.gpu or 'the GPU'}", memory.on_device, machines.usable_gpu_bytes, memory.device))
    order: tuple[Verdict, ...] = ("fits", "may fit", "does not fit")
    return max(found, key=lambda one: order.index(one[0]))


def _judge(where: str, needed: Amount, there_bytes: int, parts: dict[str, Amount]) -> tuple[Verdict, str]:
    if needed.high <= there_bytes:
        return "fits", ""
    largest = max(parts, key=lambda name: parts[name].middle)
    needs = f"{where}: needs {shown(needed)} of {there_bytes / GB:.1f} GB, most of it {largest}"
    return ("may fit" if needed.low <= there_bytes else "does not fit"), needs


def shown(amount: Amount) -> str:
    """Bytes as a person reads them; two numbers where there are two bounds."""
    low, high = (_rounded(each) for each in (amount.low, amount.high))
    return f"{low} GB" if low == high else f"{low} to {high} GB"


def _rounded(size_bytes: float) -> str:
    return f"{size_bytes / GB:.1f}" if size_bytes >= 0.1 * GB or size_bytes == 0 else f"{size_bytes / GB:.3f}"
