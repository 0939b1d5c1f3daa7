"""A whole plan: the configured way, the ways beside it, the machines beside the chosen ones; and as plain data."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from functools import partial
from typing import Any

from scaletrain.config import Config, WorkerRange
from scaletrain.model.settings import read_shape
from scaletrain.model.shape import ModelShape, count
from scaletrain.plan import choices
from scaletrain.plan.compute import Band
from scaletrain.plan.forecast import Forecast, forecast, way_of
from scaletrain.plan.machines import Machines, comparable
from scaletrain.plan.memory import Amount, Memory, Way
from scaletrain.plan.money import Cost, MachinePrices, Saving
from scaletrain.plan.work import Work, work_of
from scaletrain.price_table import Market, load_price_table

_MOST_TIMES_THE_WORKERS = 8  # how many more workers are tried on smaller GPUs
VERSION = 1


@dataclass(frozen=True)
class Plan:
    """What a run needs and costs; `forecasts[0]` is the way that is configured, the others train the same.

    `compared` has the best way on each other kind of machine. `notes` says what was assumed, and what is unknown.
    """

    name: str
    model: str
    shape: ModelShape
    work: Work
    forecasts: tuple[Forecast, ...]
    best: Forecast | None
    compared: tuple[Forecast, ...]
    notes: tuple[str, ...]
    prices_as_of: date | None
    made: str

    @property
    def configured(self) -> Forecast:
        """The forecast of the configuration as it is."""
        return self.forecasts[0]

    def record(self) -> dict[str, Any]:
        """The plan as plain data: seconds, bytes, US dollars; two bounds are {low, high}."""
        totals = count(self.shape, self.configured.way.lora)
        return {
            "version": VERSION,
            "name": self.name,
            "made": self.made,
            "model": {
                "source": self.model,
                "type": self.shape.model_type,
                "parameters": self.shape.numel,
                "trained": totals.trained,
            },
            "work": {
                "steps": self.work.steps,
                "rows": self.work.rows,
                "tokens": self.work.tokens,
                "supervised_share": self.work.supervised_share,
                "origin": self.work.origin,
            },
            "configured": forecast_record(self.configured),
            "best": None if self.best is None else forecast_record(self.best),
            "alternatives": [forecast_record(each) for each in self.forecasts[1:]],
            "machines": [forecast_record(each) for each in self.compared],
            "notes": list(self.notes),
            "prices_as_of": None if self.prices_as_of is None else self.prices_as_of.isoformat(),
        }


def make_plan(
    config: Config,
    machines: Machines,
    *,
    num_workers: int | None = None,
    beside: Sequence[Machines] | None = None,
    prices: MachinePrices | None = None,
) -> Plan:
    """Plan a run; `beside` are other machines to compare (by default one for each kind of GPU that is known).

    Reads at most the model's config.json and the dataset's index. Raises ModelError, ConfigError.
    """
    shape, work = read_shape(config.model, root=config.storage.root), work_of(config)
    prices = prices or prices_of(config)
    way = way_of(config, machines, num_workers=num_workers)
    if beside is None:
        beside = comparable(way.num_workers) if way.device == "cuda" else ()
    return plan_for(config, shape, way, machines, work=work, beside=beside, prices=prices)


def prices_of(config: Config) -> MachinePrices:
    """The prices that a configuration names, else the package's. Raises ConfigError."""
    return MachinePrices(load_price_table(config.budget.prices), config.budget.usd_per_machine_hour)


