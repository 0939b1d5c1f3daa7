"""Conversations become tokenised documents: cleaned, encoded, and given a fingerprint; row by row accounted for."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from scaletrain.config_data import DataSection
from scaletrain.data.chat_template import Encoded
from scaletrain.data.cleaning import Step, clean, load_steps
from scaletrain.data.conversation import Conversation, Drop, Turn
from scaletrain.data.excerpts import excerpt_of_dropped
from scaletrain.data.leakage import LEAKED, Leakage
from scaletrain.data.near_duplicates import NO_FINGERPRINT, Banding, Fingerprint, banding, fingerprint
from scaletrain.data.ngrams import hash_units, units
from scaletrain.data.pairs import clean_pair, encode_documents, key_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Where a row stood (corpus, file of the corpus, row of the file), and why it gave no document; null where it did.
# count: how many rows of the dump it stands for, where a format counts those that it leaves out.
_RECORD: dict[str, pa.DataType] = {
    "corpus": pa.int32(),
    "file": pa.int32(),
    "row": pa.int64(),
    "source": pa.string(),
    "reason": pa.string(),
    "detail": pa.string(),
    "count": pa.int64(),
}
# What is known of a conversation, by the names of its fields; `changes` is null where a format gave no conversation.
KNOWN: dict[str, pa.DataType] = {
    "id": pa.string(),
    "authors": pa.list_(pa.string()),
    "language": pa.string(),
    "licence": pa.string(),
    "changes": pa.list_(pa.string()),
    "annotations": pa.map_(pa.string(), pa.float64()),
}
# rejected: the other answer of a pair, null where there is none.
CONVERSATIONS = pa.schema(
    {
        **_RECORD,
        **KNOWN,
        "roles": pa.list_(pa.string()),
        "contents": pa.list_(pa.string()),
        "rejected": pa.string(),
    }
)
# The cleaning step that dropped a conversation, and the beginning of what it said, for the report.
_DROPPED: dict[str, pa.DataType] = {"step": pa.string(), "excerpt": pa.string()}
# key: a hash of what is said, equal for equal conversations. supervised: 0 or 1. bands and sketch: its fingerprint.
# Empty where there is no document.
DOCUMENTS = pa.schema(
    {
        **_RECORD,
        **KNOWN,
        **_DROPPED,
        "key": pa.binary(16),
        "input_ids": pa.large_list(pa.int32()),
        "supervised": pa.large_list(pa.uint8()),
        "turn_starts": pa.large_list(pa.int32()),
        "bands": pa.large_list(pa.uint32()),
        "sketch": pa.large_list(pa.uint32()),
    }
)


@dataclass(frozen=True)
class Encoder:
    """What encoding needs; banding is None where near-duplicates stay."""

    steps: Sequence[Step]
    tokenizer: "PreTrainedTokenizerBase"
    banding: Banding | None
    leakage: Leakage | None

    def fingerprint(self, conversation: Conversation) -> Fingerprint:
        """Return a conversation's fingerprint, or raise Drop where it quotes a benchmark.

        Pairs have none: those of one prompt are alike, and each says something else.
        """
        banding = self.banding if conversation.rejected is None else None
        if banding is None and self.leakage is None:
            return NO_FINGERPRINT
        texts = [turn.content for turn in conversation.turns if turn.role != "system"]
        said = hash_units(units("\n".join([*texts, conversation.rejected or ""])))
        if self.leakage is not None and (quoted := self.leakage.find(said)) is not None:
            raise Drop(LEAKED, quoted)
        return NO_FINGERPRINT if banding is None else fingerprint(said, banding)


def make_encoder(section: DataSection, tokenizer: "PreTrainedTokenizerBase", leakage: Leakage | None) -> Encoder:
    """Return what the data section asks for; ConfigError for a cleaning step that cannot be loaded."""
    how = banding(section.similarity) if section.duplicates == "near" else None
    return Encoder(load_steps(section), tokenizer, how, leakage)


def encode_table(conversations: pa.Table, encoder: Encoder) -> pa.Table:
    """Clean and encode a table of CONVERSATIONS; what is dropped keeps its row, with the reason."""
    num_rows = len(conversations)
    columns = {name: conversations[name].to_pylist() for name in _RECORD | KNOWN}
    columns |= {name: [None] * num_rows for name in _DROPPED}
    fingerprints = [NO_FINGERPRINT] * num_rows
    cleaned: dict[int, Conversation] = {}
    for row, conversation in _conversations(conversations, columns):
        try:
            clean_it = clean if conversation.rejected is None else clean_pair
            cleaned[row] = clean_it(conversation, encoder.steps)
            fingerprints[row] = encoder.fingerprint(cleaned[row])
        except Drop as drop:
            _note(columns, row, cleaned.pop(row, conversation), drop)
    keys: list[bytes | None] = [None] * num_rows
    documents = [Encoded(np.zeros(0, np.int32), np.zeros(0, np.bool_), np.zeros(0, np.int32))] * num_rows
    encoded = encode_documents(list(cleaned.values()), encoder.tokenizer)
    for (row, conversation), document in zip(cleaned.items(), encoded, strict=True):
        if isinstance(document, Drop):
            _note(columns, row, conversation, document)
            continue
        _note(columns, row, conversation)
        documents[row] = document
        keys[row] = key_of(conversation)
    arrays: list[pa.Array[Any]] = [pa.array(columns[name], kind) for name, kind in (_RECORD | KNOWN | _DROPPED).items()]
    arrays.append(pa.array(keys, DOCUMENTS.field("key").type))
    arrays.append(_list_array("input_ids", [each.input_ids for each in documents]))
    arrays.append(_list_array("supervised", [each.supervised.view(np.uint8) for each in documents]))
    arrays.append(_list_array("turn_starts", [each.turn_starts for each in documents]))
    arrays.append(_list_array("bands", [each.bands for each in fingerprints]))
    arrays.append(_list_array("sketch", [each.sketch for each in fingerprints]))
    return pa.Table.from_arrays(arrays, schema=DOCUMENTS)


def _conversations(table: pa.Table, columns: dict[str, list[Any]]) -> Iterator[tuple[int, Conversation]]:
    """Yield the conversations of a table of CONVERSATIONS with their rows; `columns` are its others as Python's."""
    lists: list[Any] = [table[name].combine_chunks() for name in ("roles", "contents")]
    rejected = table["rejected"].to_pylist()
    roles, contents = (each.flatten().to_numpy(zero_copy_only=False).tolist() for each in lists)
    stops = np.cumsum(lists[0].value_lengths().fill_null(0).to_numpy()).tolist()
    start = 0
    for row, (reason, source, stop) in enumerate(zip(columns["reason"], columns["source"], stops, strict=True)):
        if reason is None:
            turns = tuple(map(Turn, roles[start:stop], contents[start:stop]))
            values = {name: columns[name][row] for name in KNOWN}
            known: dict[str, Any] = {
                name: tuple(each) if isinstance(each, list) else each for name, each in values.items()
            }
            yield row, Conversation(turns, source=source, rejected=rejected[row], **known)
        start = stop


def _note(columns: dict[str, list[Any]], row: int, conversation: Conversation, drop: Drop | None = None) -> None:
    """Write down what is known of a conversation, and why it was dropped if it was."""
    if drop is not None:
        conversation = drop.conversation or conversation
        columns["reason"][row], columns["detail"][row], columns["step"][row] = drop.reason, drop.detail, drop.step
        columns["excerpt"][row] = excerpt_of_dropped(conversation, drop)
    for name in KNOWN:
        columns[name][row] = getattr(conversation, name)


def _list_array(name: str, values: Sequence[npt.NDArray[Any]]) -> "pa.Array[Any]":
    kind = cast("pa.LargeListType[Any]", DOCUMENTS.field(name).type)
    offsets = np.concatenate([[0], np.cumsum([len(each) for each in values])])
    flat: pa.Array[Any] = pa.array(np.concatenate(values) if len(values) else [], kind.value_type)
    return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), flat)
