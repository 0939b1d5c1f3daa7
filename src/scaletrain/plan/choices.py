"""The ways to train the same model: which of them fit, the cheapest of those, and why the others do not.

The mathematics of a run stays what it is in all of them. LoRA, which trains something else, is looked at only where
nothing fits, and is called by its name.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

from scaletrain.config import LoraSection
from scaletrain.plan.forecast import Forecast
from scaletrain.plan.memory import Way

_MOST_ROWS = 64  # more rows at once make no step faster

Look = Callable[[Way], Forecast]


def alternatives(way: Way, look: Look, *, global_batch_size: int) -> list[Forecast]:
    """Every combination of ZeRO stage, offload and gradient checkpointing, each with the most rows that fit."""
    found = [largest_micro_batch(each, look, global_batch_size=global_batch_size) for each in _combinations(way)]
    if way.lora is None and all(each.verdict == "does not fit" for each in found):
        lora = LoraSection()  # type: ignore[call-arg]
        for checkpointing in (False, True):
            adapted = replace(way, lora=lora, stage=2, gradient_checkpointing=checkpointing)
            adapted = replace(adapted, offload_optimizer=False, offload_parameters=False)
            found.append(largest_micro_batch(adapted, look, global_batch_size=global_batch_size))
            partitioned = replace(adapted, stage=3)
            if way.num_workers > 1:
                found.append(largest_micro_batch(partitioned, look, global_batch_size=global_batch_size))
    return found


def best(forecasts: list[Forecast]) -> Forecast | None:
    """The cheapest that fits, else the cheapest that may fit; by time where prices are unknown, else by memory."""
    for verdict in ("fits", "may fit"):
        candidates = [each for each in forecasts if each.verdict == verdict]
        if candidates:
            return min(candidates, key=_rank)
    return None


def largest_micro_batch(way: Way, look: Look, *, global_batch_size: int) -> Forecast:
    """The forecast of a way with the most rows at once that fit; with the fewest, where none do.

    Rows divide the global batch, and leave a micro batch for every worker.
    """
    last = None
    for rows in micro_batches(global_batch_size, num_workers=way.readers):
        last = look(replace(way, micro_batch_size=rows))
        if last.verdict == "fits":
            return last
    assert last is not None
    return last


def micro_batches(global_batch_size: int, *, num_workers: int, most: int = _MOST_ROWS) -> list[int]:
    """The numbers of rows that a micro batch may have, the most first; workers that share rows count as one."""
    room = max(1, min(most, global_batch_size // num_workers))
    return [rows for rows in range(room, 0, -1) if global_batch_size % rows == 0]


def _combinations(way: Way) -> Iterator[Way]:
    """From the fastest on; on a CPU there is nowhere to offload to, and with one worker nothing to partition."""
    for checkpointing in (False, True):
        for stage in (0, 1, 2, 3):
            if way.num_workers == 1 and stage in (1, 3) and way.stage != stage:
                continue  # the same as ZeRO 2, but dearer
            if stage == 0 and way.precision == "bf16" and way.stage != 0:
                continue  # autocast rounds elsewhere than bf16 weights do
            plain = replace(
                way,
                stage=stage,
                gradient_checkpointing=checkpointing,
                offload_optimizer=False,
                offload_parameters=False,
            )
            yield plain
            if way.device == "cuda" and stage >= 2:
                yield replace(plain, offload_optimizer=True)
        if way.device == "cuda":
            yield replace(
                way, stage=3, gradient_checkpointing=checkpointing, offload_optimizer=True, offload_parameters=True
            )


def _rank(forecast: Forecast) -> tuple[float, float, float]:
    time_s = forecast.step.total_s.middle if forecast.step else 0.0
    usd = forecast.usd if forecast.usd is not None else 0.0
    return usd, time_s, forecast.memory.on_device.middle + forecast.memory.on_host.middle
