"""A training step: scaletrain beside Hugging Face's Trainer, TRL and bare DeepSpeed, on the same documents.

    python benchmarks/step.py [--size 8B --lora] [--lengths long] [--dataset URL] [--write benchmarks/results/step.md]

All arms train the same Llama of a real shape with random weights (nothing is downloaded) on the same documents, with
ZeRO-2 and AdamW in bf16 on a GPU:

    scaletrain               the loop of `scaletrain train --local`, packed rows
    bare DeepSpeed           the same model, kernels and batches; forward, backward, update and nothing else
    Trainer, padded          transformers.Trainer + DeepSpeed as it is by default: SDPA, each micro batch padded
    Trainer, padding-free    the same with DataCollatorWithFlattening, Liger's kernels and loss, and flash attention
    TRL                      SFTTrainer, padding-free with Liger's kernels

The documents are chitchat's conversations, or (--lengths long) its people's sittings of thousands of tokens, or those
of a dataset that `scaletrain prepare` made; --lora trains adapters in all arms. Without --size all cases of the table
run, one after the other.

flash attention is torch's own (torch.nn.attention.varlen), for the peers too: the package flash-attn, which they would
use, holds the same kernels. Arms take turns, A B B A, each run in a process of its own; the micro batch of an arm is
halved until it fits. On a CPU the model is tiny, the precision fp32, and there is no DeepSpeed in the Trainer: it shows
that all arms run and agree, and nothing of their speed on a GPU. Tokens are real ones, padding left out.

--write FILE.md keeps the figures in FILE.json too and draws FILE.svg; cases measured at other times stay in all three.
"""

import argparse
import os
import sys
import tempfile
from functools import partial
from pathlib import Path

import torch

import measure
from scaletrain.config_file import parse_config
from scaletrain.data.loader import steps_local
from scaletrain.data.shards import load_index
from scaletrain.devices import peak_flops
from scaletrain.model.attention import register_varlen
from scaletrain.model.kernels import resolve_kernels
from scaletrain.train import start
from scaletrain.train.job import Job
from scaletrain.train.local import only_worker
from scaletrain.train.worker import Worker
from stepping.cases import DEFAULTS, Case
from stepping.child import in_child
from stepping.documents import SOURCES, make_dataset, model_folder
from stepping.flops import SHAPES
from stepping.hf_trainer import Settings, run_trainer
from stepping.ours import of_attempt, run_bare, run_scaletrain
from stepping.picture import picture
from stepping.report import ARMS, BARE, OURS, PADDED, TRL, Arm, Part, keep, markdown, section, unequal, written_notes
from stepping.trl_trainer import run_trl
from stepping.work import Found, Work, steps_of, told

