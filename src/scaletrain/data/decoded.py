"""Token ids back into text, cut where documents or supervision change: for looking at what is trained on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from scaletrain.log import visible

if TYPE_CHECKING:
    from rich.text import Text
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Span:
    """A stretch of one document, all of it supervised or none; `document` counts from 1 in its row."""

    document: int
    supervised: bool
    text: str


def decode_spans(
    input_ids: npt.NDArray[np.integer],
    supervised: npt.NDArray[np.bool_],
    documents: npt.NDArray[np.integer],
    tokenizer: "PreTrainedTokenizerBase",
) -> list[Span]:
    """Decode a row, all arrays of shape [T]; padding is document 0, and is left out."""
    return [
        Span(int(documents[start]), bool(supervised[start]), str(tokenizer.decode(input_ids[start:stop].tolist())))
        for start, stop in _stretches(documents, supervised)
        if documents[start] > 0
    ]


def spans_text(spans: Sequence[Span]) -> "Text":
    """Spans for a terminal: supervised in green, the rest dim, a line between documents."""
    from rich.text import Text

    text = Text()
    for number, span in enumerate(spans):
        if number and spans[number - 1].document != span.document:
            text.append("\n── next document ──\n", style="yellow")
        text.append(visible(span.text), style="green" if span.supervised else "dim")
    return text


def _stretches(documents: npt.NDArray[np.integer], supervised: npt.NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    changes = (documents[1:] != documents[:-1]) | (supervised[1:] != supervised[:-1])
    edges = [0, *(np.flatnonzero(changes) + 1).tolist(), len(documents)]
    yield from pairwise(edges)
