"""A plan as a person reads it in a terminal."""

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING

from scaletrain.config_model import quantizes
from scaletrain.config_recomputing import as_written
from scaletrain.goodput import readable
from scaletrain.plan.compute import Band
from scaletrain.plan.forecast import Forecast, shown
from scaletrain.plan.memory import GB, Amount, Way
from scaletrain.plan.planning import Plan
from scaletrain.price_table import OLD_AFTER_DAYS

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

_COLOURS = {"fits": "green", "may fit": "yellow", "does not fit": "red"}


def plan_display(plan: Plan, *, today: date) -> "RenderableType":
    """The whole plan: memory by part, the ways beside the configured one, machines compared, money."""
    from rich.console import Group
    from rich.text import Text

    shown_parts: list[RenderableType] = [Text(_heading(plan)), _memory_table(plan.configured)]
    shown_parts += [Text("\n".join(_configured_lines(plan.configured))), _ways_table(plan), Text(_advice(plan))]
    if plan.compared:
        shown_parts.append(_machines_table([plan.best or plan.configured, *plan.compared]))
    shown_parts.append(Text("\n".join(f"note: {line}" for line in (*plan.notes, *_prices_lines(plan, today)))))
    return Group(*shown_parts)


def settings_of(way: Way) -> str:
    """What to write behind CONFIG for a way, as on the command line."""
    offload = {True: "cpu", False: "none"}
    words = [
        f"zero.stage={way.stage}",
        f"zero.offload_optimizer={offload[way.offload_optimizer]}",
        f"zero.offload_parameters={offload[way.offload_parameters]}",
        f"model.gradient_checkpointing={as_written(way.gradient_checkpointing)}",
        f"train.micro_batch_size={way.micro_batch_size}",
    ]
    if way.lora is not None:
        quantization = f", quantization: {way.lora.quantization}" if quantizes(way.lora) else ""
        words.append(f"model.lora={{rank: {way.lora.rank}{quantization}}}")
    return " ".join(f"'{word}'" if " " in word else word for word in words)


def seconds(band: Band | None) -> str:
    """Two bounds of a time, as a person reads them."""
    return "unknown" if band is None else _span(band, "s")


def _heading(plan: Plan) -> str:
    way, machines = plan.configured.way, plan.configured.machines
    billions = plan.shape.numel / GB
    count = machines.count(way.num_workers)
    work = "an unknown number of steps" if plan.work.steps is None else f"{plan.work.steps:,} steps"
    tokens = "" if plan.work.tokens is None else f", {plan.work.tokens:,.0f} tokens"
    return (
        f"{plan.name}: {plan.model} ({plan.shape.model_type}, {billions:,.3f} billion parameters)\n"
        f"{work} of {plan.work.rows} rows of {way.seq_len}{tokens}, from {plan.work.origin}\n"
        f"{_workers(way.num_workers)} on {count} x {machines.name}"
        + (f" ({machines.gpus} x {machines.gpu})" if machines.gpus else "")
    )


def _memory_table(forecast: Forecast) -> "Table":
    from rich.table import Table

    memory, way, machines = forecast.memory, forecast.way, forecast.machines
    table = Table("one worker's memory", "between", "and", title=f"As configured: {_named(way)}", title_justify="left")
    for where, parts in (("GPU", memory.device), ("host", memory.host)):
        for name, part in parts.items():
            if part.high:
                table.add_row(f"{where}: {name}", *_two(part))
        if parts:
            table.add_row(f"{where}: together", *_two(memory.on_device if where == "GPU" else memory.on_host))
            table.add_section()
    if way.device == "cuda":
        there = machines.usable_gpu_bytes
        table.add_row(f"{machines.gpu} has", f"{there / GB:.2f} GB", "")
    together = machines.workers_here(way.num_workers)
    table.add_row(f"host has, for {_workers(together)}", f"{machines.usable_host_bytes / GB:.2f} GB", "")
    return table


def _configured_lines(forecast: Forecast) -> list[str]:
    saving, cost = forecast.saving, forecast.cost
    lines = [f"it {forecast.verdict}" + (f"; {forecast.why}" if forecast.why else "")]
    lines.append(f"a step: {seconds(forecast.step.total_s if forecast.step else None)}")
    if forecast.step and forecast.step.mfu:
        lines[1] += f" (at {forecast.step.mfu.low:.0%} to {forecast.step.mfu.high:.0%} of the GPUs' peak)"
    lines.append(
        f"a checkpoint: {saving.size_bytes / GB:,.2f} GB, stalls {seconds(saving.stall_s)}, "
        f"uploads in {seconds(saving.upload_s)}; every {saving.every_steps} steps"
        + (f" is every {seconds(saving.interval_s)}" if saving.interval_s else "")
    )
    if saving.best_every_steps is not None and forecast.machines.instance_type is not None:
        expected = f", with {_few(saving.losses)} machines lost on spot" if saving.losses else ""
        lines.append(f"the best interval on spot: {saving.best_every_steps:,} steps (Young, Daly){expected}")
    if cost is not None and forecast.machines.instance_type is None:  # one's own has no markets
        unknown = "; budget.usd_per_machine_hour says what an hour costs" if cost.on_demand_usd is None else ""
        lines += [f"the run: {_hours(cost.hours)}", f"money: {_usd(cost.on_demand_usd)}{unknown}"]
    elif cost is not None:
        lines.append(f"the run: {_hours(cost.hours)} on demand, {_hours(cost.spot_hours)} on spot")
        lines.append(f"money: {_usd(cost.on_demand_usd)} on demand, {_usd(cost.spot_usd)} on spot")
        if cost.storage_usd is not None and cost.storage_usd_per_month is not None and cost.egress_usd is not None:
            lines.append(
                f"checkpoints kept: {_usd(cost.storage_usd)} while it runs, {cost.storage_usd_per_month:,.2f} USD a "
                f"month after it; the model taken out of the cloud: {cost.egress_usd:,.2f} USD"
            )
    return lines


