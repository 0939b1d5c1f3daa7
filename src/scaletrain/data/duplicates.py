"""One of each: equal conversations, and those that say almost the same, across all corpora and before any split.

Of equal ones that stays which was read first, in the order of the configuration's corpora, their files and rows; of
near-duplicates the longest, and then likewise. A row left out knows which one stays.
"""

from typing import Literal

import numpy as np

from scaletrain.data.documents import Documents, Ints
from scaletrain.data.near_duplicates import find_survivors

EXACT = "duplicate"
NEAR = "near_duplicate"


def drop_duplicates(
    documents: Documents, kept: Ints, *, duplicates: Literal["near", "exact", "keep"], similarity: float
) -> Documents:
    """Return the documents without duplicates among those `kept`; they have the reason EXACT or NEAR.

    Holds some 70 bytes of memory for each of those kept.
    """
    if duplicates == "keep" or not len(kept):
        return documents
    key = documents.key[kept]
    order = np.lexsort((*_place(documents, kept), key[:, 1], key[:, 0]))
    is_first = np.ones(len(kept), np.bool_)
    is_first[1:] = (key[order][1:] != key[order][:-1]).any(axis=1)
    firsts = kept[order[is_first]]
    survivors = firsts[np.cumsum(is_first) - 1]
    equal, first_of = kept[order[~is_first]], survivors[~is_first]
    if duplicates == "exact":
        return documents.left_out(equal, EXACT, because_of=first_of)
    rows = firsts[documents.has_fingerprint[firsts]]
    rank = np.empty(len(rows), np.int64)
    rank[np.lexsort((*_place(documents, rows), -documents.num_tokens[rows]))] = np.arange(len(rows))
    survivors = rows[
        find_survivors(
            rank, documents.bands_of(rows), lambda number: documents.sketch(int(rows[number])), similarity=similarity
        )
    ]
    is_left_out = survivors != rows
    stays = np.arange(len(documents), dtype=np.int64)
    stays[rows] = survivors
    documents = documents.left_out(equal, EXACT, because_of=stays[first_of])
    return documents.left_out(rows[is_left_out], NEAR, because_of=survivors[is_left_out])


def _place(documents: Documents, rows: Ints) -> tuple[Ints, Ints, Ints]:
    """Where rows stood, the least important first, as lexsort takes it."""
    return documents.row[rows], documents.file[rows], documents.corpus[rows]
