"""What every arm of the step benchmark computes: a model of real shape with random weights, and real documents."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from scaletrain.config_model import LoraSection
from scaletrain.data.loader import StepBatch
from stepping.flops import Shape, step_flops

IGNORED = -100
_SEED = 0  # of weights and adapters, the same for every arm


@dataclass(frozen=True)
class Document:
    """One conversation, or a part of one: its tokens, and which of them are supervised (labels, -100 elsewhere)."""

    input_ids: list[int]
    labels: list[int]


@dataclass(frozen=True)
class Step:
    """A global batch: the documents of each packed row, and what there is to count."""

    rows: tuple[tuple[Document, ...], ...]
    tokens: int
    supervised_tokens: int
    flops: float

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of each document."""
        return tuple(len(document.input_ids) for row in self.rows for document in row)


@dataclass(frozen=True)
class Work:
    """Everything that the arms share. `lora`: adapters are trained instead of all weights."""

    shape: Shape
    steps: tuple[Step, ...]
    seq_len: int
    warm_up: int
    device: Literal["cuda", "cpu"]
    lora: LoraSection | None = None
    gradient_checkpointing: bool = False
    learning_rate: float = 1e-5

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.device == "cuda" else torch.float32

    @property
    def counted(self) -> tuple[Step, ...]:
        """The steps that are timed."""
        return self.steps[self.warm_up :]


@dataclass(frozen=True)
class Found:
    """What an arm did after its warm-up: seconds in all, and the most memory it held.

    `losses` and `grad_norms` (before clipping) are of all its steps.
    """

    seconds: float
    losses: tuple[float, ...]
    grad_norms: tuple[float, ...]
    peak_bytes: int


def model_settings(shape: Shape, *, seq_len: int) -> Any:
    """transformers' configuration of the model."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_hidden_layers,
        num_attention_heads=shape.num_attention_heads,
        num_key_value_heads=shape.num_key_value_heads,
        head_dim=shape.head_dim,
        max_position_embeddings=seq_len,
        tie_word_embeddings=shape.tied,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
        use_cache=False,
    )


def random_model(work: Work, *, attention: str) -> Any:
    """The model on its device, the same weights for every arm."""
    from transformers import LlamaForCausalLM

    torch.manual_seed(_SEED)
    with torch.device(work.device):
        settings = model_settings(work.shape, seq_len=work.seq_len)
        return LlamaForCausalLM._from_config(settings, dtype=work.dtype, attn_implementation=attention)


def peers_model(work: Work, *, attention: str) -> Any:
    """The model that a peer is given: with adapters, by peft and from the seed of ours, where they are trained."""
    from scaletrain.model.build import add_adapters

    model = random_model(work, attention=attention)
    return model if work.lora is None else add_adapters(model, work.lora, seed=_SEED)


def steps_of(batches: Sequence[StepBatch], shape: Shape, *, lora: LoraSection | None = None) -> tuple[Step, ...]:
    """The documents in a plan's batches, row by row."""
    return tuple(_step(batch, shape, lora.rank if lora else 0) for batch in batches)


def told(work: Work, source: str) -> str:
    """What a step is made of, and how long its documents are."""
    steps = len(work.steps)
    lengths = np.array([length for step in work.counted for length in step.lengths])
    half, most = np.percentile(lengths, (50, 90))
    tokens, supervised = (sum(getattr(step, name) for step in work.steps) for name in ("tokens", "supervised_tokens"))
    documents = sum(len(step.lengths) for step in work.steps)
    return (
        f"A step is {tokens / steps:,.0f} tokens in {documents / steps:.0f} documents, {supervised / steps:,.0f} of "
        f"them supervised; {len(work.counted)} steps a run count. Documents: {source}, in rows of {work.seq_len:,}; "
        f"half of them have at most {half:,.0f} tokens, nine of ten {most:,.0f}, the longest {lengths.max():,}."
    )


def _step(batch: StepBatch, shape: Shape, lora_rank: int) -> Step:
    rows = []
    for micro in batch.micro_batches:
        rows += [_documents(*arrays) for arrays in zip(micro.input_ids, micro.labels, micro.documents, strict=True)]
    lengths = [len(document.input_ids) for row in rows for document in row]
    supervised = sum(sum(label != IGNORED for label in document.labels[1:]) for row in rows for document in row)
    flops = step_flops(lengths, supervised, shape, lora_rank=lora_rank)
    return Step(tuple(rows), sum(lengths), supervised, flops)


def _documents(ids_T: Any, labels_T: Any, documents_T: Any) -> tuple[Document, ...]:
    found = []
    for number in range(1, int(documents_T.max()) + 1):
        where = np.flatnonzero(documents_T == number)
        found.append(Document(ids_T[where].tolist(), labels_T[where].tolist()))
    return tuple(found)
