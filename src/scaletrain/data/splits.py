"""Which conversations are held out for validation: by the hash of who speaks in them, or of what they say."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import xxhash

from scaletrain.data.documents import Documents, Ints
from scaletrain.data.ngrams import Hashes

# Who speaks in more than this share of a corpus (a company's account, "user", "bot") is nobody to hold out: more than
# this share would go. Who speaks in one conversation only takes nothing else along, however small the corpus is.
_PROLIFIC = 0.1


def assign_splits(documents: Documents, kept: Ints, *, validation: float, by_author: bool) -> dict[str, Ints]:
    """Divide documents into "train" and "validation", each in the order of the hash of what they say.

    A conversation is held out if one of its authors is, and an author is by the hash of the name: who is held out is
    never trained on. Conversations without authors are held out by the hash of what they say. So a conversation stays
    in its split when others come or go, but for this: of every corpus and language with more than one author (or
    conversation, where none is known), something is held out; something is always left to train on; and equal
    conversations are in one split.
    """
    key = documents.key[kept]
    where = (documents.row[kept], documents.file[kept], documents.corpus[kept])
    kept = kept[np.lexsort((*where, key[:, 1], key[:, 0]))]
    is_held_out = np.zeros(len(kept), np.bool_)
    if validation > 0 and len(kept):
        is_held_out = _held_out(documents, kept, validation, by_author=by_author)
        if by_author and is_held_out.all():  # so few authors that nobody would be left
            is_held_out = _held_out(documents, kept, validation, by_author=False)
        if is_held_out.all():
            groups = _equal_ones(documents, kept)
            is_held_out = groups != groups[-1]
    return {"train": kept[~is_held_out], "validation": kept[is_held_out]}


def _held_out(documents: Documents, kept: Ints, validation: float, *, by_author: bool) -> npt.NDArray[np.bool_]:
    marks, owners = _authors(documents, kept) if by_author else (np.zeros(0, np.uint64), np.zeros(0, np.int64))
    smallest = documents.key[kept, 0].copy()
    share = np.full(len(kept), validation)
    if len(owners):
        authored = np.unique(owners)
        smallest[authored] = 2**64 - 1
        np.minimum.at(smallest, owners, marks)
        # With so many authors each, a conversation is held out with the chance asked for. The number is rounded: it
        # shall not change with every conversation that comes.
        share[authored] = 1 - (1 - validation) ** (1 / max(1, round(len(owners) / len(authored))))
    is_held_out = smallest < (share * 2.0**64).astype(np.uint64)
    strata = documents.strata()[kept]
    for stratum in np.unique(strata).tolist():
        members = np.flatnonzero(strata == stratum)
        values = smallest[members]
        if is_held_out[members].any() or (values == values[0]).all():
            continue
        chosen = values.min()
        is_held_out |= smallest == chosen
        is_held_out[owners[marks == chosen]] = True
    groups = _equal_ones(documents, kept)
    return np.isin(groups, groups[is_held_out])


def _authors(documents: Documents, kept: Ints) -> tuple[Hashes, Ints]:
    """Return hashes of the authors who can be held out, and for each the position in `kept` of its conversation."""
    position = np.full(len(documents), -1, np.int64)
    position[kept] = np.arange(len(kept))
    lengths = pc.fill_null(pc.list_value_length(documents.authors), 0).to_numpy()
    owners = np.repeat(position, lengths)
    flat: Any = pc.list_flatten(documents.authors)
    names = flat.dictionary_encode().combine_chunks()
    codes = names.indices.to_numpy()[owners >= 0]
    owners = owners[owners >= 0]
    words = names.dictionary.to_pylist()
    hashes = np.fromiter((xxhash.xxh3_64_intdigest((word or "").encode()) for word in words), np.uint64, len(words))
    can_be = ~_is_prolific(codes, documents.corpus[kept[owners]], documents.corpus[kept], num_authors=len(words))
    can_be &= np.array([bool(word) for word in words], np.bool_)
    return hashes[codes[can_be[codes]]], owners[can_be[codes]]


def _is_prolific(codes: Ints, corpora: Ints, corpora_of_all: Ints, *, num_authors: int) -> npt.NDArray[np.bool_]:
    """Mark who speaks too often in any corpus; author `codes[i]` has a conversation in `corpora[i]`."""
    sizes = np.bincount(corpora_of_all)
    spoken, counts = np.unique(codes.astype(np.int64) * len(sizes) + corpora, return_counts=True)
    too_often = counts > np.maximum(1, _PROLIFIC * sizes[spoken % len(sizes)])
    is_prolific = np.zeros(num_authors, np.bool_)
    is_prolific[spoken[too_often] // len(sizes)] = True
    return is_prolific


def _equal_ones(documents: Documents, ordered: Ints) -> Ints:
    """Number conversations that are in the order of their keys so that equal ones have equal numbers."""
    key = documents.key[ordered]
    return np.concatenate([[0], np.cumsum((key[1:] != key[:-1]).any(axis=1))]).astype(np.int64)
