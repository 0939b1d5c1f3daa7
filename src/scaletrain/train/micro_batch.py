"""What "auto" stands for: how many rows at once, and how much gradient checkpointing, settled before the run begins.

`train.micro_batch_size: auto` is as many rows as fit, `model.gradient_checkpointing: auto` the least recomputing with
which the micro batch fits (of both: with which one row does, then as many as fit with it). The forecast
(plan/memory.py) says what may fit; on a GPU a probe then makes the forward and backward pass of one full micro batch,
and where that runs out of memory, or would with the states of the whole run beside it, the next way is tried. A run
keeps its rows for life. It is all no part of the mathematics: any choice gives the same updates.
"""

import gc
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from scaletrain import storage
from scaletrain.config import Config, WorkerRange
from scaletrain.config_file import load_config
from scaletrain.config_recomputing import Recomputing, as_written
from scaletrain.container_limits import memory_limit_bytes
from scaletrain.errors import ConfigError
from scaletrain.log import get_logger, setup_logging
from scaletrain.model.settings import read_settings
from scaletrain.model.shape import ModelShape, shape_of
from scaletrain.plan.choices import automatic_ways, micro_batches
from scaletrain.plan.forecast import shown, way_of
from scaletrain.plan.machines import Machines, this_machine
from scaletrain.plan.memory import GB, Amount, Way, forecast_memory
from scaletrain.train.job import Job

MOST_ON_CPU = 4  # more rows at once make a CPU no faster
_SPARE = 0.95  # of what is free on the GPU, for NCCL's buffers and for what fits in no gap
_PROBED_SHARE = 0.4  # of the GPU's memory, for the weights of the probe: fewer layers stand for a model that is larger

log = get_logger(__name__)


def settle(job: Job, *, on_a_worker: Callable[[Callable[[], Way]], Way]) -> Config:
    """The job's configuration without "auto": the rows that a run was begun with, and for the rest what fits first.

    How much is recomputed may be another at each start, as the machine may. `on_a_worker` runs a function where a
    worker would run, and gives back what it returns. Raises ConfigError where nothing fits.
    """
    begun = _with(job.config, rows=_stored_rows(job))
    if not _automatic(begun):
        return begun
    workers = begun.scaling.workers
    fewest, most = (workers.min, workers.max) if isinstance(workers, WorkerRange) else (workers, workers)
    if job.reader == "local":
        fewest = most = 1
    # With the fewest workers each holds most; with the most, each has to have a micro batch.
    way = way_of(begun, this_machine(), num_workers=fewest)
    way = replace(way, device=job.device, precision=job.precision)
    choose = _on_gpu if job.device == "cuda" else _on_cpu
    found = on_a_worker(partial(choose, replace(job, config=begun), way, most))
    for field in _automatic(begun):
        log.info("%s: %s", field, _value_of(found, field))
    return _with(begun, rows=found.micro_batch_size, recomputing=found.gradient_checkpointing)


def first_that_fits(
    candidates: Sequence[Way],
    *,
    settling: Sequence[str],
    forecast: Callable[[Way], Amount],
    there_bytes: int,
    measure: Callable[[Way], int | None] | None = None,
) -> Way:
    """The first way that fits into `there_bytes`; of `settling`, the fields that are "auto", messages speak.

    Without `measure` the upper bound of the forecast has to fit. With it, whatever may fit by the lower bound is
    measured: the bytes it takes, or None where it ran out of memory. Raises ConfigError where nothing fits.
    """
    for way in candidates:
        expected = forecast(way)
        if measure is None:
            if expected.high <= there_bytes:
                return way
            continue
        if expected.low > there_bytes:
            continue
        taken = measure(way)
        if taken is not None and taken <= there_bytes:
            return way
        tried = ", ".join(f"{field}={_value_of(way, field)}" for field in settling)
        log.info("%s does not fit: %s", tried, _taken(taken, there_bytes))
    last = candidates[-1]
    rows = "1 row fits" if last.micro_batch_size == 1 else f"{last.micro_batch_size} rows fit"
    raise ConfigError(
        f"{settling[0]}=auto: not even {rows} with gradient_checkpointing={as_written(last.gradient_checkpointing)}: a "
        f"worker needs {shown(forecast(last))} and has {there_bytes / GB:.1f} GB; `scaletrain plan CONFIG` says which "
        "ways fit, or give a value"
    )


def _automatic(config: Config) -> list[str]:
    """The fields that are "auto"."""
    fields = {
        "train.micro_batch_size": config.train.micro_batch_size,
        "model.gradient_checkpointing": config.model.gradient_checkpointing,
    }
    return [name for name, value in fields.items() if value == "auto"]


def _value_of(way: Way, field: str) -> str:
    is_rows = field == "train.micro_batch_size"
    return str(way.micro_batch_size) if is_rows else as_written(way.gradient_checkpointing)


def _taken(taken: int | None, there_bytes: int) -> str:
    return "out of memory" if taken is None else f"{taken / GB:.1f} of {there_bytes / GB:.1f} GB"


def _stored_rows(job: Job) -> int | None:
    """What the run was begun with, if it was, and the number is not given."""
    if job.config.train.micro_batch_size != "auto" or not storage.exists(job.run.config):
        return None
    rows = load_config(job.run.config, ()).train.micro_batch_size
    return None if rows == "auto" else rows


def _with(config: Config, *, rows: int | None = None, recomputing: Recomputing | None = None) -> Config:
    if rows is not None:
        config = config.model_copy(update={"train": config.train.model_copy(update={"micro_batch_size": rows})})
    if recomputing is not None:
        section = config.model.model_copy(update={"gradient_checkpointing": recomputing})
        config = config.model_copy(update={"model": section})
    return config


