"""What every arm of the step benchmark computes: a model of real shape with random weights, and real documents.

Shapes: B rows, T tokens of a row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from scaletrain.data.loader import StepBatch

IGNORED = -100


@dataclass(frozen=True)
class Shape:
    """Sizes of a Llama with tied embeddings, as its model card gives them."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int


SHAPES = {
    "tiny": Shape(49152, 64, 256, 2, 4, 2, 16),
    "0.135B": Shape(49152, 576, 1536, 30, 9, 3, 64),  # SmolLM2-135M
    "1B": Shape(128256, 2048, 8192, 16, 32, 8, 64),  # Llama-3.2-1B
    "3B": Shape(128256, 3072, 8192, 28, 24, 8, 128),  # Llama-3.2-3B
}


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


@dataclass(frozen=True)
class Work:
    """Everything that the arms share; `micro_rows` rows go through the model at once."""

    shape: Shape
    steps: tuple[Step, ...]
    micro_rows: int
    seq_len: int
    warm_up: int
    device: Literal["cuda", "cpu"]
    learning_rate: float = 1e-5

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.device == "cuda" else torch.float32


@dataclass(frozen=True)
class Found:
    """What an arm did after its warm-up: seconds in all, the loss of its steps, and the most memory it held."""

    seconds: float
    losses: tuple[float, ...]
    peak_bytes: int


def random_model(work: Work, *, attention: str) -> Any:
    """The model on its device, the same weights for every arm."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = work.shape
    config = LlamaConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_hidden_layers,
        num_attention_heads=shape.num_attention_heads,
        num_key_value_heads=shape.num_key_value_heads,
        head_dim=shape.head_dim,
        max_position_embeddings=work.seq_len,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
        use_cache=False,
    )
    torch.manual_seed(0)
    with torch.device(work.device):
        return LlamaForCausalLM._from_config(config, dtype=work.dtype, attn_implementation=attention)


def steps_of(batches: Sequence[StepBatch], shape: Shape) -> tuple[Step, ...]:
    """The documents in a plan's batches, row by row."""
    return tuple(_step(batch, shape) for batch in batches)


def _step(batch: StepBatch, shape: Shape) -> Step:
    rows = []
    for micro in batch.micro_batches:
        rows += [_documents(*arrays) for arrays in zip(micro.input_ids, micro.labels, micro.documents, strict=True)]
    tokens = sum(len(document.input_ids) for row in rows for document in row)
    supervised = sum(sum(label != IGNORED for label in document.labels[1:]) for row in rows for document in row)
    return Step(tuple(rows), tokens, supervised, _flops(rows, supervised, shape))


def _documents(ids_T: Any, labels_T: Any, documents_T: Any) -> tuple[Document, ...]:
    found = []
    for number in range(1, int(documents_T.max()) + 1):
        where = np.flatnonzero(documents_T == number)
        found.append(Document(ids_T[where].tolist(), labels_T[where].tolist()))
    return tuple(found)


def _flops(rows: Sequence[Sequence[Document]], supervised: int, shape: Shape) -> float:
    """FLOPs that a step cannot do without, forward and backward (3 times forward; Kaplan et al. 2020, section 2.1).

    2 for each weight of the layers and token; 2 H V for the output layer at each supervised token (elsewhere there is
    no loss); 2 T^2 A for attention in each layer over a document of T tokens, halved for causality, A being heads times
    their size. Nothing for embeddings, padding or recomputing.
    """
    attention = shape.num_attention_heads * shape.head_dim
    keys = shape.num_key_value_heads * shape.head_dim
    layer = shape.hidden_size * (2 * attention + 2 * keys + 3 * shape.intermediate_size)
    lengths = np.array([len(document.input_ids) for row in rows for document in row], dtype=np.float64)
    forward = shape.num_hidden_layers * (2 * layer * lengths.sum() + 2 * attention * (lengths**2).sum())
    return float(3 * (forward + 2 * shape.hidden_size * shape.vocab_size * supervised))
