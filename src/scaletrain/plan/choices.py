"""The ways to train the same model: which of them fit, the cheapest of those, and why the others do not.

The mathematics of a run stays what it is in all of them. LoRA, which trains something else, is looked at only where
nothing fits; and a base in 4 bits below it only where whole weights do not fit on the device. They are called by their
names.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from scaletrain.config import Config
from scaletrain.config_model import LoraSection, quantizes
from scaletrain.model.recomputing import ladder
from scaletrain.plan.forecast import Forecast, Verdict
from scaletrain.plan.memory import Way

_MOST_ROWS = 64  # more rows at once make no step faster
_VERDICTS: tuple[Verdict, ...] = ("fits", "may fit", "does not fit")

Look = Callable[[Way], Forecast]


def alternatives(way: Way, look: Look, *, global_batch_size: int, kernels: str = "auto") -> list[Forecast]:
    """Every combination of ZeRO stage, offload and gradient checkpointing, each with the most rows that fit.

    What recomputes only a part is left out where that allows no more rows than recomputing less.
    """
    found = [
        forecast
        for each in _combinations(way)
        for forecast in _climb(each, look, global_batch_size=global_batch_size, kernels=kernels)
    ]
    plain = replace(way, stage=2, offload_optimizer=False, offload_parameters=False)
    if way.lora is None and _none_fits(found):
        adapted = replace(plain, lora=LoraSection())  # type: ignore[call-arg]
        found += _climb(adapted, look, global_batch_size=global_batch_size, kernels=kernels)
        if way.num_workers > 1 and way.optimizer == "adamw":
            found += _climb(replace(adapted, stage=3), look, global_batch_size=global_batch_size, kernels=kernels)
    on_device = [each for each in found if not (way.lora and each.way.offload_parameters)]
    if not quantizes(way.lora) and _none_fits(on_device):
        lora = way.lora or LoraSection()  # type: ignore[call-arg]
        quantized = replace(plain, lora=lora.model_copy(update={"quantization": "nf4"}))
        found += _climb(quantized, look, global_batch_size=global_batch_size, kernels=kernels)
    return found


def _none_fits(found: Sequence[Forecast]) -> bool:
    return all(each.verdict == "does not fit" for each in found)


def best(forecasts: list[Forecast]) -> Forecast | None:
    """The cheapest that fits, else the cheapest that may fit; by time where prices are unknown, else by memory."""
    for verdict in ("fits", "may fit"):
        candidates = [each for each in forecasts if each.verdict == verdict]
        if candidates:
            return min(candidates, key=_rank)
    return None


def automatic_ways(config: Config, way: Way, *, rows: Sequence[int]) -> list[Way]:
    """What "auto" chooses from, the first that fits: the least recomputing, and with it the most of `rows` at once.

    What the configuration gives for the micro batch or gradient checkpointing stays as it is.
    """
    recomputing, micro_batch_size = config.model.gradient_checkpointing, config.train.micro_batch_size
    steps = ladder(kernels=config.model.kernels, zero_stage=way.stage) if recomputing == "auto" else (recomputing,)
    sizes = rows if micro_batch_size == "auto" else (micro_batch_size,)
    return [replace(way, gradient_checkpointing=step, micro_batch_size=size) for step in steps for size in sizes]


def first_that_fits(ways: Sequence[Way], look: Look) -> Forecast:
    """The forecast of the first way that fits; of the last one, where none does."""
    for way in ways[:-1]:
        found = look(way)
        if found.verdict == "fits":
            return found
    return look(ways[-1])


def largest_micro_batch(way: Way, look: Look, *, global_batch_size: int) -> Forecast:
    """The forecast of a way with the most rows at once that fit; with the fewest, where none do.

    Rows divide the global batch, and leave a micro batch for every worker.
    """
    rows = micro_batches(global_batch_size, num_workers=way.readers)
    return first_that_fits([replace(way, micro_batch_size=each) for each in rows], look)


def micro_batches(global_batch_size: int, *, num_workers: int, most: int = _MOST_ROWS) -> list[int]:
    """The numbers of rows that a micro batch may have, the most first; workers that share rows count as one."""
    room = max(1, min(most, global_batch_size // num_workers))
    return [rows for rows in range(room, 0, -1) if global_batch_size % rows == 0]


def _combinations(way: Way) -> Iterator[Way]:
    """From the fastest on; on a CPU there is nowhere to offload to, and with one worker nothing to partition."""
    # Moments of 8 bits, and weights of 4, go with these alone.
    below_3 = way.optimizer != "adamw" or quantizes(way.lora)
    for stage in (0, 1, 2) if below_3 else (0, 1, 2, 3):
        if way.num_workers == 1 and stage in (1, 3) and way.stage != stage:
            continue  # the same as ZeRO 2, but dearer
        if stage == 0 and way.precision == "bf16" and way.stage != 0:
            continue  # autocast rounds elsewhere than bf16 weights do
        plain = replace(way, stage=stage, offload_optimizer=False, offload_parameters=False)
        yield plain
        if way.device == "cuda" and stage >= 2 and way.optimizer == "adamw":
            yield replace(plain, offload_optimizer=True)
    if way.device == "cuda" and not below_3:
        yield replace(way, stage=3, offload_optimizer=True, offload_parameters=True)


def _climb(way: Way, look: Look, *, global_batch_size: int, kernels: str) -> Iterator[Forecast]:
    """A way with nothing recomputed, with everything, and with what lies between where that brings something."""
    so_far: tuple[int, int] | None = None
    for recomputing in ladder(kernels=kernels, zero_stage=way.stage):
        found = largest_micro_batch(
            replace(way, gradient_checkpointing=recomputing), look, global_batch_size=global_batch_size
        )
        brings = (-_VERDICTS.index(found.verdict), found.way.micro_batch_size)
        if so_far is None or brings > so_far or recomputing is True:
            yield found
        so_far = max(so_far or brings, brings)


def _rank(forecast: Forecast) -> tuple[float, float, float]:
    time_s = forecast.step.total_s.middle if forecast.step else 0.0
    usd = forecast.usd if forecast.usd is not None else 0.0
    return usd, time_s, forecast.memory.on_device.middle + forecast.memory.on_host.middle
