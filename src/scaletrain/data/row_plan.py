"""Documents become rows: which row a conversation's pieces are in, and the order of the rows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import xxhash

from scaletrain.data.documents import Documents, Ints
from scaletrain.data.packing import Document, DropReason, Piece, pack
from scaletrain.data.shards import IGNORED_LABEL, Row


@dataclass(frozen=True)
class SplitPlan:
    """A split's documents in the order they were packed, and its rows in the order they are written.

    A piece's `document` is a position in `documents`. With `pairs` a piece is a pair, and two documents of its row.
    """

    documents: Ints
    rows: Sequence[tuple[Piece, ...]]
    dropped: Sequence[tuple[Piece, DropReason]]
    pairs: bool = False


def plan_split(documents: Documents, members: Ints, *, seq_len: int, pairs: bool = False) -> SplitPlan:
    """Pack the documents of a split into rows of seq_len tokens, and shuffle the rows; a pair is never cut."""
    outline = _outline_of_pair if pairs else _outline
    windows = list(pack((outline(documents, number) for number in members.tolist()), seq_len))
    rows = [row for window in windows for row in window.rows]
    dropped = [drop for window in windows for drop in window.dropped]
    if pairs:
        dropped = [(piece, "pair_longer_than_seq_len") for piece, _ in dropped]
    order = sorted(range(len(rows)), key=lambda number: xxhash.xxh3_64_intdigest(number.to_bytes(8, "little")))
    return SplitPlan(members, [rows[number] for number in order], dropped, pairs)


def build_rows(plan: SplitPlan, documents: Documents, *, seq_len: int, pad_token_id: int) -> Iterator[Row]:
    """Yield the planned rows with their tokens; a piece's first token has no context and is never learned."""
    for pieces in plan.rows:
        input_ids = np.full(seq_len, pad_token_id, dtype=np.int32)
        labels = np.full(seq_len, IGNORED_LABEL, dtype=np.int32)
        numbers = [int(plan.documents[piece.document]) for piece in pieces]
        start = 0
        lengths: list[int] = []
        for piece, number in zip(pieces, numbers, strict=True):
            tokens, supervised = (each[piece.start : piece.stop] for each in documents.tokens(number))
            stop = start + len(tokens)
            input_ids[start:stop] = tokens
            labels[start:stop] = np.where(supervised, tokens, IGNORED_LABEL)
            labels[start] = IGNORED_LABEL
            first = int(documents.turn_starts(number)[1]) if plan.pairs else 0
            lengths += (first, len(tokens) - first) if plan.pairs else (len(tokens),)
            start = stop
        corpora = np.repeat(documents.corpus[numbers], 2 if plan.pairs else 1)
        yield Row(input_ids, labels, tuple(lengths), tuple(corpora.tolist()))


def _outline_of_pair(documents: Documents, number: int) -> Document:
    return Document([int(documents.num_tokens[number])], [int(documents.num_supervised[number])])


def _outline(documents: Documents, number: int) -> Document:
    tokens, supervised = documents.tokens(number)
    bounds = np.append(documents.turn_starts(number), len(tokens))
    totals = np.concatenate([[0], np.cumsum(supervised, dtype=np.int64)])
    return Document(np.diff(bounds).tolist(), np.diff(totals[bounds]).tolist())
