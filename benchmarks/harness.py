"""What the harness costs a training step: its own CPU time, and the step beside a bare DeepSpeed loop.

    python benchmarks/harness.py [--write benchmarks/results/harness.md]

Both arms train the same small model on the same rows with the same DeepSpeed settings, in this process:

    bare DeepSpeed  batches in memory; forward, backward, step; no metrics, ledger, checks or agreement
    scaletrain      the loop of `scaletrain train --local`: rows read from shards, ids checked, records kept

The harness's CPU time is what the main thread uses in a step outside the engine's forward, backward and update. The
model is small on purpose, so that what does not shrink with it shows. Takes some four minutes.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

import measure
from scaletrain.config_file import parse_config
from scaletrain.data.loader import steps_local
from scaletrain.data.prepare import prepare
from scaletrain.data.shards import load_index
from scaletrain.metrics import RecordWriter, StepMetrics
from scaletrain.model.build import load_model
from scaletrain.model.loss import LossModel
from scaletrain.train import loop, start, step, zero
from scaletrain.train.job import Job
from scaletrain.train.local import process_group
from scaletrain.train.records import Records
from scaletrain.train.worker import Worker, prepare_process

BARE, OURS = "bare DeepSpeed", "scaletrain"
STEPS = 12
WARM_UP_STEPS = 2
CONFIG = """
name: step
storage: {{root: {root}}}
model: {{init: random, size: {{vocab_size: 2048, hidden_size: 128, num_layers: 4, num_heads: 4}}}}
data:
  corpora: [{{format: chatterbot, source: "package:chatterbot_corpus/data/english/*.yml"}}]
  seq_len: 256
  validation: 0
train: {{steps: 12, global_batch_size: 8, micro_batch_size: 4, learning_rate: 1.0e-3, device: cpu}}
checkpoint: {{every_steps: 1000000}}
"""


@dataclass
class Clock:
    """Main-thread CPU seconds: at the end of each step, and inside the engine's calls so far."""

    ends: list[float] = field(default_factory=list)
    engine_s: float = 0.0
    engine_ends: list[float] = field(default_factory=list)

    def harness_ms(self) -> list[float]:
        """CPU milliseconds a step spent outside the engine, warm-up left out."""
        steps = [b - a for a, b in zip(self.ends, self.ends[1:], strict=False)]
        engine = [b - a for a, b in zip(self.engine_ends, self.engine_ends[1:], strict=False)]
        return [1e3 * (step - inside) for step, inside in zip(steps, engine, strict=True)][WARM_UP_STEPS:]


def main() -> None:
    """Measure, and print what was found as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, help="keep the report in this file too")
    parser.add_argument("--rounds", type=int, default=30, help="how often each arm runs (default: %(default)s)")
    arguments = parser.parse_args()
    machine = measure.machine("deepspeed", "torch", "transformers")
    with tempfile.TemporaryDirectory(prefix="scaletrain-benchmark-") as folder:
        report = compare(Path(folder), rounds=arguments.rounds)
    measure.publish(f"# The harness around a training step\n\n{machine}\n\n{report}", arguments.write)


def compare(folder: Path, *, rounds: int) -> str:
    """Run the arms in turns in one process group of one; returns the report."""
    worker = Worker(0, 1, 0, 1, torch.device("cpu"))
    prepare_process(worker, deterministic=False)
    job = make_job(str(folder / "bucket"))
    step_s: dict[str, list[float]] = {BARE: [], BARE + measure.AGAIN: [], OURS: []}
    harness_ms: list[float] = []
    with process_group(worker, rendezvous=folder / "rendezvous", timeout_s=60):
        for number in range(rounds + 1):
            order = [BARE, OURS, BARE + measure.AGAIN]
            for name in order if number % 2 else order[::-1]:
                if name == OURS:
                    times, clock = run_ours(replace(job, attempt=number + 1), worker, name=f"step-{number}")
                    harness_ms += clock.harness_ms() if number else []
                else:
                    times = run_bare(job, worker)
                if number:
                    step_s[name].append(measure.interval(times[WARM_UP_STEPS:]).median)
    return _report(step_s, harness_ms, metric_row_us(folder))


def make_job(root: str) -> Job:
    """Prepare the rows and the model that both arms use."""
    config = parse_config(CONFIG.format(root=root), source="benchmarks/harness.py")
    prepared = prepare(config, use_ray=False)
    return Job(config, prepared.dataset_url, prepared.model_url, 1, STEPS, "cpu", "fp32", "sdpa", "local")


def run_bare(job: Job, worker: Worker) -> list[float]:
    """Seconds of each step of a loop that does nothing but train."""
    plan = start._read_plan(job, worker, load_index(job.dataset_url), 0)
    model = load_model(job.model_url, job.config.model, dtype=torch.float32, attention="sdpa")
    engine = zero.build_engine(LossModel(model), job.config, rounds=plan.rounds, precision="fp32")
    steps = []
    for batch in steps_local(plan):
        tokens = sum(micro.supervised_tokens for micro in batch.micro_batches)
        names = ("input_ids", "labels", "positions", "documents")
        steps.append(
            (tokens, [{n: torch.from_numpy(getattr(m, n)).long() for n in names} for m in batch.micro_batches])
        )
    times, clock = [], time.perf_counter()
    for tokens, micro_batches in steps:
        for inputs in micro_batches:
            engine.backward(engine(**inputs) / tokens, scale_wrt_gas=False)
            engine.step()
        now = time.perf_counter()
        times.append(now - clock)
        clock = now
    return times


def run_ours(job: Job, worker: Worker, *, name: str) -> tuple[list[float], Clock]:
    """Seconds of each step of scaletrain's loop, and where its main thread spent its CPU time."""
    config = job.config.model_copy(update={"name": name})
    clock, times = Clock(), []
    with _timed_engine(clock), _noted_steps(clock, times):
        loop.train(replace(job, config=config), worker, should_stop=lambda: False)
    return times, clock


