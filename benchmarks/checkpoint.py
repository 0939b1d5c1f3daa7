"""What a checkpoint costs: the stall of a step, and how fast it becomes durable.

    python benchmarks/checkpoint.py [--write benchmarks/results/checkpoint.md]

The state is that of a model with ZeRO-2 on one worker: fp32 masters and two moments of each parameter.

Stall, the time for which training cannot go on:

    plain copy    the same bytes copied once into memory that is there already: the physical limit
    scaletrain    Saver.save: the copy into shared memory, and the order to the process that stores it
    torch DCP     torch.distributed.checkpoint.async_save of the same tensors, until it returns
    DeepSpeed     engine.save_checkpoint, which is not asynchronous

Persisting, on a local disk, with fsync:

    raw write     one write and one fsync of the same bytes: the physical limit
    scaletrain    store_shard: written, hashed twice (whole file and each 8 MiB), and put in place in one step

Takes some five minutes.
"""

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp

import measure
from scaletrain import checkpoint
from scaletrain.config_file import parse_config
from scaletrain.model.build import load_model, materialise
from scaletrain.model.loss import LossModel
from scaletrain.train import ledger, zero
from scaletrain.train.job import Job
from scaletrain.train.local import process_group
from scaletrain.train.saver import Position, Saver
from scaletrain.train.worker import Worker, prepare_process

COPY, OURS, DCP, DEEPSPEED, RAW = "plain copy", "scaletrain", "torch DCP async_save", "DeepSpeed", "raw write and fsync"
CONFIG = """
name: checkpoint
storage: {{root: {root}}}
model: {{init: random, size: {{vocab_size: 8192, hidden_size: 512, num_layers: 8, num_heads: 8}}}}
data: {{corpora: [{{format: chatterbot, source: "package:chatterbot_corpus/data/english/*.yml"}}], seq_len: 64}}
train: {{steps: 1000, global_batch_size: 8, micro_batch_size: 4, device: cpu}}
checkpoint: {{keep: 1}}
"""


