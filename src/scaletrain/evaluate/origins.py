"""Where each document of the validation rows comes from: its conversation and language, from the provenance.

The provenance names the rows that hold a conversation, but not its places in them. Rows hold equally long conversations
of one corpus in the order of their keys (packing takes the one that came first, and they come in that order), so a
conversation that was not cut is found by its corpus, length and place. The parts of one that was cut are found where
only one choice of documents in its rows adds up to its length. What cannot be told counts as a conversation of its own,
and has the language of all that it could be, if that is one.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain, combinations, product
from math import prod

import numpy as np

from scaletrain.data.provenance import PREFIX, read_provenance
from scaletrain.data.shards import DatasetIndex
from scaletrain.evaluate.answers import UNKNOWN, Answers
from scaletrain.evaluate.scoring import ScoredRows
from scaletrain.log import get_logger

_COLUMNS = ("corpus", "language", "key", "split", "sample_ids", "tokens", "dropped_tokens")
_MOST_CHOICES = 5000  # of documents that may be a conversation's parts, to look through

Place = tuple[int, int]  # a row's sample_id, and a corpus

log = get_logger(__name__)


@dataclass(frozen=True)
class _Conversation:
    """One row of the provenance: `tokens` of it are in rows, at `places`, one for each of its parts."""

    number: int
    key: str
    language: str
    tokens: int
    places: tuple[Place, ...]
    is_whole: bool


@dataclass(frozen=True)
class _Document:
    """A document of a row: `first` is the place of its first answer, `stop` is after its last."""

    first: int
    stop: int
    tokens: int


_Free = dict[Place, list[_Document]]


def with_origins(rows: ScoredRows, dataset_url: str, index: DatasetIndex) -> Answers:
    """Return the answers with their conversations and languages, as far as these can be told.

    Raises DataError where the provenance is damaged, StorageError.
    """
    documents = _documents(rows)
    known = _read(dataset_url, index, last_sample=int(rows.sample_id.max(initial=-1)))
    matched = {} if index.pairs else _match(documents, known)  # of a pair, one document of two is there
    candidates: dict[Place, list[_Conversation]] = defaultdict(list)
    is_matched = {origin.number for origin in matched.values()}
    for each in known:
        for place in {*each.places} if each.number not in is_matched else ():
            candidates[place].append(each)
    conversation = np.zeros(len(rows.nll), np.int64)
    language = np.array([UNKNOWN] * len(rows.nll), dtype=object)
    for place, document in ((place, document) for place, found in documents.items() for document in found):
        origin, here = matched.get(document.first), slice(document.first, document.stop)
        conversation[here] = -1 - document.first if origin is None else origin.number
        spoken = {each.language for each in candidates[place]} if origin is None else {origin.language}
        language[here] = spoken.pop() if len(spoken) == 1 else UNKNOWN
    names = sorted(set(language.tolist()), key=lambda name: (name == UNKNOWN, name))
    return Answers(
        corpora=index.corpora,
        languages=tuple(names),
        conversation=np.unique(conversation, return_inverse=True)[1].astype(np.int64),
        corpus=rows.corpus,
        language=np.array([names.index(name) for name in language.tolist()], dtype=np.int64),
        depth=rows.depth,
        tokens=rows.tokens,
        size_bytes=rows.size_bytes,
        nll=rows.nll,
    )


def _documents(rows: ScoredRows) -> _Free:
    """The documents by row and corpus, in the order of the row."""
    found: _Free = defaultdict(list)
    changes = (np.diff(rows.sample_id) != 0) | (np.diff(rows.document) != 0)
    firsts = [0, *(np.flatnonzero(changes) + 1).tolist()] if len(rows.nll) else []
    for first, stop in zip(firsts, [*firsts[1:], len(rows.nll)], strict=True):
        place = int(rows.sample_id[first]), int(rows.corpus[first])
        found[place].append(_Document(first, stop, int(rows.document_tokens[first])))
    return found


def _read(dataset_url: str, index: DatasetIndex, *, last_sample: int) -> list[_Conversation]:
    """The conversations that have a part in the validation rows up to `last_sample`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not any(file.name.startswith(PREFIX) for file in index.files):
        log.warning("%s was prepared by an older version: languages are not known", dataset_url)
        return []
    corpora = {name: number for number, name in enumerate(index.corpora)}
    found: list[_Conversation] = []
    for table in read_provenance(dataset_url, index, columns=_COLUMNS):
        for row in table.filter(pc.equal(table["split"], pa.scalar("validation"))).to_pylist():
            samples, dropped = row["sample_ids"], row["dropped_tokens"]
            if samples and min(samples) <= last_sample:
                found.append(
                    _Conversation(
                        number=len(found),
                        key=row["key"],
                        language=row["language"] or UNKNOWN,
                        tokens=row["tokens"] - dropped,
                        places=tuple((sample, corpora[row["corpus"]]) for sample in samples),
                        is_whole=len(samples) == 1 and not dropped,
                    )
                )
    return found


def _match(documents: Mapping[Place, list[_Document]], known: Iterable[_Conversation]) -> dict[int, _Conversation]:
    """The conversation of each document for which it is certain, by the document's `first`."""
    free = defaultdict(list, {place: list(found) for place, found in documents.items()})
    matched: dict[int, _Conversation] = {}
    whole: dict[tuple[Place, int], list[_Conversation]] = defaultdict(list)
    waiting: list[_Conversation] = []
    for each in known:
        if each.is_whole:
            whole[each.places[0], each.tokens].append(each)
        elif all(place in documents for place in each.places):
            waiting.append(each)
    for (place, tokens), alike in whole.items():
        fitting = [document for document in free[place] if document.tokens == tokens]
        if len(fitting) == len(alike):
            alike.sort(key=lambda each: each.key)
            _take(free, place, fitting)
            matched.update((document.first, each) for document, each in zip(fitting, alike, strict=True))
    while waiting:  # what one conversation takes leaves the others less to choose from
        unclear = []
        for each in waiting:
            if (parts := _only_choice(each, free)) is None:
                unclear.append(each)
                continue
            for place, document in parts:
                _take(free, place, [document])
                matched[document.first] = each
        if len(unclear) == len(waiting):
            break
        waiting = unclear
    return matched


def _only_choice(conversation: _Conversation, free: _Free) -> list[tuple[Place, _Document]] | None:
    """The documents that are a conversation's parts, where but one choice has its length."""
    choices = [
        list(combinations([(place, document) for document in free[place]], count))
        for place, count in Counter(conversation.places).items()
    ]
    if prod(map(len, choices)) > _MOST_CHOICES:
        return None
    parts = (list(chain(*chosen)) for chosen in product(*choices))
    fitting = [each for each in parts if sum(document.tokens for _, document in each) == conversation.tokens]
    return fitting[0] if len(fitting) == 1 else None


def _take(free: _Free, place: Place, taken: list[_Document]) -> None:
    free[place] = [document for document in free[place] if document not in taken]