@contextmanager
def _timed_engine(clock: Clock) -> Iterator[None]:
    """Add up the main thread's CPU time inside the engine's forward, backward and update."""

    def timed(call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            began = time.thread_time()
            try:
                return call(*args, **kwargs)
            finally:
                clock.engine_s += time.thread_time() - began

        return run

    originals = step.forward, zero.accumulate, zero.update
    step.forward, zero.accumulate, zero.update = (timed(call) for call in originals)
    try:
        yield
    finally:
        step.forward, zero.accumulate, zero.update = originals


@contextmanager
def _noted_steps(clock: Clock, times: list[float]) -> Iterator[None]:
    """Note the end of each step when its records have been written."""
    original = Records.write

    def write(records: Records, metrics: StepMetrics, line: Any) -> None:
        original(records, metrics, line)
        times.append(metrics.step_s)
        clock.ends.append(time.thread_time())
        clock.engine_ends.append(clock.engine_s)

    Records.write = write  # type: ignore[method-assign]
    try:
        yield
    finally:
        Records.write = original  # type: ignore[method-assign]


def metric_row_us(folder: Path, *, rows: int = 5000) -> measure.Interval:
    """Microseconds that one line of metrics holds up the step."""
    writer = RecordWriter(str(folder / "metrics"), attempt=1, local_folder=folder)
    times = []
    for number in range(rows):
        metrics = StepMetrics(number, 2.0, 1e-3, 1.0, 8 * number, 1000, 2000, 500.0, 4.0, 0.01, 0.0, 8, 1 << 30)
        began = time.perf_counter()
        writer.write(metrics.record())
        times.append(1e6 * (time.perf_counter() - began))
    writer.close()
    return measure.interval(times)


def _report(step_s: dict[str, list[float]], harness_ms: list[float], row_us: measure.Interval) -> str:
    bare = step_s[BARE]
    rows = []
    for name in (BARE, OURS):
        against = "" if name == BARE else format(measure.ratio(step_s[name], bare), ".3f")
        rows.append([name, format(measure.interval([1e3 * s for s in step_s[name]]), ".1f"), against])
    control = measure.ratio(step_s[BARE + measure.AGAIN], bare)
    table = measure.markdown_table(["arm", "ms a step", f"against {BARE}"], rows)
    harness = measure.interval(harness_ms)
    return "\n".join(
        [
            table,
            "",
            f"A/A control ({BARE} against itself): {control:.3f}. {len(bare)} pairs of runs of {STEPS} steps, medians "
            "with 95% intervals.",
            "",
            f"- main-thread CPU time of a step outside the engine: {harness:.2f} ms (bound: 2 ms)",
            f"- one line of metrics on the step path: {row_us:.0f} µs (bound: 100 µs)",
        ]
    )


if __name__ == "__main__":
    main()
