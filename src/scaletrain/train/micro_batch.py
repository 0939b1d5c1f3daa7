"""`train.micro_batch_size: auto`: as many rows at once as fit, settled before the run begins and stored with it.

The forecast (plan/memory.py) says what may fit; on a GPU a probe then makes the forward and backward pass of one full
micro batch, and where that runs out of memory, or would with the states of the whole run beside it, fewer rows are
tried. It is no part of the mathematics: any number gives the same updates.
"""

import gc
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from scaletrain import storage
from scaletrain.config import Config, WorkerRange
from scaletrain.config_file import load_config
from scaletrain.container_limits import memory_limit_bytes
from scaletrain.errors import ConfigError
from scaletrain.layout import RunLayout
from scaletrain.log import get_logger, setup_logging
from scaletrain.model.settings import read_settings
from scaletrain.model.shape import ModelShape, shape_of
from scaletrain.plan.choices import micro_batches
from scaletrain.plan.forecast import shown, way_of
from scaletrain.plan.machines import Machines, this_machine
from scaletrain.plan.memory import GB, Amount, Way, forecast_memory
from scaletrain.train.job import Job

MOST_ON_CPU = 4  # more rows at once make a CPU no faster
_SPARE = 0.95  # of what is free on the GPU, for NCCL's buffers and for what fits in no gap
_PROBED_SHARE = 0.4  # of the GPU's memory, for the weights of the probe: fewer layers stand for a model that is larger

log = get_logger(__name__)


def settle(job: Job, *, on_a_worker: Callable[[Callable[[], int]], int]) -> Config:
    """The job's configuration with a number for the micro batch: the stored one of a run that has begun, else the most.

    `on_a_worker` runs a function where a worker would run, and gives back what it returns. Raises ConfigError where not
    even one row fits.
    """
    if job.config.train.micro_batch_size != "auto":
        return job.config
    rows = _stored(job.run)
    if rows is None:
        workers = job.config.scaling.workers
        fewest, most = (workers.min, workers.max) if isinstance(workers, WorkerRange) else (workers, workers)
        if job.reader == "local":
            fewest = most = 1
        # With the fewest workers each holds most; with the most, each has to have a micro batch.
        way = way_of(job.config, this_machine(), num_workers=fewest)
        way = replace(way, device=job.device, precision=job.precision)
        choose = _on_gpu if job.device == "cuda" else _on_cpu
        rows = on_a_worker(partial(choose, job, way, most))
        log.info("train.micro_batch_size: %d rows at once", rows)
    section = job.config.train.model_copy(update={"micro_batch_size": rows})
    return job.config.model_copy(update={"train": section})


def largest(
    candidates: Sequence[int],
    *,
    forecast: Callable[[int], Amount],
    there_bytes: int,
    measure: Callable[[int], int | None] | None = None,
) -> int:
    """The most rows that fit into `there_bytes`; `candidates` are given with the most first.

    Without `measure` the upper bound of the forecast has to fit. With it, whatever may fit by the lower bound is
    measured: the bytes it takes, or None where it ran out of memory. Raises ConfigError where nothing fits.
    """
    for rows in candidates:
        expected = forecast(rows)
        if measure is None:
            if expected.high <= there_bytes:
                return rows
            continue
        if expected.low > there_bytes:
            continue
        taken = measure(rows)
        if taken is not None and taken <= there_bytes:
            return rows
        log.info("a micro batch of %d rows does not fit: %s", rows, _taken(taken, there_bytes))
    fewest = candidates[-1]
    raise ConfigError(
        f"train.micro_batch_size=auto: not even {fewest} row fits: a worker needs {shown(forecast(fewest))} and has "
        f"{there_bytes / GB:.1f} GB; `scaletrain plan CONFIG` says which ways fit, or give a number"
    )


def _taken(taken: int | None, there_bytes: int) -> str:
    return "out of memory" if taken is None else f"{taken / GB:.1f} of {there_bytes / GB:.1f} GB"


def _stored(run: RunLayout) -> int | None:
    """What the run was begun with."""
    if not storage.exists(run.config):
        return None
    rows = load_config(run.config, ()).train.micro_batch_size
    return None if rows == "auto" else rows


def _on_cpu(job: Job, way: Way, most_workers: int) -> int:
    """By the forecast alone: all workers that one machine would have at once share its memory."""
    shape = shape_of(read_settings(job.model_url), source=job.model_url)
    machine = Machines("this machine", 0, None, 0, 1, memory_limit_bytes(), None)
    readers = most_workers // way.sequence_parallel
    candidates = micro_batches(job.config.train.global_batch_size, num_workers=readers, most=MOST_ON_CPU)
    return largest(
        candidates,
        forecast=lambda rows: forecast_memory(shape, replace(way, micro_batch_size=rows)).on_host,
        there_bytes=machine.usable_host_bytes // most_workers,
    )


# ---- on a GPU --------------------------------------------------------------------------------------------------------


def _on_gpu(job: Job, way: Way, most_workers: int) -> int:
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
    candidates = micro_batches(job.config.train.global_batch_size, num_workers=readers)
    return largest(
        candidates,
        forecast=lambda rows: forecast_memory(shape, replace(way, micro_batch_size=rows)).allocated,
        there_bytes=there_bytes,
        measure=partial(_measure, job, way, shape, probed),
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


def _measure(job: Job, way: Way, shape: ModelShape, probed: dict[str, Any], rows: int) -> int | None:
    """Bytes that a worker of the run would take with so many rows: the states' forecast and a pass that is measured."""
    import torch

    way = replace(way, micro_batch_size=rows)
    whole, part = forecast_memory(shape, way), forecast_memory(shape_of(probed), way)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    model: Any = None
    try:
        model = probe_model(job, probed)
        weights = torch.cuda.memory_allocated() - before
        # What a worker that shares rows has of them: attention's part is as large, of more tokens and fewer heads.
        own_tokens = way.seq_len // way.sequence_parallel
        make_a_pass(model, rows=rows, seq_len=own_tokens, autocast=way.precision == "bf16" and way.stage == 0)
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


def probe_model(job: Job, settings: dict[str, Any]) -> Any:
    """A model of the run's shape, kernels and precision on the worker's device, with random weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from scaletrain.model.build import add_adapters, attention_name
    from scaletrain.model.kernels import use_kernels
    from scaletrain.model.loss import LossModel

    config: Any = AutoConfig.for_model(**settings)
    dtype = torch.bfloat16 if job.precision == "bf16" and job.config.zero.stage > 0 else torch.float32
    attention = attention_name(config, job.attention)
    build: Any = AutoModelForCausalLM
    with torch.device(job.device):
        model = build.from_config(config, dtype=dtype, attn_implementation=attention)
    model.config.use_cache = False
    use_kernels(model, job.kernels)
    if job.config.model.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if job.config.model.lora is not None:
        model = add_adapters(model, job.config.model.lora, seed=0)
    return LossModel(model.train())


def make_a_pass(model: Any, *, rows: int, seq_len: int, autocast: bool) -> None:
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
    with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
        loss = model(
            input_ids=ids.to(device), labels=ids, positions=positions.to(device), documents=torch.ones_like(ids)
        )
    loss.backward()


def _forget_gradient(parameter: Any) -> None:
    parameter.grad = None
