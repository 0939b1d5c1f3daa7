"""Perplexity on held-out conversations: by corpus, with the tokens it rests on and how sure it is.

The loss is per supervised token. What is sampled is the document (a conversation, or a part of one that was too long
for a row), so intervals come from resampling whole documents: the percentile bootstrap of Efron and Tibshirani, "An
Introduction to the Bootstrap" (1993), chapter 13. The change between two models resamples the same documents for
both, which is far sharper than comparing two intervals. Runs in one process, on one device.

Shapes: B rows, T tokens of a row.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from scaletrain.data.loader import MicroBatch
from scaletrain.model.loss import IGNORED, token_losses

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ALL = "all"
_RESAMPLES = 1000
_SEED = 0

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class DocumentLosses:
    """The loss of each document, in reading order: `nll` is in nats, summed over its `tokens` supervised tokens.

    `corpus` indexes `corpora`; the three arrays have shape [documents].
    """

    corpora: tuple[str, ...]
    corpus: Ints
    tokens: Ints
    nll: Floats


@dataclass(frozen=True)
class Perplexity:
    """exp(nll / tokens) of one corpus, or of all; `low` and `high` bound the 95% interval."""

    corpus: str
    documents: int
    tokens: int
    nll: float
    low: float
    high: float

    @property
    def value(self) -> float:
        return math.exp(self.nll / self.tokens)

    @property
    def bits_per_token(self) -> float:
        return self.nll / self.tokens / math.log(2)

    def record(self) -> dict[str, object]:
        """The figures as they stand in reports."""
        return {
            "corpus": self.corpus,
            "perplexity": self.value,
            "low": self.low,
            "high": self.high,
            "bits_per_token": self.bits_per_token,
            "tokens": self.tokens,
            "documents": self.documents,
        }


@dataclass(frozen=True)
class Change:
    """How much a perplexity changed: -0.3 is 30% less; `low` and `high` bound the 95% interval."""

    value: float
    low: float
    high: float


def document_losses(
    model: "PreTrainedModel",
    micro_batches: Iterable[MicroBatch],
    *,
    corpora: tuple[str, ...],
    on_rows: Callable[[int], None],
) -> DocumentLosses:
    """Run the model over rows of packed documents; `on_rows` is told how many rows each forward pass did.

    Documents in which nothing is supervised are left out.
    """
    corpus: list[Ints] = []
    tokens: list[Ints] = []
    nll: list[Floats] = []
    model.train(False)
    for micro_batch in micro_batches:
        losses_BT = token_losses(model, **_tensors(micro_batch, model.device)).cpu().numpy().astype(np.float64)
        supervised_BT = micro_batch.labels != IGNORED
        rows_BT = np.arange(len(supervised_BT))[:, None] * (micro_batch.documents.max() + 1)
        _, first, document = np.unique(
            (rows_BT + micro_batch.documents)[supervised_BT], return_index=True, return_inverse=True
        )
        corpus.append(micro_batch.corpora[supervised_BT][first].astype(np.int64))
        tokens.append(np.bincount(document, minlength=len(first)).astype(np.int64))
        nll.append(np.bincount(document, weights=losses_BT[supervised_BT], minlength=len(first)).astype(np.float64))
        on_rows(len(supervised_BT))
    return DocumentLosses(
        corpora=corpora, corpus=np.concatenate(corpus), tokens=np.concatenate(tokens), nll=np.concatenate(nll)
    )


def perplexities(losses: DocumentLosses) -> tuple[Perplexity, ...]:
    """The perplexity of all documents, then of each corpus that has any."""
    return tuple(_perplexity(name, losses.tokens[chosen], losses.nll[chosen]) for name, chosen in _groups(losses))


def changes(before: DocumentLosses, after: DocumentLosses) -> dict[str, Change]:
    """The change of each perplexity from one model to another, measured on the same documents."""
    return {
        name: _change(before.tokens[chosen], before.nll[chosen], after.nll[chosen]) for name, chosen in _groups(before)
    }


def _tensors(micro_batch: MicroBatch, device: torch.device) -> dict[str, torch.Tensor]:
    parts = {name: getattr(micro_batch, name) for name in ("input_ids", "labels", "positions", "documents")}
    return {name: torch.from_numpy(part).to(device).long() for name, part in parts.items()}


def _groups(losses: DocumentLosses) -> list[tuple[str, npt.NDArray[np.bool_]]]:
    everything = np.ones(len(losses.tokens), dtype=np.bool_)
    by_corpus = [(name, losses.corpus == index) for index, name in enumerate(losses.corpora)]
    return [(ALL, everything), *((name, chosen) for name, chosen in by_corpus if chosen.any())]


def _perplexity(corpus: str, tokens: Ints, nll: Floats) -> Perplexity:
    resampled = [math.exp(nll @ counts / (tokens @ counts)) for counts in _resamples(len(tokens))]
    low, high = np.percentile(resampled, (2.5, 97.5))
    return Perplexity(
        corpus=corpus,
        documents=len(tokens),
        tokens=int(tokens.sum()),
        nll=float(nll.sum()),
        low=float(low),
        high=float(high),
    )


def _change(tokens: Ints, before: Floats, after: Floats) -> Change:
    difference = after - before
    resampled = [math.expm1(difference @ counts / (tokens @ counts)) for counts in _resamples(len(tokens))]
    low, high = np.percentile(resampled, (2.5, 97.5))
    return Change(value=math.expm1(difference.sum() / tokens.sum()), low=float(low), high=float(high))


def _resamples(documents: int) -> Iterable[Ints]:
    """How often each document is drawn, in each of the resamples: shape [documents], the same on every call."""
    generator = np.random.default_rng(_SEED)
    for _ in range(_RESAMPLES):
        yield np.bincount(generator.integers(documents, size=documents), minlength=documents)
