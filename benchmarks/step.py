"""A training step: scaletrain beside Hugging Face's Trainer, TRL and bare DeepSpeed, on the same documents.

    python benchmarks/step.py [--size 1B] [--dataset URL] [--write benchmarks/results/step.md]

All arms train the same Llama of a real shape with random weights (nothing is downloaded) on the same conversations
(chitchat's, unless --dataset names what `scaletrain prepare` made), with ZeRO-2 and AdamW in bf16 on a GPU:

    scaletrain               the loop of `scaletrain train --local`, packed rows
    bare DeepSpeed           the same model, kernels and batches; forward, backward, update and nothing else
    Trainer, padded          transformers.Trainer + DeepSpeed as it is by default: SDPA, each micro batch padded
    Trainer, padding-free    the same with DataCollatorWithFlattening, Liger's kernels and loss, and flash attention
    TRL                      SFTTrainer, padding-free with Liger's kernels

flash attention is torch's own (torch.nn.attention.varlen), for the peers too: the package flash-attn, which they would
use, holds the same kernels. Arms take turns, A B B A, each run in a process of its own; a peer's micro batch is halved
until it fits. On a CPU the model is tiny, the precision fp32, and there is no DeepSpeed in the Trainer: it shows that
all arms run and agree, and nothing of their speed on a GPU. Tokens are real ones, padding left out.
"""

import argparse
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import torch

import measure
from scaletrain.config_file import parse_config
from scaletrain.data.loader import steps_local
from scaletrain.data.prepare import prepare
from scaletrain.data.shards import load_index
from scaletrain.devices import peak_flops
from scaletrain.model.attention import register_varlen
from scaletrain.model.kernels import resolve_kernels
from scaletrain.train import start
from scaletrain.train.job import Job
from scaletrain.train.local import only_worker
from scaletrain.train.worker import Worker
from stepping.child import in_child
from stepping.hf_trainer import Settings, run_trainer
from stepping.ours import run_bare, run_scaletrain, with_name
from stepping.trl_trainer import run_trl
from stepping.work import SHAPES, Found, Work, steps_of

OURS, BARE, PADDED, FREE, TRL = "scaletrain", "bare DeepSpeed", "Trainer, padded", "Trainer, padding-free", "TRL"
CONFIG = """
name: step
storage: {{root: {root}}}
model: {{init: random, size: {{vocab_size: 2048, hidden_size: 64, num_layers: 1, num_heads: 4}}}}
data: {{corpora: [{{format: chitchat, source: "package:chitchat_dataset/dataset.json", limit: 300}}], seq_len: 512}}
train:
  steps: {steps}
  global_batch_size: {rows}
  micro_batch_size: {micro_rows}
  learning_rate: 1.0e-5
  schedule: constant
  warmup_steps: 0
  weight_decay: 0.0
  device: {device}
zero: {{stage: {stage}}}
checkpoint: {{every_steps: 1000000}}
track: {{tensorboard: false}}
"""


@dataclass
class Arm:
    """What one arm did in its rounds; `problem` where it could not run."""

    tokens_per_s: list[float] = field(default_factory=list)
    flops_per_s: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    first_loss: float = float("nan")
    last_loss: float = float("nan")
    rows: int = 0
    problem: str = ""


