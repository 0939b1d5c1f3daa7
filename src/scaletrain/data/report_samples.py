"""The conversations that the report shows: a few of each outcome, chosen by a hash of where they stood.

What was kept, or left out after it was tokenised, is decoded from its tokens, as training sees it; of what cleaning
left out there is the beginning. Personal data is masked in either, and where it was the reason, nothing is shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from scaletrain.data.decoded import Span, decode_spans
from scaletrain.data.documents import Documents, Ints
from scaletrain.data.excerpts import is_personal, masked
from scaletrain.data.statistics import KEPT

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_OF_KEPT = 6
_OF_EACH_REASON = 3
_TOKENS = 150


@dataclass(frozen=True)
class Sample:
    """One conversation's beginning; `spans` is empty where nothing of it may or can be shown."""

    corpus: str
    source: str
    language: str
    detail: str
    changes: Sequence[str]
    spans: Sequence[Span]


def choose_samples(
    documents: Documents,
    inside: npt.NDArray[np.bool_],
    *,
    names: Sequence[str],
    tokenizer: "PreTrainedTokenizerBase",
) -> dict[str, list[Sample]]:
    """Return samples by outcome, KEPT or a reason, of the rows `inside` the limits."""
    rows = np.flatnonzero(inside)
    reasons = documents.reason[rows]
    rows_of: dict[str, Ints] = {KEPT: rows[documents.has_document[rows]]}
    for reason in sorted({reason for reason in reasons if reason is not None}):
        rows_of[reason] = rows[reasons == reason]
    chosen = {
        outcome: _first_by_hash(documents, own, _OF_KEPT if outcome == KEPT else _OF_EACH_REASON)
        for outcome, own in rows_of.items()
    }
    return {outcome: _samples(documents, own, outcome, names, tokenizer) for outcome, own in chosen.items()}


def sample_html(sample: Sample) -> str:
    """A conversation: where it is from, and what it says, with what is learned from marked."""
    about = [sample.corpus, sample.source, sample.language, sample.detail]
    if sample.changes:
        about.append(f"changed by {', '.join(sample.changes)}")
    text = "".join(
        f"<mark>{escape(span.text)}</mark>" if span.supervised else escape(span.text) for span in sample.spans
    )
    said = f'<div class="said" dir="auto" tabindex="0">{text}</div>' if text else ""
    return f'<article class="sample"><header>{escape(" · ".join(filter(None, about)))}</header>{said}</article>'


def _first_by_hash(documents: Documents, rows: Ints, count: int) -> Ints:
    """The rows with the smallest hash of corpus, file and row, mixed as in splitmix64 (Steele et al. 2014)."""
    place = documents.corpus[rows] << 48 ^ documents.file[rows] << 32 ^ documents.row[rows]
    mixed = place.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ mixed >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ mixed >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return rows[np.lexsort((place, mixed ^ mixed >> np.uint64(31)))[:count]]


def _samples(
    documents: Documents, rows: Ints, outcome: str, names: Sequence[str], tokenizer: "PreTrainedTokenizerBase"
) -> list[Sample]:
    if not len(rows):
        return []
    found = []
    for row, known in zip(rows.tolist(), documents.details(rows).to_pylist(), strict=True):
        if is_personal(outcome):
            spans = []
        elif documents.num_tokens[row]:
            spans = _decoded(documents, row, tokenizer)
        else:
            spans = [Span(1, False, masked(known["excerpt"]))] if known["excerpt"] else []
        found.append(
            Sample(
                corpus=names[documents.corpus[row]],
                source=known["source"],
                language=known["language"] or "",
                detail=masked(known["detail"] or ""),
                changes=known["changes"] or (),
                spans=spans,
            )
        )
    return found


def _decoded(documents: Documents, row: int, tokenizer: "PreTrainedTokenizerBase") -> list[Span]:
    ids, supervised = (each[:_TOKENS] for each in documents.tokens(row))
    spans = decode_spans(ids, supervised.astype(np.bool_), np.ones(len(ids), np.int32), tokenizer)
    is_cut = documents.num_tokens[row] > _TOKENS
    if is_cut:  # what is cut in two, as an address, would not be known for what it is
        words = spans[-1].text.split(" ")
        spans[-1] = Span(spans[-1].document, spans[-1].supervised, " ".join(words[:-3]))
    shown = [Span(span.document, span.supervised, masked(span.text)) for span in spans]
    return [*shown, Span(1, False, " …")] if is_cut else shown