def _on_cpu(job: Job, way: Way, most_workers: int) -> Way:
    """By the forecast alone: all workers that one machine would have at once share its memory."""
    shape = shape_of(read_settings(job.model_url), source=job.model_url)
    machine = Machines("this machine", 0, None, 0, 1, memory_limit_bytes(), None)
    readers = most_workers // way.sequence_parallel
    rows = micro_batches(job.config.train.global_batch_size, num_workers=readers, most=MOST_ON_CPU)
    return first_that_fits(
        automatic_ways(job.config, way, rows=rows),
        settling=_automatic(job.config),
        forecast=lambda each: forecast_memory(shape, each).on_host,
        there_bytes=machine.usable_host_bytes // most_workers,
    )


# ---- on a GPU --------------------------------------------------------------------------------------------------------


def _on_gpu(job: Job, way: Way, most_workers: int) -> Way:
    """By probes on this process's GPU."""
    import torch

    setup_logging()
    storage.configure(job.config.storage.root, job.config.storage.options)
    torch.cuda.init()  # type: ignore[no-untyped-call]
    there_bytes = int(_SPARE * torch.cuda.mem_get_info()[0])
    settings = dict(read_settings(job.model_url))
    shape = shape_of(settings, source=job.model_url)
    probed = _fewer_layers(settings, shape, way, there_bytes)
    readers = most_workers // way.sequence_parallel
    rows = micro_batches(job.config.train.global_batch_size, num_workers=readers)
    return first_that_fits(
        automatic_ways(job.config, way, rows=rows),
        settling=_automatic(job.config),
        forecast=lambda each: forecast_memory(shape, each).allocated,
        there_bytes=there_bytes,
        measure=partial(_measure, job, shape, probed),
    )


def _fewer_layers(settings: dict[str, Any], shape: ModelShape, way: Way, there_bytes: int) -> dict[str, Any]:
    """The configuration to probe: the model's own, or that of as many of its layers as leave room for activations."""
    element = 2 if way.precision == "bf16" else 4
    if element * shape.numel <= _PROBED_SHARE * there_bytes:
        return settings
    outside = shape.numel - _in_layers(shape)
    a_layer = max(1, _in_layers(shape) // shape.num_layers)
    layers = max(1, int((_PROBED_SHARE * there_bytes / element - outside) / a_layer))
    fewer = {**settings, "num_hidden_layers": min(layers, shape.num_layers)}
    if isinstance(settings.get("layer_types"), list):
        fewer["layer_types"] = settings["layer_types"][: fewer["num_hidden_layers"]]
    return fewer


def _in_layers(shape: ModelShape) -> int:
    return sum(each.numel for each in shape.parameters if ".layers." in each.name or ".h." in each.name)


def _measure(job: Job, shape: ModelShape, probed: dict[str, Any], way: Way) -> int | None:
    """Bytes that a worker of the run would take in this way: the states' forecast and a pass that is measured."""
    import torch

    whole, part = forecast_memory(shape, way), forecast_memory(shape_of(probed), way)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    model: Any = None
    try:
        model = probe_model(job, probed, recomputing=way.gradient_checkpointing)
        weights = torch.cuda.memory_allocated() - before
        # What a worker that shares rows has of them: attention's part is as large, of more tokens and fewer heads.
        own_tokens = way.seq_len // way.sequence_parallel
        make_a_pass(model, rows=way.micro_batch_size, seq_len=own_tokens)
        measured = torch.cuda.max_memory_allocated() - before - weights
    except torch.OutOfMemoryError:
        return None
    finally:
        model = None
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    passing = "activations", "logits and loss"
    grows = sum(whole.device[name].middle for name in passing) / sum(part.device[name].middle for name in passing)
    return int(whole.states.on_device + whole.device["buffers"].high + measured * grows)


def probe_model(job: Job, settings: dict[str, Any], *, recomputing: Recomputing) -> Any:
    """A model of the run's shape, kernels and precision on the worker's device, with random weights.

    Whole ones stand for a base in 4 bits: a layer keeps as much for its backward pass, and the matrix that is made
    whole for a product is in the forecast's buffers.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from scaletrain.model.attention_choice import attention_name
    from scaletrain.model.build import add_adapters
    from scaletrain.model.kernels import use_kernels
    from scaletrain.model.loss import LossModel
    from scaletrain.model.recomputing import recompute

    config: Any = AutoConfig.for_model(**settings)
    dtype = torch.bfloat16 if job.precision == "bf16" and job.config.zero.stage > 0 else torch.float32
    attention = attention_name(config, job.attention)
    build: Any = AutoModelForCausalLM
    with torch.device(job.device):
        model = build.from_config(config, dtype=dtype, attn_implementation=attention)
    model.config.use_cache = False
    use_kernels(model, job.kernels)
    recompute(model, recomputing)
    if job.config.model.lora is not None:
        model = add_adapters(model, job.config.model.lora, seed=0)
    return LossModel(model.train(), autocast=torch.bfloat16 if job.autocasts else None)


def make_a_pass(model: Any, *, rows: int, seq_len: int) -> None:
    """Forward and backward of one full micro batch, every token supervised; gradients go as soon as they are made.

    That is what ZeRO does with them: it moves each into its bucket, which the forecast counts.
    """
    import torch

    parameters = [each for each in model.parameters() if each.requires_grad]
    device = parameters[0].device
    for each in parameters:
        each.register_post_accumulate_grad_hook(_forget_gradient)
    ids = torch.zeros((rows, seq_len), dtype=torch.long)
    positions = torch.arange(seq_len).expand(rows, seq_len).contiguous()
    loss = model(input_ids=ids.to(device), labels=ids, positions=positions.to(device), documents=torch.ones_like(ids))
    loss.backward()


def _forget_gradient(parameter: Any) -> None:
    parameter.grad = None