def main() -> None:
    """Measure, and print what was found as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, help="keep the report in this file too")
    parser.add_argument("--rounds", type=int, default=12, help="how often each arm runs (default: %(default)s)")
    arguments = parser.parse_args()
    machine = measure.machine("deepspeed", "torch")
    with tempfile.TemporaryDirectory(prefix="scaletrain-benchmark-") as folder, engine_in(Path(folder)) as (job, *rest):
        size_mb = 4 * sum(view.numel() for view in state_of(rest[1]).values()) / 1e6
        parts = [stall(job, *rest, rounds=arguments.rounds), persist(Path(folder), size_mb, rounds=arguments.rounds)]
    head = f"# What a checkpoint costs\n\n{machine}; {size_mb:.0f} MB of state, one worker"
    measure.publish("\n\n".join([head, *parts]), arguments.write)


@contextmanager
def engine_in(folder: Path) -> Iterator[tuple[Job, Worker, Any]]:
    """A DeepSpeed engine with moments, in a process group of one."""
    config = parse_config(CONFIG.format(root=folder), source="checkpoint", overrides=[])
    url = materialise(config.model, root=str(folder), seed=0, corpus_texts=lambda: iter(["hello there"] * 100))
    job = Job(config, str(folder), url, 1, 1000, "cpu", "fp32", "sdpa", "local")
    worker = Worker(rank=0, world_size=1, local_rank=0, local_world_size=1, device=torch.device("cpu"))
    prepare_process(worker, deterministic=False)
    with process_group(worker, rendezvous=folder / "rendezvous", timeout_s=600):
        model = load_model(url, config.model, dtype=torch.float32, attention="sdpa", seed=0, zero3=None)
        engine = zero.build_engine(LossModel(model), config, rounds=2, precision="fp32")
        zero.create_moments(engine)
        yield job, worker, engine


def state_of(engine: Any) -> dict[str, torch.Tensor]:
    """Every tensor that a checkpoint has to hold."""
    return {f"{kind}:{f.name}": view for f in zero.fragments(engine) for kind, view in f.views.items()}


def stall(job: Job, worker: Worker, engine: Any, *, rounds: int) -> str:
    """Time the part of each arm that training has to wait for; what goes on behind it is waited for untimed."""
    state = state_of(engine)
    places = {name: torch.empty_like(view) for name, view in state.items()}
    folder, number, pending = Path(job.config.storage.root), iter(range(1, 10**6)), []
    with Saver(engine, job, worker) as saver:

        def copy() -> None:
            for name, view in state.items():
                places[name].copy_(view)

        def save() -> None:
            position = Position(next(number), 0, 0, 0, ledger.GENESIS, None)
            saver.save(position, before_commit=lambda: None)

        def save_with_dcp() -> None:
            pending.append(dcp.async_save(state, checkpoint_id=str(folder / f"dcp-{next(number)}")))

        def save_with_deepspeed() -> None:
            engine.save_checkpoint(str(folder / "deepspeed"), tag=f"{next(number)}")

        def settle() -> None:
            saver.finish()
            while pending:
                pending.pop().result()
            os.sync()

        arms = {COPY: copy, OURS: save, DCP: save_with_dcp, DEEPSPEED: save_with_deepspeed}
        timings = interleave_settled(arms, settle, rounds=rounds)
    walls = {name: [one.wall_s for one in found] for name, found in timings.items()}
    rows = [
        [name, f"{1e3 * measure.interval(walls[name]).median:.1f}", f"{measure.ratio(walls[name], walls[COPY]):.2f}"]
        for name in arms
    ]
    control = measure.ratio(walls[COPY + measure.AGAIN], walls[COPY])
    table = measure.markdown_table(["stall of a step", "ms", "of a plain copy"], rows)
    against = measure.ratio(walls[DCP], walls[OURS])
    return (
        f"## The stall\n\n{table}\n\n{rounds} rounds; A/A control, plain copy over itself: {control:.2f}. torch DCP's "
        f"async_save stalls {against:.1f} times as long as scaletrain."
    )


def interleave_settled(
    arms: dict[str, Callable[[], None]], settle: Callable[[], None], *, rounds: int
) -> dict[str, list[measure.Timing]]:
    """As `measure.interleave`, with everything behind an arm at rest before the next one."""
    order = [*arms.items(), (COPY + measure.AGAIN, arms[COPY])]
    timings: dict[str, list[measure.Timing]] = {name: [] for name, _ in order}
    for number in range(rounds + 2):
        for name, action in order if number % 2 == 0 else order[::-1]:
            timing = measure.timed(action)
            settle()
            if number >= 2:  # the first ones give memory its pages
                timings[name].append(timing)
    return timings


def persist(folder: Path, size_mb: float, *, rounds: int) -> str:
    """Time how long bytes in memory take to be durable on this disk."""
    fd = os.memfd_create("benchmark")
    os.write(fd, os.urandom(1 << 20) * int(size_mb))
    source = Path(f"/proc/self/fd/{fd}")
    image = memoryview(source.read_bytes())

    def raw() -> None:
        with (folder / "raw").open("wb", buffering=0) as file:
            written = 0
            while written < len(image):
                written += file.write(image[written:])
            os.fsync(file.fileno())
        (folder / "raw").unlink()

    def ours() -> None:
        checkpoint.store_shard(str(folder), "shard", source, image=image, header_bytes=1000)
        (folder / "shard").unlink()

    timings = measure.interleave({RAW: raw, OURS: ours}, rounds=rounds, control=RAW)
    walls = {name: [one.wall_s for one in found] for name, found in timings.items()}
    rows = [
        [
            name,
            f"{len(image) / 1e6 / measure.interval(walls[name]).median:.0f}",
            f"{measure.ratio(walls[RAW], walls[name]):.2f}",
        ]
        for name in (RAW, OURS)
    ]
    control = measure.ratio(walls[RAW], walls[RAW + measure.AGAIN])
    table = measure.markdown_table(["to a local disk", "MB/s", "of the limit"], rows)
    return f"## Persisting\n\n{table}\n\n{rounds} rounds; A/A control, raw write over itself: {control:.2f}."


if __name__ == "__main__":
    main()