def plan_for(
    config: Config,
    shape: ModelShape,
    way: Way,
    machines: Machines,
    *,
    work: Work,
    beside: Sequence[Machines],
    prices: MachinePrices,
) -> Plan:
    """The plan of a model whose shape is known."""
    look = _looking(config, shape, machines, work, prices)
    rows = choices.micro_batches(work.rows, num_workers=way.num_workers)
    configured = choices.first_that_fits(choices.automatic_ways(config, way, rows=rows), look)
    others = choices.alternatives(way, look, global_batch_size=work.rows, kernels=config.model.kernels)
    ways = (configured, *(each for each in others if each.way != configured.way))
    compared = []
    for other in beside:
        if other.name != machines.name:
            on_other = _looking(config, shape, other, work, prices)
            compared.append(_best_on(way, on_other, work.rows, kernels=config.model.kernels))
    return Plan(
        name=config.name,
        model=config.model.source or "init: random",
        shape=shape,
        work=work,
        forecasts=ways,
        best=choices.best(list(ways)),
        compared=tuple(compared),
        notes=(*_notes(configured, shape, work), *_notes_of_fewest(config, configured, look)),
        prices_as_of=_oldest_price([configured, *compared], prices),
        made=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _looking(
    config: Config, shape: ModelShape, machines: Machines, work: Work, prices: MachinePrices
) -> Callable[[Way], Forecast]:
    return partial(_look, config, shape, machines, work, prices)


def _look(
    config: Config, shape: ModelShape, machines: Machines, work: Work, prices: MachinePrices, way: Way
) -> Forecast:
    return forecast(shape, way, machines, work=work, section=config.checkpoint, prices=prices)


def _best_on(way: Way, look: Callable[[Way], Forecast], rows: int, *, kernels: str) -> Forecast:
    """The best way on other machines: with as many workers, or on smaller GPUs with more, until it fits."""
    times, found = 1, None
    most = max(rows * way.sequence_parallel, way.num_workers)
    while times <= _MOST_TIMES_THE_WORKERS and way.num_workers * times <= most:
        more = replace(way, num_workers=way.num_workers * times, device="cuda")
        ways = choices.alternatives(more, look, global_batch_size=rows, kernels=kernels)
        best = choices.best(ways)
        if best is not None and best.way.lora == way.lora:
            return best
        found = found or min(ways, key=lambda each: each.memory.on_device.low)
        times *= 2
    assert found is not None
    return found


def _oldest_price(forecasts: Sequence[Forecast], prices: MachinePrices) -> date | None:
    """The day of the oldest price that the plan is made with."""
    days = []
    for each in forecasts:
        machines = each.machines
        markets: tuple[Market, ...] = ("on-demand", "spot")
        for market in markets if machines.instance_type and prices.flat is None else ():
            row = prices.table.row(machines.instance_type or "", market, region=machines.region)
            days += [row[1].as_of] if row else []
    return min(days, default=None)


def _notes(configured: Forecast, shape: ModelShape, work: Work) -> list[str]:
    notes = []
    if work.steps is None:
        notes.append("hours and money are unknown: train.epochs is counted once `scaletrain prepare` has run")
    if configured.step is None:
        notes.append("the step's time is unknown: no peak is known for this GPU")
    if shape.is_mixture:
        notes.append("a mixture of experts: states are exact; activations and FLOPs are counted as if it were dense")
    machines = configured.machines
    if configured.way.device == "cuda" and machines.network_bytes_per_s is None and configured.way.num_workers > 1:
        notes.append("the network between machines is unknown: 1 to 10 Gbit/s were assumed")
    return notes


def _notes_of_fewest(config: Config, configured: Forecast, look: Callable[[Way], Forecast]) -> list[str]:
    """What becomes of memory when an elastic run has shrunk to its fewest workers."""
    workers = config.scaling.workers
    if not isinstance(workers, WorkerRange) or workers.min >= configured.way.num_workers:
        return []
    fewest = look(replace(configured.way, num_workers=workers.min))
    if fewest.verdict == configured.verdict:
        return []
    return [f"with scaling.workers.min={workers.min} workers it {fewest.verdict}: {fewest.why}"]


# ---- as plain data ---------------------------------------------------------------------------------------------------


def forecast_record(each: Forecast) -> dict[str, Any]:
    """One forecast as plain data."""
    way = each.way
    return {
        "machine": each.machines.name,
        "machines": each.machines.count(way.num_workers),
        "workers": way.num_workers,
        "device": way.device,
        "precision": way.precision,
        "zero_stage": way.stage,
        "offload_optimizer": way.offload_optimizer,
        "offload_parameters": way.offload_parameters,
        "gradient_checkpointing": way.gradient_checkpointing,
        "optimizer": way.optimizer,
        "lora_rank": way.lora.rank if way.lora else None,
        "quantization": way.lora.quantization if way.lora else None,
        "micro_batch_size": way.micro_batch_size,
        "seq_len": way.seq_len,
        "sequence_parallel": way.sequence_parallel,
        "verdict": each.verdict,
        "why": each.why,
        "memory": _memory_record(each.memory, way),
        "step_s": band_record(each.step.total_s if each.step else None),
        "mfu": band_record(each.step.mfu if each.step else None),
        "saving": _saving_record(each.saving),
        "cost": None if each.cost is None else _cost_record(each.cost),
    }


def _memory_record(memory: Memory, way: Way) -> dict[str, Any]:
    parts = {
        "device": {name: amount_record(part) for name, part in memory.device.items()},
        "host": {name: amount_record(part) for name, part in memory.host.items()},
        "on_device": amount_record(memory.on_device),
        "on_host": amount_record(memory.on_host),
    }
    return parts | {"measured_as": amount_record(memory.allocated if way.device == "cuda" else memory.on_host)}


def _saving_record(saving: Saving) -> dict[str, Any]:
    return {
        "size_bytes": saving.size_bytes,
        "stall_s": band_record(saving.stall_s),
        "upload_s": band_record(saving.upload_s),
        "every_steps": saving.every_steps,
        "interval_s": band_record(saving.interval_s),
        "best_every_steps": saving.best_every_steps,
        "interruptions": band_record(saving.losses),
    }


def _cost_record(cost: Cost) -> dict[str, Any]:
    return {
        "hours": band_record(cost.hours),
        "spot_hours": band_record(cost.spot_hours),
        "on_demand_usd": band_record(cost.on_demand_usd),
        "spot_usd": band_record(cost.spot_usd),
        "on_demand_usd_per_hour": cost.on_demand_usd_per_hour,
        "spot_usd_per_hour": cost.spot_usd_per_hour,
        "storage_usd": band_record(cost.storage_usd),
        "storage_usd_per_month": cost.storage_usd_per_month,
        "egress_usd": cost.egress_usd,
    }


def band_record(band: Band | None) -> dict[str, float] | None:
    """Two bounds as plain data."""
    return None if band is None else {"low": band.low, "high": band.high}


def amount_record(amount: Amount) -> dict[str, int]:
    """Bytes as plain data."""
    return {"low": amount.low, "high": amount.high}