def main() -> None:
    """Measure, and print what was found as Markdown."""
    arguments = _arguments()
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # asking must not begin to use the GPU: runs are forked
    device = "cuda" if torch.cuda.is_available() else "cpu"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    machine = measure.machine("deepspeed", "torch", "transformers", *_installed("liger-kernel", "trl"))
    if device == "cuda":
        machine = f"{in_child(lambda: torch.cuda.get_device_name(0))}; {machine}"
    sizes = arguments.size or (["0.135B", "1B"] if device == "cuda" else ["tiny"])
    parts = []
    with tempfile.TemporaryDirectory(prefix="scaletrain-benchmark-") as folder:
        for size in sizes:
            parts.append(compare(size, device, Path(folder) / size, arguments))
            measure.publish(_report(machine, parts), arguments.write)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, help="keep the report in this file too")
    parser.add_argument("--size", action="append", choices=SHAPES, help="again for another; default: what fits")
    parser.add_argument("--dataset", help="URL of a prepared dataset, instead of chitchat's")
    parser.add_argument("--steps", type=int, default=12, help="of each run, warm-up included (default: %(default)s)")
    parser.add_argument("--warm-up", type=int, default=4, help="steps that do not count (default: %(default)s)")
    parser.add_argument("--rows", type=int, default=0, help="packed rows of a step (default: 16, 8 on a CPU)")
    parser.add_argument("--micro-rows", type=int, default=0, help="of them at once (default: half)")
    parser.add_argument("--rounds", type=int, default=2, help="how often each arm runs (default: %(default)s)")
    parser.add_argument("--stage", type=int, default=2, help="of ZeRO, for ours and bare DeepSpeed")
    parser.add_argument("--attention", default="auto", help="ours: auto, varlen, flex or sdpa")
    parser.add_argument("--kernels", default="auto", help="ours: auto, liger, compile or plain")
    parser.add_argument("--arm", action="append", choices=[OURS, BARE, PADDED, FREE, TRL], help="only this one; again")
    return parser.parse_args()


def compare(size: str, device: str, folder: Path, arguments: argparse.Namespace) -> str:
    """Run the arms in turns on one size of model; returns the part of the report on it."""
    job = in_child(lambda: _job(folder, device, arguments))
    names = arguments.arm or [OURS, BARE, PADDED, FREE, TRL]
    arms = {name: Arm(rows=job.config.train.micro_batch_size) for name in names}
    for number in range(arguments.rounds):
        for name in names if number % 2 == 0 else names[::-1]:
            if not arms[name].problem:
                _run(arms[name], name, job, size, folder, arguments, attempt=number + 1)
    work, peak = in_child(lambda: _summary(job, size, arguments))
    return _part(size, arms, work, peak)


def _summary(job: Job, size: str, arguments: argparse.Namespace) -> tuple[Work, float | None]:
    with only_worker(job) as worker:
        return _work(job, worker, size, job.device, arguments), peak_flops(worker.device)


def _job(folder: Path, device: str, arguments: argparse.Namespace) -> Job:
    rows = arguments.rows or (16 if device == "cuda" else 8)
    text = CONFIG.format(
        root=folder,
        steps=arguments.steps,
        rows=rows,
        micro_rows=arguments.micro_rows or rows // 2,
        device=device,
        stage=arguments.stage,
    )
    config = parse_config(text, source="benchmarks/step.py")
    if arguments.dataset:
        dataset, model = arguments.dataset, ""
    else:
        prepared = prepare(config, use_ray=False)
        dataset, model = prepared.dataset_url, prepared.model_url
    precision = "bf16" if device == "cuda" else "fp32"
    attention = "varlen" if arguments.attention == "auto" and device == "cuda" else arguments.attention
    return Job(
        config=config,
        dataset_url=dataset,
        model_url=model,
        attempt=1,
        total_steps=arguments.steps,
        device=device,  # type: ignore[arg-type]
        precision=precision,  # type: ignore[arg-type]
        attention="sdpa" if attention == "auto" else attention,
        reader="local",
        kernels=resolve_kernels(arguments.kernels, device, zero_stage=arguments.stage),
    )


def _work(job: Job, worker: Worker, size: str, device: str, arguments: argparse.Namespace) -> Work:
    index = load_index(job.dataset_url)
    plan = start._read_plan(job, worker, index, 0)
    return Work(
        shape=SHAPES[size],
        steps=steps_of(list(steps_local(plan)), SHAPES[size]),
        micro_rows=job.config.train.micro_batch_size,
        seq_len=index.seq_len,
        warm_up=arguments.warm_up,
        device=device,  # type: ignore[arg-type]
    )


