"""A group of workers tried out before a long run: how fast it reduces, and 20 steps of ZeRO-3 on a random model.

Run on the same worker group that training would get, so that a slow link, a GPU that computes wrongly or a wrong
network interface shows within two minutes and not after hours. Nothing of the user's model or data is touched.
"""

import math
import time
from dataclasses import dataclass
from statistics import median
from typing import Any

import orjson

from scaletrain import storage
from scaletrain.config import Config, ZeroSection
from scaletrain.errors import ClusterError, ScaletrainError
from scaletrain.train.on_ray import make_worker
from scaletrain.train.waiting import WorkerGroup

STEPS = 20
_REDUCE_BYTES = {"cuda": 256 * 2**20, "cpu": 16 * 2**20}
_REDUCTIONS = 8
_WARM_UP = 2
_MEASURED = "measured.json"


@dataclass(frozen=True)
class GroupSpeed:
    """What a group of `num_workers` did.

    `bus_gb_per_s` is the bus bandwidth of an all-reduce, 2 (n - 1) / n * bytes / time
    (https://github.com/NVIDIA/nccl-tests/blob/master/doc/PERFORMANCE.md), 0 for one worker; `step_s` the median
    of a ZeRO-3 step; `slowest_step_s` the slowest after the warm-up; `loss` the last one, the same on all ranks.
    """

    num_workers: int
    bus_gb_per_s: float
    step_s: float
    slowest_step_s: float
    loss: float


def check_group(config: Config, group: WorkerGroup, *, device: str, scratch: str) -> GroupSpeed:
    """Start a group of workers on the cluster this process is connected to, and measure; takes about two minutes.

    `scratch` is a URL that every node reaches, for Ray Train's own notes; it is removed afterwards. Raises
    ClusterError with what a worker said.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig

    from scaletrain.train.ray_trainer import Trainer, ray_storage

    trainer = Trainer(
        _worker,
        train_loop_config={"config": config, "device": device, "scratch": scratch},
        torch_config=TorchConfig(backend="nccl" if device == "cuda" else "gloo", timeout_s=120),
        scaling_config=ScalingConfig(
            num_workers=group.num_workers,
            use_gpu=device == "cuda",
            resources_per_worker=dict(group.resources),
        ),
        run_config=RunConfig(name="group-check", failure_config=FailureConfig(max_failures=0), **ray_storage(scratch)),
    )
    try:
        trainer.fit()
        measured: dict[str, float] = orjson.loads(storage.read_bytes(storage.join(scratch, _MEASURED)))
    except ScaletrainError:
        raise
    except Exception as error:  # Ray Train wraps a worker's error in classes of its own
        raise ClusterError(f"the group of {group.num_workers} workers failed its check: {error}") from error
    finally:
        storage.remove(scratch)
    return GroupSpeed(num_workers=group.num_workers, **measured)


def _worker(settings: dict[str, Any]) -> None:
    from scaletrain.train.worker import prepare_process

    config, worker = settings["config"], make_worker(settings["device"])
    storage.configure(config.storage.root, config.storage.options)
    prepare_process(worker, deterministic=False)
    bus_gb_per_s = _reduce(worker)
    steps_s, loss = _train(config, worker)
    if worker.rank == 0:
        measured = {
            "bus_gb_per_s": bus_gb_per_s,
            "step_s": median(steps_s[_WARM_UP:]),
            "slowest_step_s": max(steps_s[_WARM_UP:]),
            "loss": loss,
        }
        storage.write_bytes(storage.join(settings["scratch"], _MEASURED), orjson.dumps(measured))


def _reduce(worker: Any) -> float:
    """The median bus bandwidth of some all-reduces; raises where a sum is wrong."""
    import torch
    import torch.distributed as dist

    num_bytes = _REDUCE_BYTES[worker.device.type]
    values = torch.empty(num_bytes // 4, device=worker.device)
    times = []
    for _ in range(_WARM_UP + _REDUCTIONS):
        values.fill_(worker.rank + 1)
        dist.barrier()
        start = time.perf_counter()
        dist.all_reduce(values)
        _finish(worker)
        times.append(time.perf_counter() - start)
        expected = worker.world_size * (worker.world_size + 1) / 2
        if not bool((values == expected).all()):
            raise ClusterError(f"rank {worker.rank}: an all-reduce gave {values[0].item()} for {expected}")
    share = 2 * (worker.world_size - 1) / worker.world_size
    return float(share * num_bytes / median(times[_WARM_UP:]) / 1e9)


def _train(config: Config, worker: Any) -> tuple[list[float], float]:
    """Seconds of each step on a random model, and the last loss; raises where it is not finite."""
    import torch

    from scaletrain.train import zero

    rows = 1 if config.train.micro_batch_size == "auto" else config.train.micro_batch_size
    section = config.train.model_copy(update={"micro_batch_size": rows, "optimizer": "adamw"})
    wanted = config.model_copy(update={"train": section, "zero": ZeroSection(stage=3)})  # type: ignore[call-arg]
    engine = zero.build_engine(_random_model(worker), wanted, rounds=1, precision="fp32")
    inputs = _random_rows(worker, rows=rows)
    tokens = inputs["labels"].numel() * worker.world_size
    times, loss = [], torch.zeros(())
    for _ in range(STEPS):
        start = time.perf_counter()
        loss = engine(**inputs)
        engine.backward(loss * worker.world_size / tokens, scale_wrt_gas=False)
        engine.step()
        _finish(worker)
        times.append(time.perf_counter() - start)
    last = float(loss) / inputs["labels"].numel()
    if not math.isfinite(last):
        raise ClusterError(f"rank {worker.rank} on {worker.device}: the loss of a random model became {last}")
    return times, last


def _random_model(worker: Any) -> Any:
    """A Llama with the same random weights on every rank: 170 million on a GPU, 160,000 on a CPU."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from scaletrain.model.loss import LossModel

    width, layers = (1024, 12) if worker.device.type == "cuda" else (64, 2)
    sizes = LlamaConfig(
        vocab_size=1024,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64 if width > 64 else 4,
    )
    sizes._attn_implementation = "sdpa"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LossModel(LlamaForCausalLM(sizes).to(worker.device))


def _random_rows(worker: Any, *, rows: int) -> dict[str, Any]:
    """The arguments of one micro batch: one document a row, every token supervised, another on each rank."""
    import torch

    seq_len = 1024 if worker.device.type == "cuda" else 64
    generator = torch.Generator().manual_seed(worker.rank)
    input_ids = torch.randint(0, 1024, (rows, seq_len), generator=generator)
    inputs = {
        "input_ids": input_ids,
        "labels": input_ids,
        "positions": torch.arange(seq_len).expand(rows, -1).contiguous(),
        "documents": torch.ones(rows, seq_len, dtype=torch.long),
    }
    return {name: values.to(worker.device) for name, values in inputs.items()}


def _finish(worker: Any) -> None:
    """Wait for what was started on the GPU."""
    import torch

    if worker.device.type == "cuda":
        torch.cuda.synchronize(worker.device)
