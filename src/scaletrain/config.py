"""The configuration: one tree of frozen sections, its defaults, and the rules that bind fields together.

Reading files and command-line overrides is config_file's job. Functions take their own section, never the whole
tree, except the loop, the trainer and the command line.
"""

import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from scaletrain.config_budget import BudgetSection
from scaletrain.config_data import DataSection
from scaletrain.config_dpo import DpoSection, format_problems
from scaletrain.config_evaluate import EvaluateSection
from scaletrain.config_model import ModelSection, nearest_divisor, quantizes
from scaletrain.config_recomputing import selective_problems
from scaletrain.config_section import (
    Count,
    Float,
    Fraction,
    Int,
    Number,
    Option,
    Positive,
    Section,
    refuse_booleans,
)
from scaletrain.config_serve import ServeSection
from scaletrain.config_sweep import SweepSection
from scaletrain.config_track import TrackSection


class StorageSection(Section):
    """Where data, runs and models are kept."""

    root: str = Field("bucket", min_length=1, description="any fsspec URL (s3://..., gs://...) or a local folder")
    options: dict[str, Option] = Field(
        default_factory=dict, description="of the connection: endpoint_url, profile (s3 only); never a key or a token"
    )

    def rules(self) -> Iterator[tuple[str, str]]:
        for name, value in self.options.items():
            if re.search(r"secret|token|password|^key$|access_key", name, re.I) and value != "anon":
                yield (
                    f"options.{name}",
                    "would be stored with the run; use the environment, a profile or a role",
                )


def _rows_kind(value: object) -> str:
    return "<word>" if isinstance(value, str) else "<number>"


class TrainSection(Section):
    """The optimisation: what for, how long, how fast, in what precision and on what device."""

    objective: Literal["sft", "dpo"] = Field(
        "sft", description="sft: what the assistant says; dpo: which of two answers is better (format preferences)"
    )
    dpo: DpoSection = Field(default_factory=DpoSection)  # type: ignore[arg-type]
    steps: Count | None = Field(None, description="give steps or epochs")
    epochs: Positive | None = Field(None, description="passes over the training rows; 0.5 is legal")
    global_batch_size: Count = Field(64, description="packed rows a step, at any number of workers")
    micro_batch_size: Annotated[
        Annotated[Count, Tag("<number>")] | Annotated[Literal["auto"], Tag("<word>")], Discriminator(_rows_kind)
    ] = Field(
        default_factory=lambda section: max(n for n in (1, 2, 3, 4) if section.get("global_batch_size", 4) % n == 0),
        description="packed rows a worker holds at once; must divide global_batch_size; auto: as many as fit",
    )
    optimizer: Literal["adamw", "adamw_8bit"] = Field(
        "adamw", description="adamw_8bit: moments of one byte instead of four (bitsandbytes); zero.stage 0 to 2"
    )
    learning_rate: Positive = Field(2e-5, description="at its peak, after the warm-up")
    schedule: Literal["constant", "linear", "cosine"] = Field("cosine", description="how it falls after the warm-up")
    warmup_steps: Number = Field(0, description="steps in which the learning rate rises from 0")
    min_learning_rate_ratio: Annotated[Float, Field(ge=0, le=1)] = Field(
        0.0, description="where the schedule ends, as a share of learning_rate"
    )
    weight_decay: Annotated[Float, Field(ge=0)] = Field(0.0, description="AdamW's, on matrices only")
    betas: tuple[Fraction, Fraction] = (0.9, 0.95)
    eps: Positive = Field(1e-8, description="AdamW's")
    max_grad_norm: Annotated[Float, Field(ge=0)] = Field(1.0, description="0: no clipping")
    max_skipped_steps: Number = Field(3, description="in a row, for a loss or gradient that is not finite")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto: bf16 on CUDA, fp32 on CPU")
    device: Literal["auto", "cuda", "cpu"] = Field("auto", description="cuda without a GPU is an error")
    deterministic: bool = Field(False, description="same machine and worker count: the same bits")
    evaluate_every_steps: Number = Field(0, description="validation perplexity during training; 0: never")
    evaluate_rows: Count = Field(256, description="validation rows to use for it, at most")
    timeout_s: Positive = Field(600, description="a collective that takes longer ends the run")

    @property
    def micro_rows(self) -> int:
        """micro_batch_size as a number: `train` puts one in the place of "auto" before a run begins."""
        assert self.micro_batch_size != "auto", "the micro batch has not been settled yet"
        return self.micro_batch_size

    def rules(self) -> Iterator[tuple[str, str]]:
        if self.steps is not None and self.epochs is not None:
            yield "steps", f"got {self.steps}, and epochs={self.epochs:g}; keep one of the two"
        if self.steps is None and self.epochs is None:
            yield "steps", "missing; give a number of steps, or epochs"
        if self.micro_batch_size != "auto" and self.global_batch_size % self.micro_batch_size:
            got = f"got {self.micro_batch_size}, which does not divide global_batch_size={self.global_batch_size}"
            use = nearest_divisor(self.global_batch_size, self.micro_batch_size)
            yield "micro_batch_size", f"{got}; use {use}"
        if self.min_learning_rate_ratio and self.schedule == "constant":
            yield "min_learning_rate_ratio", "goes with schedule: linear or cosine; remove it, or change schedule"
        if self.objective != "dpo" and self.dpo != DpoSection():  # type: ignore[call-arg]
            yield "dpo", "goes with objective: dpo; set it, or remove this section"