def _run(
    arm: Arm, name: str, job: Job, size: str, folder: Path, arguments: argparse.Namespace, *, attempt: int
) -> None:
    """One run of an arm, with a smaller micro batch where it does not fit."""
    while True:
        try:
            found, tokens, flops = in_child(lambda: _measured(name, arm.rows, job, size, folder, arguments, attempt))
            break
        except torch.OutOfMemoryError:
            arm.rows //= 2
            if not arm.rows:
                arm.problem = "out of memory"
                return
        except RuntimeError as error:  # a peer that does not run here is a line of the table
            arm.problem = str(error).splitlines()[0]
            return
    arm.tokens_per_s.append(tokens / found.seconds)
    arm.flops_per_s.append(flops / found.seconds)
    arm.peak_bytes = max(arm.peak_bytes, found.peak_bytes)
    arm.first_loss, arm.last_loss = found.losses[0], found.losses[-1]
    print(f"{size}, {name}: {tokens / found.seconds:,.0f} tokens/s, {found.peak_bytes / 1e9:.1f} GB", flush=True)


def _measured(
    name: str, rows: int, job: Job, size: str, folder: Path, arguments: argparse.Namespace, attempt: int
) -> tuple[Found, int, float]:
    """What one run found, and the tokens and FLOPs of the steps that count."""
    with only_worker(job) as worker:
        work = _work(job, worker, size, job.device, arguments)
        register_varlen()
        flash = "scaletrain_varlen" if job.device == "cuda" else "sdpa"
        counted = work.steps[work.warm_up :]
        tokens, flops = sum(step.tokens for step in counted), sum(step.flops for step in counted)
        if name == OURS:
            found = run_scaletrain(with_name(job, f"step-{attempt}", attempt), worker, work)
        elif name == BARE:
            found = run_bare(job, worker, work)
        elif name == TRL:
            found, own_tokens = run_trl(work, attention=flash, rows=rows, folder=str(folder))
            tokens, flops = own_tokens, flops * own_tokens / tokens
        else:
            padded = name == PADDED
            liger = job.device == "cuda" and not padded
            settings = Settings(padded=padded, liger=liger, attention="sdpa" if padded else flash, rows=rows)
            found = run_trainer(work, settings, folder=str(folder))
        return found, tokens, flops


def _part(size: str, arms: dict[str, Arm], work: Work, peak: float | None) -> str:
    rows = []
    ours = arms.get(OURS)
    for name, arm in arms.items():
        if arm.problem:
            rows.append([name, f"did not run: {arm.problem[:90]}", "", "", "", "", "", ""])
            continue
        against = ""
        if ours is not None and ours.tokens_per_s and name != OURS:
            against = format(measure.ratio(ours.tokens_per_s, arm.tokens_per_s), ".2f")
        mfu = f"{measure.interval(arm.flops_per_s).median / peak:.3f}" if peak else ""
        rows.append(
            [
                name,
                format(measure.interval(arm.tokens_per_s), ",.0f"),
                against,
                mfu,
                f"{arm.peak_bytes / 1e9:.1f}" if arm.peak_bytes else "",
                f"{arm.first_loss:.4f}",
                f"{arm.last_loss:.4f}",
                str(arm.rows),
            ]
        )
    header = ["arm", "tokens/s", "scaletrain is faster by", "MFU", "peak GB", "first loss", "last loss", "micro rows"]
    tokens = sum(step.tokens for step in work.steps) / len(work.steps)
    supervised = sum(step.supervised_tokens for step in work.steps) / len(work.steps)
    documents = sum(len(row) for step in work.steps for row in step.rows) / len(work.steps)
    return (
        f"## {size}\n\n{measure.markdown_table(header, rows)}\n\nA step is {tokens:,.0f} tokens in {documents:.0f} "
        f"documents, {supervised:,.0f} of them supervised; {len(work.steps) - work.warm_up} steps a run count."
    )


def _report(machine: str, parts: list[str]) -> str:
    formula = (
        "MFU: the FLOPs that these documents need (benchmarks/stepping/work.py: the output layer at supervised tokens "
        "alone, causal attention within documents, nothing for padding) by the device's dense bf16 peak."
    )
    return "\n\n".join(["# A training step", machine, *parts, formula])


def _installed(*packages: str) -> list[str]:
    from importlib.metadata import PackageNotFoundError, version

    found = []
    for package in packages:
        try:
            version(package)
        except PackageNotFoundError:
            continue
        found.append(package)
    return found


if __name__ == "__main__":
    main()