CONFIG = """
name: step
storage: {{root: {root}}}
model: {{source: {model}, lora: {lora}, gradient_checkpointing: {checkpointing}}}
data: {{corpora: [{{format: messages, source: "not read: the dataset is there"}}]}}
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


def main() -> None:
    """Measure, and print what was found as Markdown."""
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # asking must not begin to use the GPU: runs are forked
    device = "cuda" if torch.cuda.is_available() else "cpu"
    arguments = _arguments(device)
    if arguments.prepare:
        for lengths in SOURCES:
            print(make_dataset(lengths, "cuda", arguments.documents.resolve()))
        return
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    machine = measure.machine("deepspeed", "torch", "transformers", *_installed("peft", "liger-kernel", "trl"))
    if device == "cuda":
        machine = f"{in_child(lambda: torch.cuda.get_device_name(0))}; {machine}"
    parts: list[Part] = []
    with tempfile.TemporaryDirectory(prefix="scaletrain-benchmark-") as folder:
        for case in _cases(arguments, device):
            parts.append(compare(case, device, Path(folder), machine, arguments))
            print(section(parts[-1]), flush=True)
    if any(unequal(part) for part in parts):
        sys.exit("some arms did not compute the same thing, see above")


def _arguments(device: str) -> argparse.Namespace:
    steps, warm_up = (12, 4) if device == "cuda" else (4, 1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--write", type=Path, help="keep the report in this file, with FILE.json and FILE.svg beside it"
    )
    parser.add_argument("--size", choices=SHAPES, help="only this size; default: the cases of the table, one by one")
    parser.add_argument("--lengths", choices=SOURCES, default="chitchat", help="of documents, with --size")
    parser.add_argument("--lora", action="store_true", help="train adapters of rank 16 alone, with --size")
    parser.add_argument("--gradient-checkpointing", action="store_true", help="in all arms, with --size")
    parser.add_argument("--recompute", default="", help="ours: what model.gradient_checkpointing is, with --size")
    parser.add_argument("--dataset", help="URL of a prepared dataset, instead of chitchat's; with --size")
    parser.add_argument("--documents", type=Path, help="folder that keeps prepared documents for another time")
    parser.add_argument("--prepare", action="store_true", help="make those of a GPU's cases there, and measure nothing")
    parser.add_argument("--steps", type=int, default=steps, help="of each run, warm-up included (default: %(default)s)")
    parser.add_argument("--warm-up", type=int, default=warm_up, help="of them, not counted (default: %(default)s)")
    parser.add_argument("--rows", type=int, default=0, help="packed rows of a step (default: of 65,536 tokens in all)")
    parser.add_argument("--micro-rows", type=int, default=0, help="of them at once, to begin with (default: by size)")
    parser.add_argument("--rounds", type=int, default=2, help="how often each arm runs (default: %(default)s)")
    parser.add_argument("--stage", type=int, default=2, help="of ZeRO, for ours and bare DeepSpeed")
    parser.add_argument("--attention", default="auto", help="ours: auto, varlen, flex or sdpa")
    parser.add_argument("--kernels", default="auto", help="ours: auto, liger, compile or plain")
    parser.add_argument("--arm", action="append", choices=ARMS, help="only this one; again for more")
    arguments = parser.parse_args()
    recomputing = arguments.gradient_checkpointing or arguments.recompute
    of_a_size = arguments.lora or recomputing or arguments.dataset or arguments.lengths == "long"
    if of_a_size and not arguments.size:
        parser.error("--lengths, --lora, --gradient-checkpointing, --recompute and --dataset go with --size")
    if arguments.prepare and not arguments.documents:
        parser.error("--prepare goes with --documents FOLDER")
    if not 0 < arguments.warm_up < arguments.steps:
        parser.error("--warm-up: at least one step, and fewer than --steps")
    return arguments


def _cases(arguments: argparse.Namespace, device: str) -> tuple[Case, ...]:
    if not arguments.size:
        return DEFAULTS[device]
    flags = (arguments.lora, arguments.gradient_checkpointing, arguments.recompute)
    return (Case(arguments.size, arguments.lengths, *flags),)


def _write(part: Part, path: Path) -> None:
    parts = keep([part], path.with_suffix(".json"))
    path.with_suffix(".svg").write_text(picture(parts))
    report = markdown(parts, picture=path.with_suffix(".svg").name, notes=written_notes(path))
    path.write_text(report.rstrip() + "\n")


def compare(case: Case, device: str, folder: Path, machine: str, arguments: argparse.Namespace) -> Part:
    """Run the arms in turns on one case; the report is written after each run, so that nothing measured is lost."""
    documents = (arguments.documents or folder / "documents").resolve()
    dataset = arguments.dataset or in_child(lambda: make_dataset(case.lengths, device, documents))
    job = in_child(lambda: _job(case, dataset, folder, device, arguments))
    names = arguments.arm or ARMS
    arms = {name: Arm(micro_rows=job.config.train.micro_rows) for name in names}
    source = "the dataset's" if arguments.dataset else SOURCES[case.lengths]
    content, peak = in_child(lambda: _summary(job, case, source, arguments))
    part = Part(case.title, machine, device, content, case.parameters, arms, peak)
    for number in range(arguments.rounds):
        for name in names if number % 2 == 0 else names[::-1]:
            if not arms[name].problem:
                _run(arms[name], name, job, case, folder, arguments, attempt=number + 1)
                if arguments.write:
                    _write(part, arguments.write)
    return part


def _summary(job: Job, case: Case, source: str, arguments: argparse.Namespace) -> tuple[str, float | None]:
    with only_worker(job) as worker:
        return told(_work(job, worker, case, arguments), source), peak_flops(worker.device)


def _job(case: Case, dataset: str, folder: Path, device: str, arguments: argparse.Namespace) -> Job:
    seq_len = load_index(dataset).seq_len
    model = model_folder(case.size, seq_len, folder)
    rows = arguments.rows or case.rows(seq_len=seq_len, device=device)
    text = CONFIG.format(
        root=folder / case.title.replace(", ", "-").replace(" ", "-"),
        model=model,
        lora="{}" if case.lora else "null",
        checkpointing=case.recomputing or str(case.gradient_checkpointing).lower(),
        steps=arguments.steps,
        rows=rows,
        micro_rows=arguments.micro_rows or min(rows, case.micro_rows(seq_len=seq_len, device=device)),
        device=device,
        stage=arguments.stage,
    )
    attention = "varlen" if arguments.attention == "auto" and device == "cuda" else arguments.attention
    return Job(
        config=parse_config(text, source="benchmarks/step.py"),
        dataset_url=dataset,
        model_url=model,
        attempt=1,
        total_steps=arguments.steps,
        device=device,  # type: ignore[arg-type]
        precision="bf16" if device == "cuda" else "fp32",
        attention="sdpa" if attention == "auto" else attention,
        reader="local",
        kernels=resolve_kernels(arguments.kernels, device, zero_stage=arguments.stage),
    )


def _work(job: Job, worker: Worker, case: Case, arguments: argparse.Namespace) -> Work:
    index = load_index(job.dataset_url)
    plan = start._read_plan(job, worker, index, 0)
    shape = SHAPES[case.size]
    return Work(
        shape=shape,
        steps=steps_of(list(steps_local(plan)), shape, lora=case.adapters),
        seq_len=index.seq_len,
        warm_up=arguments.warm_up,
        device=job.device,
        lora=case.adapters,
        gradient_checkpointing=case.gradient_checkpointing,
    )


def _run(
    arm: Arm, name: str, job: Job, case: Case, folder: Path, arguments: argparse.Namespace, *, attempt: int
) -> None:
    """One run of an arm, with a smaller micro batch where it does not fit."""
    while True:
        its_job = of_attempt(job, name=f"step-{attempt}", attempt=attempt, micro_rows=arm.micro_rows)
        try:
            found, tokens, flops = in_child(partial(_measured, name, its_job, case, folder, arguments))
            break
        except torch.OutOfMemoryError:
            arm.micro_rows //= 2
            if not arm.micro_rows:
                arm.problem = "out of memory"
                return
        except RuntimeError as error:  # a peer that does not run here is a line of the table
            arm.problem = str(error).splitlines()[0]
            return
    arm.tokens_per_s.append(tokens / found.seconds)
    arm.flops_per_s.append(flops / found.seconds)
    arm.peak_bytes = max(arm.peak_bytes, found.peak_bytes)
    arm.first_loss, arm.last_loss = found.losses[0], found.losses[-1]
    arm.grad_norm = found.grad_norms[0]
    speed, memory = tokens / found.seconds, found.peak_bytes / 1e9
    first = f"first loss {arm.first_loss:.4f}, gradient norm {arm.grad_norm:.4f}"
    print(f"{case.title}: {name}: {speed:,.0f} tokens/s, {memory:.1f} GB, {first}", flush=True)


def _measured(name: str, job: Job, case: Case, folder: Path, arguments: argparse.Namespace) -> tuple[Found, int, float]:
    """What one run found, and the tokens and FLOPs of the steps that count."""
    with only_worker(job) as worker:
        work = _work(job, worker, case, arguments)
        register_varlen()
        flash = "scaletrain_varlen" if job.device == "cuda" else "sdpa"
        rows = job.config.train.micro_rows
        tokens, flops = sum(step.tokens for step in work.counted), sum(step.flops for step in work.counted)
        if name == OURS:
            found = run_scaletrain(job, worker, work)
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
