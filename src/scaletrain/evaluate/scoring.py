"""A model over packed rows: the loss of each answer in them, and how sure the model was of each token.

The output layer is given the hidden states of the supervised tokens alone. Its logits are looked at a piece at a time,
each while it is in the processor's cache, so nothing of the logits' size is made besides them.

Shapes: B rows, T tokens of a row, N supervised tokens, V words of the vocabulary, H hidden size, A answers.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from scaletrain.data.loader import MicroBatch
from scaletrain.data.shards import IGNORED_LABEL
from scaletrain.evaluate.answers import Floats, Ints
from scaletrain.evaluate.calibration import Calibration, calibration, no_calibration
from scaletrain.model.attention import model_inputs
from scaletrain.model.loss import head_sees

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_CPU_PIECE = 2**20  # fp32 logits at a time: 4 MB stay in the cache
_GPU_PIECE = 2**26

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class TokenScores:
    """Of N tokens: `nll` in nats, the probability of the likeliest token (`confidence`), and whether it came."""

    nll: Floats
    confidence: Floats
    correct: Bools


@dataclass(frozen=True)
class ScoredRows:
    """The answers of some rows, in reading order; every array has shape [A].

    sample_id, document: the row, and the document in it, from 1. document_tokens: how long that document is. The
    others are as in Answers.
    """

    sample_id: Ints
    document: Ints
    document_tokens: Ints
    corpus: Ints
    depth: Ints
    tokens: Ints
    size_bytes: Ints
    nll: Floats


@dataclass(frozen=True)
class Scored:
    """What came out of some rows."""

    rows: ScoredRows
    calibration: Calibration


def score_rows(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    micro_batches: Iterable[MicroBatch],
    *,
    on_rows: Callable[[int], None],
) -> Iterator[Scored]:
    """Run the model over packed rows, one micro batch a result; `on_rows` is told how many rows each one had."""
    model.train(False)
    for micro_batch in micro_batches:
        where = supervised(micro_batch.labels)
        scores = score_tokens(
            model, micro_batch.input_ids, where, positions_BT=micro_batch.positions, documents_BT=micro_batch.documents
        )
        rows = _answers(micro_batch, where, scores, tokenizer)
        yield Scored(rows, calibration(scores.confidence, scores.correct))
        on_rows(len(micro_batch.sample_ids))


def join(parts: Sequence[Scored]) -> Scored:
    """Put results together, in the order given."""
    columns: dict[str, Any] = {
        field.name: np.concatenate([getattr(part.rows, field.name) for part in parts]) for field in fields(ScoredRows)
    }
    return Scored(ScoredRows(**columns), sum((part.calibration for part in parts), no_calibration()))


def supervised(labels_BT: npt.NDArray[np.integer]) -> Ints:
    """The flat indices of the supervised tokens, int64 [N]; a row's first token has nothing before it and is none."""
    is_supervised = labels_BT != IGNORED_LABEL
    is_supervised[:, 0] = False
    return np.flatnonzero(is_supervised)


@torch.inference_mode()
def score_tokens(
    model: Any,
    input_ids_BT: npt.NDArray[np.integer],
    where: Ints,
    *,
    positions_BT: npt.NDArray[np.integer] | None = None,
    documents_BT: npt.NDArray[np.integer] | None = None,
) -> TokenScores:
    """Score the tokens at these flat indices, each given what stands before it in its document.

    Without `documents_BT` a row is one document from its first token on, with nothing but padding behind it.
    """
    input_ids = _tensor(input_ids_BT, model.device)
    inputs: dict[str, Any] = {"input_ids": input_ids, "use_cache": False}
    if documents_BT is not None:
        assert positions_BT is not None, "documents have positions of their own"
        positions, documents = _tensor(positions_BT, model.device), _tensor(documents_BT, model.device)
        inputs = model_inputs(model.config, input_ids, positions, documents)
    where_N = torch.from_numpy(where).to(model.device)
    with head_sees(model.get_output_embeddings(), where_N - 1):
        logits_NV = model(**inputs).logits.squeeze(0)
    return _look_at(logits_NV, input_ids.flatten()[where_N])


def _tensor(array: npt.NDArray[np.integer], device: torch.device) -> torch.Tensor:
    return torch.from_numpy(array).to(device).long()


def _look_at(logits_NV: torch.Tensor, targets_N: torch.Tensor) -> TokenScores:
    """Reduce logits to three numbers a token, in fp32; where they are fp32 already, their memory is used up."""
    piece = max(1, (_GPU_PIECE if logits_NV.is_cuda else _CPU_PIECE) // logits_NV.shape[1])
    found_3N = torch.empty(3, len(targets_N), dtype=torch.float32, device=logits_NV.device)
    for start in range(0, len(targets_N), piece):
        here = slice(start, start + piece)
        logits_nV, targets_n = logits_NV[here].float(), targets_N[here]
        top_n, best_n = logits_nV.max(-1)
        target_n = logits_nV.gather(1, targets_n[:, None]).squeeze(1)
        log_sum_n = logits_nV.sub_(top_n[:, None]).exp_().sum(-1).log_()  # of the exponentials, less the top logit
        found_3N[0, here] = log_sum_n + (top_n - target_n)
        found_3N[1, here] = (-log_sum_n).exp_()
        found_3N[2, here] = best_n == targets_n
    nll, confidence, correct = found_3N.cpu().numpy().astype(np.float64)
    return TokenScores(nll, np.minimum(confidence, 1.0), correct > 0)


def _answers(
    micro_batch: MicroBatch, where: Ints, scores: TokenScores, tokenizer: "PreTrainedTokenizerBase"
) -> ScoredRows:
    """Sum tokens up to answers: an answer is an unbroken run of supervised tokens of one document."""
    seq_len = micro_batch.labels.shape[1]
    row = where // seq_len
    document = micro_batch.documents.reshape(-1)[where].astype(np.int64)
    place = row * (seq_len + 1) + document  # of the document, among all of the micro batch
    is_first = np.ones(len(where), np.bool_)
    is_first[1:] = (np.diff(where) != 1) | (np.diff(place) != 0)
    first = np.flatnonzero(is_first)
    answer = np.cumsum(is_first) - 1
    tokens = np.bincount(answer, minlength=len(first)).astype(np.int64)
    starts = np.flatnonzero(np.diff(place[first], prepend=-1))  # the first answer of each document
    depth = np.arange(len(first)) - np.repeat(starts, np.diff(starts, append=len(first))) + 1
    lengths = np.bincount(
        (np.arange(len(micro_batch.documents))[:, None] * (seq_len + 1) + micro_batch.documents).ravel()
    )
    ids = micro_batch.input_ids.reshape(-1)[where].tolist()
    said = [ids[start:stop] for start, stop in zip(first, [*first[1:], len(ids)], strict=True)]
    texts = tokenizer.batch_decode(said, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return ScoredRows(
        sample_id=micro_batch.sample_ids[row[first]],
        document=document[first],
        document_tokens=lengths[place[first]].astype(np.int64),
        corpus=micro_batch.corpora.reshape(-1)[where][first].astype(np.int64),
        depth=depth.astype(np.int64),
        tokens=tokens,
        size_bytes=np.array([len(text.encode("utf-8", "replace")) for text in texts], dtype=np.int64),
        nll=np.bincount(answer, weights=scores.nll, minlength=len(first)).astype(np.float64),
    )
