"""Conversations become tokenised documents: cleaned, encoded, and given a fingerprint; row by row accounted for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import xxhash

from scaletrain.config import DataSection
from scaletrain.data.chat_template import Encoded, encode
from scaletrain.data.cleaning import Step, clean, load_steps
from scaletrain.data.conversation import Conversation, Drop, Turn
from scaletrain.data.excerpts import excerpt_of_dropped
from scaletrain.data.leakage import LEAKED, Leakage
from scaletrain.data.near_duplicates import NO_FINGERPRINT, Banding, Fingerprint, banding, fingerprint
from scaletrain.data.ngrams import hash_units, units

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
CONVERSATIONS = pa.schema({**_RECORD, **KNOWN, "roles": pa.list_(pa.string()), "contents": pa.list_(pa.string())})
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
        """Return a conversation's fingerprint, or raise Drop where it quotes a benchmark."""
        if self.banding is None and self.leakage is None:
            return NO_FINGERPRINT
        said = hash_units(units("\n".join(turn.content for turn in conversation.turns if turn.role != "system")))
        if self.leakage is not None and (quoted := self.leakage.find(said)) is not None:
            raise Drop(LEAKED, quoted)
        return NO_FINGERPRINT if self.banding is None else fingerprint(said, self.banding)


def make_encoder(section: DataSection, tokenizer: "PreTrainedTokenizerBase", leakage: Leakage | None) -> Encoder:
    """Return what the data section asks for; ConfigError for a cleaning step that cannot be loaded."""
    how = banding(section.similarity) if section.duplicates == "near" else None
    return Encoder(load_steps(section), tokenizer, how, leakage)


def encode_table(conversations: pa.Table, encoder: Encoder) -> pa.Table:
    """Clean and encode a table of CONVERSATIONS; what is dropped keeps its row, with the reason."""
    rows = conversations.to_pylist()
    nothing = Encoded(np.zeros(0, np.int32), np.zeros(0, np.bool_), np.zeros(0, np.int32))
    keys: list[bytes | None] = [None] * len(rows)
    documents = [nothing] * len(rows)
    fingerprints = [NO_FINGERPRINT] * len(rows)
    for i, row in enumerate(rows):
        if row["reason"] is not None:
            continue
        conversation = _conversation(row)
        try:
            conversation = clean(conversation, encoder.steps)
            fingerprints[i] = encoder.fingerprint(conversation)
            documents[i] = encode(conversation, encoder.tokenizer)
            keys[i] = xxhash.xxh3_128_digest(orjson.dumps(conversation.messages()))
        except Drop as drop:
            conversation = drop.conversation or conversation
            row |= {"reason": drop.reason, "detail": drop.detail, "step": drop.step}
            row["excerpt"] = excerpt_of_dropped(conversation, drop)
        row |= {name: getattr(conversation, name) for name in KNOWN}
    arrays: list[pa.Array[Any]] = [
        pa.array([row.get(name) for row in rows], kind) for name, kind in (_RECORD | KNOWN | _DROPPED).items()
    ]
    arrays.append(pa.array(keys, DOCUMENTS.field("key").type))
    arrays.append(_list_array("input_ids", [each.input_ids for each in documents]))
    arrays.append(_list_array("supervised", [each.supervised.view(np.uint8) for each in documents]))
    arrays.append(_list_array("turn_starts", [each.turn_starts for each in documents]))
    arrays.append(_list_array("bands", [each.bands for each in fingerprints]))
    arrays.append(_list_array("sketch", [each.sketch for each in fingerprints]))
    return pa.Table.from_arrays(arrays, schema=DOCUMENTS)


def _conversation(row: dict[str, Any]) -> Conversation:
    """The conversation of a row of CONVERSATIONS."""
    turns = tuple(Turn(role, text) for role, text in zip(row["roles"], row["contents"], strict=True))
    known: dict[str, Any] = {name: tuple(row[name]) if isinstance(row[name], list) else row[name] for name in KNOWN}
    return Conversation(turns, source=row["source"], **known)


def _list_array(name: str, values: Sequence[npt.NDArray[Any]]) -> "pa.Array[Any]":
    kind = cast("pa.LargeListType[Any]", DOCUMENTS.field(name).type)
    offsets = np.concatenate([[0], np.cumsum([len(each) for each in values])])
    flat: pa.Array[Any] = pa.array(np.concatenate(values) if len(values) else [], kind.value_type)
    return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), flat)