class ZeroSection(Section):
    """DeepSpeed ZeRO: what is partitioned over the workers (Rajbhandari et al. 2020, arXiv:1910.02054)."""

    stage: Annotated[Literal[0, 1, 2, 3], BeforeValidator(refuse_booleans)] = Field(
        2, description="0: nothing, 1: optimizer state, 2: gradients too, 3: parameters too"
    )
    offload_optimizer: Literal["none", "cpu"] = Field("none", description="cpu: optimizer state in host memory")
    offload_parameters: Literal["none", "cpu"] = Field("none", description="cpu: parameters in host memory")
    communication: Literal["fp32", "bf16"] = Field(
        "fp32", description="of gradients among workers; bf16 sends half as much, rounded (docs/networks.md)"
    )

    def rules(self) -> Iterator[tuple[str, str]]:
        if self.offload_optimizer != "none" and self.stage == 0:
            yield "offload_optimizer", "needs stage 1, 2 or 3; raise stage, or remove it"
        if self.offload_parameters != "none" and self.stage != 3:
            yield "offload_parameters", "needs stage 3; set stage: 3, or remove it"


class CheckpointSection(Section):
    """When the state is committed to the bucket, and how many commits are kept."""

    every_steps: Count = Field(100, description="steps between two commits; the last step is committed too")
    keep: Count = Field(3, description="older commits are removed")


class WorkerRange(Section):
    """As many workers as the cluster has, within bounds."""

    min: Count = Field(description="the fewest workers to train with")
    max: Count = Field(description="the most workers to train with")

    def rules(self) -> Iterator[tuple[str, str]]:
        if self.min > self.max:
            yield "min", f"got {self.min}, which is above max={self.max}; swap them"


def _workers_kind(value: object) -> str:
    return "<range>" if isinstance(value, (dict, WorkerRange)) else "<number>"


class ScalingSection(Section):
    """How many workers train, and what each one gets."""

    workers: Annotated[
        Annotated[Count, Tag("<number>")] | Annotated[WorkerRange, Tag("<range>")], Discriminator(_workers_kind)
    ] = Field(1, description="a number, or {min, max}")
    gpus_per_worker: Annotated[Int, Field(ge=0, le=1)] | None = Field(
        None, description="by default 1 on CUDA, 0 on CPU"
    )
    cpus_per_worker: Positive = Field(1.0, description="logical CPUs of the cluster that a worker takes")
    wait_minutes: Positive = Field(20, description="how long the fewest machines may take, before the run fails")
    sequence_parallel: Count = Field(
        1, description="so many workers share each row and its activations (docs/long-context.md); must divide workers"
    )


class DebugSection(Section):
    """Looking inside a run; never part of its mathematics."""

    stop_after: Count | None = Field(None, description="save after this step and end with exit code 0")
    dump_batch: bool = Field(False, description="print the first micro batch decoded, supervised tokens in colour")
    check_nan: bool = Field(False, description="stop at the first non-finite activation and name its module")
    profile_steps: Number = Field(0, description="write a torch profiler trace of this many steps")