def _ways_table(plan: Plan) -> "Table":
    from rich.table import Table

    table = Table("", "way", "rows", "a worker", "step", "USD", "why", title="Other ways to the same model")
    table.title_justify = "left"
    for each in plan.forecasts:
        mark = "=" if each is plan.configured else ">" if each is plan.best else ""
        memory = each.memory.on_device if each.way.device == "cuda" else each.memory.on_host
        table.add_row(
            mark,
            _named(each.way),
            str(each.way.micro_batch_size),
            shown(memory),
            seconds(each.step.total_s if each.step else None),
            "-" if each.usd is None else f"{each.usd:,.2f}",
            f"[{_COLOURS[each.verdict]}]{each.verdict}[/]" + (f": {each.why}" if each.why else ""),
        )
    table.caption, table.caption_justify = "= as configured, > the cheapest that fits", "left"
    return table


def _advice(plan: Plan) -> str:
    if plan.best is None:
        return "nothing of this fits: take more workers, GPUs with more memory, a smaller model or a shorter seq_len"
    if plan.best is plan.configured:
        return "the configuration is the cheapest way that fits"
    return f"the cheapest way that fits: {settings_of(plan.best.way)}"


def _machines_table(forecasts: Sequence[Forecast]) -> "Table":
    from rich.table import Table

    table = Table("machines", "GPUs", "way", "rows", "fits", "step", "hours", "USD on demand", "USD on spot")
    table.title, table.title_justify = "Machine types compared, the best way on each", "left"
    for each in sorted(forecasts, key=lambda one: (one.verdict != "fits", one.usd is None, one.usd or 0.0)):
        cost, machines = each.cost, each.machines
        table.add_row(
            f"{machines.count(each.way.num_workers)} x {machines.name}",
            f"{each.way.num_workers} x {machines.gpu}" if machines.gpus else "-",
            _named(each.way),
            str(each.way.micro_batch_size),
            f"[{_COLOURS[each.verdict]}]{each.verdict}[/]",
            seconds(each.step.total_s if each.step else None),
            "-" if cost is None else _span(cost.hours, ""),
            "-" if cost is None else _usd(cost.on_demand_usd),
            "-" if cost is None else _usd(cost.spot_usd),
        )
    return table


def _prices_lines(plan: Plan, today: date) -> list[str]:
    if plan.prices_as_of is None:
        return ["no price is from a table: none is known for these machines, or the configuration gives its own"]
    age_days = (today - plan.prices_as_of).days
    old = f", {age_days} days old: `scaletrain prices refresh` asks the cloud" if age_days > OLD_AFTER_DAYS else ""
    return [f"prices: the oldest is of {plan.prices_as_of.isoformat()}{old}"]


def _named(way: Way) -> str:
    """A way in a few words."""
    words = [f"ZeRO-{way.stage}"]
    if way.offload_parameters:
        words.append("all offloaded")
    elif way.offload_optimizer:
        words.append("optimizer offloaded")
    if way.gradient_checkpointing == "selective":
        words.append("selective checkpointing")
    elif way.gradient_checkpointing:
        whole = way.gradient_checkpointing >= 1
        words.append("checkpointing" if whole else f"checkpointing of {way.gradient_checkpointing:.0%} of layers")
    words += ["8-bit AdamW"] if way.optimizer == "adamw_8bit" else []
    words += [f"LoRA {way.lora.rank}" + (" over 4 bits" if quantizes(way.lora) else "")] if way.lora else []
    return ", ".join(words)


def _two(amount: Amount) -> tuple[str, str]:
    low, high = f"{amount.low / GB:,.2f} GB", f"{amount.high / GB:,.2f} GB"
    return (low, "exact") if amount.low == amount.high else (low, high)


def _hours(band: Band) -> str:
    low, high = (readable(3600 * each) or f"{3600 * each:.0f} s" for each in (band.low, band.high))
    return f"{low} to {high}"


def _workers(count: int) -> str:
    return "1 worker" if count == 1 else f"{count} workers"


def _usd(band: Band | None) -> str:
    return "unknown" if band is None else f"{_few(band)} USD"


def _few(band: Band) -> str:
    """Two bounds of something of which less than a hundredth is nothing."""
    if band.high < 0.01:
        return "less than 0.01"
    low, high = (f"{each:,.0f}" if each >= 100 else f"{each:.2f}" for each in (band.low, band.high))
    return f"{low} to {high}" if low != high else low


def _span(band: Band, unit: str) -> str:
    low, high = (f"{each:,.0f}" if each >= 100 else f"{each:.3g}" for each in (band.low, band.high))
    return f"{low} to {high} {unit}".strip() if low != high else f"{low} {unit}".strip()
