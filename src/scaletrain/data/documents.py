"""Tokenised documents between tokenising and packing: on local disk, memory-mapped, found by number.

They take 5 bytes a token in a temporary folder (TMPDIR); what is held in memory is about 200 bytes a document.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from scaletrain.data.formats import BAD_ROW
from scaletrain.data.tokenise import DOCUMENTS
from scaletrain.errors import StorageError

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Chunk:
    """One table as it arrived: values and offsets of its list columns, not copied from the file."""

    input_ids: npt.NDArray[np.int32]
    supervised: npt.NDArray[np.uint8]
    token_offsets: Ints
    turn_starts: npt.NDArray[np.int32]
    turn_offsets: Ints


@dataclass(frozen=True)
class Documents:
    """All rows of all corpora, as they arrived; a row without a document has a reason, and no tokens.

    corpus, file, row: where a row stood. key: uint64 [rows, 2], a hash of what is said. reason: None for a document.
    num_tokens, num_supervised, num_turns: of the document.
    """

    corpus: Ints
    file: Ints
    row: Ints
    key: npt.NDArray[np.uint64]
    reason: npt.NDArray[np.object_]
    has_document: npt.NDArray[np.bool_]
    num_tokens: Ints
    num_supervised: Ints
    num_turns: Ints
    _sources: pa.Table
    _chunks: Sequence[_Chunk]
    _chunk_starts: Ints

    def __len__(self) -> int:
        return len(self.corpus)

    def tokens(self, document: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8]]:
        """Return a document's token ids, and for each 1 where it is supervised."""
        chunk, index = self._find(document)
        span = slice(chunk.token_offsets[index], chunk.token_offsets[index + 1])
        return chunk.input_ids[span], chunk.supervised[span]

    def turn_starts(self, document: int) -> npt.NDArray[np.int32]:
        """Return the tokens at which a document's turns begin."""
        chunk, index = self._find(document)
        return chunk.turn_starts[chunk.turn_offsets[index] : chunk.turn_offsets[index + 1]]

    def where(self, row: int) -> str:
        """Say where a row was read (file:line), and what more is known of why there is no document."""
        source, detail = (self._sources[name][row].as_py() for name in ("source", "detail"))
        return f"{source}: {detail}" if detail else str(source)

    def kept(self, inside: npt.NDArray[np.bool_]) -> Ints:
        """Return the numbers of the rows `inside` that have a document."""
        return np.flatnonzero(inside & self.has_document)

    def within_limits(self, limits: Sequence[int | None]) -> npt.NDArray[np.bool_]:
        """Mark the rows up to each corpus's first `limit` conversations, in the order of its files."""
        inside = np.ones(len(self), dtype=np.bool_)
        for corpus, limit in enumerate(limits):
            if limit is not None:
                rows = np.flatnonzero(self.corpus == corpus)
                rows = rows[np.lexsort((self.row[rows], self.file[rows]))]
                is_conversation = self.reason[rows] != BAD_ROW
                inside[rows] = np.cumsum(is_conversation) - is_conversation < limit
        return inside

    def _find(self, document: int) -> tuple[_Chunk, int]:
        number = int(np.searchsorted(self._chunk_starts, document, side="right")) - 1
        return self._chunks[number], document - int(self._chunk_starts[number])


def collect(tables: Iterable[pa.Table], path: Path, *, on_rows: Callable[[int], None]) -> Documents:
    """Write tables of DOCUMENTS to a local file as they arrive, and return them all; `on_rows` is told each size."""
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, DOCUMENTS) as writer:
        for table in tables:
            try:
                writer.write_table(table.combine_chunks())
            except OSError as exc:
                raise StorageError(
                    f"{path}: {exc}; tokenised documents lie there until they are packed: free space, or set TMPDIR"
                ) from exc
            on_rows(len(table))
    with pa.memory_map(str(path)) as mapped:
        table = pa.ipc.open_file(mapped).read_all()
    batches = [batch for batch in table.to_batches() if len(batch)]
    chunks = [_chunk(batch) for batch in batches]
    keys = [key or bytes(16) for key in table["key"].to_pylist()]
    return Documents(
        corpus=table["corpus"].to_numpy().astype(np.int64),
        file=table["file"].to_numpy().astype(np.int64),
        row=table["row"].to_numpy().astype(np.int64),
        key=np.frombuffer(b"".join(keys), dtype=">u8").reshape(-1, 2).astype(np.uint64),
        reason=np.array(table["reason"].to_pylist(), dtype=object),
        has_document=table["reason"].is_null().to_numpy(),
        num_tokens=_concatenated([np.diff(chunk.token_offsets) for chunk in chunks]),
        num_supervised=_concatenated([_sums(chunk.supervised, chunk.token_offsets) for chunk in chunks]),
        num_turns=_concatenated([np.diff(chunk.turn_offsets) for chunk in chunks]),
        _sources=table.select(["source", "detail"]),
        _chunks=chunks,
        _chunk_starts=_concatenated([np.array([0]), np.cumsum([len(batch) for batch in batches])])[:-1],
    )


def _chunk(batch: pa.RecordBatch) -> _Chunk:
    ids, supervised, starts = (
        cast("pa.LargeListArray[Any]", batch.column(name)) for name in ("input_ids", "supervised", "turn_starts")
    )
    return _Chunk(
        input_ids=ids.values.to_numpy(),
        supervised=supervised.values.to_numpy(),
        token_offsets=ids.offsets.to_numpy(),
        turn_starts=starts.values.to_numpy(),
        turn_offsets=starts.offsets.to_numpy(),
    )


def _sums(values: npt.NDArray[np.uint8], offsets: Ints) -> Ints:
    totals: Ints = np.concatenate([[0], np.cumsum(values, dtype=np.int64)])
    return cast(Ints, totals[offsets[1:]] - totals[offsets[:-1]])


def _concatenated(arrays: Sequence[npt.NDArray[np.integer]]) -> Ints:
    return np.concatenate([np.zeros(0, np.int64), *arrays]).astype(np.int64)