class Config(Section):
    """A whole run."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$",
        description="a name for the run, of letters, digits and . _ - (it begins with a letter or digit)",
    )
    seed: Number = Field(0, description="of the order of the rows, dropout, and random weights")
    storage: StorageSection = Field(default_factory=StorageSection)  # type: ignore[arg-type]
    model: ModelSection = Field(description="a section with source, or with init: random and size")
    data: DataSection = Field(description="a section with corpora")
    train: TrainSection = Field(description="a section with steps or epochs")
    zero: ZeroSection = Field(default_factory=ZeroSection)  # type: ignore[arg-type]
    checkpoint: CheckpointSection = Field(default_factory=CheckpointSection)  # type: ignore[arg-type]
    scaling: ScalingSection = Field(default_factory=ScalingSection)  # type: ignore[arg-type]
    evaluate: EvaluateSection = Field(default_factory=EvaluateSection)  # type: ignore[arg-type]
    serve: ServeSection = Field(default_factory=ServeSection)  # type: ignore[arg-type]
    budget: BudgetSection = Field(default_factory=BudgetSection)  # type: ignore[arg-type]
    sweep: SweepSection | None = Field(None, description="of `scaletrain sweep`: parameters, search, trials")
    track: TrackSection = Field(default_factory=TrackSection)  # type: ignore[arg-type]
    debug: DebugSection = Field(default_factory=DebugSection)  # type: ignore[arg-type]

    def rules(self) -> Iterator[tuple[str, str]]:
        if self.train.evaluate_every_steps and not self.data.validation:
            yield "train.evaluate_every_steps", "needs a validation split; set data.validation above 0, or remove it"
        if self.evaluate.stride is not None and self.evaluate.stride >= self.data.seq_len:
            yield "evaluate.stride", f"got {self.evaluate.stride}; use less than data.seq_len={self.data.seq_len}"
        yield from self._sharing_problems(self.scaling.sequence_parallel)
        if self.train.optimizer == "adamw_8bit":
            if self.zero.stage == 3:
                yield (
                    "train.optimizer",
                    "got adamw_8bit, which goes with zero.stage 0 to 2; use adamw, or lower the stage",
                )
            if self.zero.offload_optimizer != "none":
                yield "train.optimizer", "got adamw_8bit with zero.offload_optimizer; remove one of the two"
        if quantizes(self.model.lora) and self.zero.stage == 3:
            yield (
                "model.lora.quantization",
                "got nf4, which goes with zero.stage 0 to 2; lower the stage, or use none",
            )
        if self.train.device == "cpu" and self.scaling.gpus_per_worker:
            yield "scaling.gpus_per_worker", "got 1 with train.device: cpu; remove one of the two"
        if self.train.device == "cuda" and self.scaling.gpus_per_worker == 0:
            yield "scaling.gpus_per_worker", "got 0 with train.device: cuda; remove one of the two"
        if self.zero.communication == "bf16" and self.train.precision != "bf16":
            yield "zero.communication", "got bf16, which goes with train.precision: bf16; set that, or remove this"
        for problem in selective_problems(
            self.model.gradient_checkpointing, kernels=self.model.kernels, zero_stage=self.zero.stage
        ):
            yield "model.gradient_checkpointing", problem
        yield from format_problems([corpus.format for corpus in self.data.corpora], objective=self.train.objective)

    def _sharing_problems(self, share: int) -> Iterator[tuple[str, str]]:
        """What keeps workers from sharing rows."""
        workers = self.scaling.workers
        if isinstance(workers, WorkerRange):
            counts = {"scaling.workers.min": workers.min, "scaling.workers.max": workers.max}
        else:
            counts = {"scaling.workers": workers}
        for path, count in counts.items():
            if count % share:
                use = -(-count // share) * share
                yield path, f"got {count}, which scaling.sequence_parallel={share} does not divide; use {use}"
        shared = {"data.seq_len": self.data.seq_len}
        if self.model.size is not None:
            shared["model.size.num_heads"] = self.model.size.num_heads
        for name, count in shared.items():
            if count % share:
                use = nearest_divisor(count, share)
                yield "scaling.sequence_parallel", f"got {share}, which does not divide {name}={count}; use {use}"
        if share > 1 and self.train.objective == "dpo":
            yield "scaling.sequence_parallel", f"got {share}; in preference training (dpo) workers share no rows: use 1"
