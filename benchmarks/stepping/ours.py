"""scaletrain's own loop, and bare DeepSpeed with the same kernels."""

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from scaletrain.data.loader import steps_local
from scaletrain.data.shards import load_index
from scaletrain.train import loop, start
from scaletrain.train.job import Job
from scaletrain.train.records import Records
from scaletrain.train.worker import Worker
from stepping.work import Found, Work, random_model


def run_scaletrain(job: Job, worker: Worker, work: Work) -> Found:
    """The loop of `scaletrain train --local`, as it is; only saving is left out, which has benchmarks of its own."""
    clock = Clock(work)
    with _random_weights(work), _without_saving(), _noted_steps(clock):
        loop.train(job, worker, should_stop=lambda: False)
    return clock.found()


def run_bare(job: Job, worker: Worker, work: Work) -> Found:
    """Batches on the device, forward, backward and update, and nothing else."""
    plan = start._read_plan(job, worker, load_index(job.dataset_url), 0)
    with _random_weights(work):
        engine = start.start_engine(job, plan)
    steps = [_on_device(batch.micro_batches, work.device) for batch in steps_local(plan)]
    clock = Clock(work)
    for micro_batches, supervised in steps:
        loss = torch.zeros((), device=work.device)
        for inputs in micro_batches:
            micro_loss = engine(**inputs) / supervised
            engine.backward(micro_loss, scale_wrt_gas=False)
            engine.step()
            loss += micro_loss.detach()
        clock.step_ended(loss, engine.get_global_grad_norm())
    return clock.found()


def _on_device(micro_batches: Any, device: str) -> tuple[list[dict[str, torch.Tensor]], int]:
    supervised = sum(micro.supervised_tokens for micro in micro_batches)
    inputs = []
    for micro in micro_batches:
        names = ("input_ids", "labels", "positions", "documents")
        tensors = {name: torch.from_numpy(getattr(micro, name)).long() for name in names}
        on_device = {name: tensors[name].to(device) for name in ("input_ids", "positions")}
        inputs.append(tensors | on_device)
    return inputs, supervised


class Clock:
    """Notes losses and gradients' norms, and the time and memory between the end of the warm-up and the last step."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._losses: list[Any] = []
        self._grad_norms: list[Any] = []
        self._began = self._ended = 0.0
        if work.device == "cuda":
            gc.collect()
            torch.cuda.reset_peak_memory_stats()

    def step_ended(self, loss: Any, grad_norm: Any) -> None:
        self._losses.append(loss)
        self._grad_norms.append(grad_norm)
        if len(self._losses) in (self._work.warm_up, len(self._work.steps)):
            if self._work.device == "cuda":
                torch.cuda.synchronize()
            self._began, self._ended = self._ended, time.perf_counter()

    def found(self) -> Found:
        peak = torch.cuda.max_memory_allocated() if self._work.device == "cuda" else 0
        losses, grad_norms = (tuple(map(float, values)) for values in (self._losses, self._grad_norms))
        return Found(self._ended - self._began, losses, grad_norms, peak)


@contextmanager
def _random_weights(work: Work) -> Iterator[None]:
    """Have `load_model` take the random model where it would read one from files; the rest it does as ever."""
    from transformers import AutoModelForCausalLM

    def from_pretrained(_folder: Any, *, attn_implementation: str, **_: Any) -> Any:
        return random_model(work, attention=attn_implementation)

    with _replaced(AutoModelForCausalLM, "from_pretrained", from_pretrained):
        yield


@contextmanager
def _without_saving() -> Iterator[None]:
    class Nothing:
        failed = False

        def __init__(self, *_: Any) -> None:
            pass

        def __enter__(self) -> "Nothing":
            return self

        def __exit__(self, *_: Any) -> None:
            pass

        def fits(self, _left_s: float) -> bool:
            return True

        def save(self, *_: Any, **__: Any) -> None:
            pass

        def finish(self) -> None:
            pass

    with _replaced(loop, "Saver", Nothing):
        yield


@contextmanager
def _noted_steps(clock: Clock) -> Iterator[None]:
    original = Records.write

    def write(records: Records, metrics: Any, line: Any) -> None:
        original(records, metrics, line)
        clock.step_ended(metrics.loss, metrics.grad_norm)
        print(f"step {metrics.step}: {metrics.step_s:.3f} s, of which waiting {metrics.data_wait_s:.3f}")

    with _replaced(Records, "write", write):
        yield


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def of_attempt(job: Job, *, name: str, attempt: int, micro_rows: int) -> Job:
    """The job under another name, so that it starts anew, and with so many rows at once."""
    train = job.config.train.model_copy(update={"micro_batch_size": micro_rows})
    return replace(job, config=job.config.model_copy(update={"name": name, "train": train}), attempt=attempt)
