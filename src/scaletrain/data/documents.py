"""Tokenised documents between tokenising and packing: on local disk, memory-mapped, found by number.

They take 5 bytes a token in a temporary folder (TMPDIR), and their fingerprints up to 2.1 kB a document more; what is
held in memory is about 250 bytes a document.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from scaletrain.data.encoding import DOCUMENTS
from scaletrain.errors import StorageError

Ints = npt.NDArray[np.int64]
KNOWN = ["source", "detail", "id", "language", "licence", "changes", "annotations", "step", "excerpt"]


@dataclass(frozen=True)
class _Chunk:
    """One table as it arrived: values and offsets of its list columns, not copied from the file."""

    input_ids: npt.NDArray[np.int32]
    supervised: npt.NDArray[np.uint8]
    token_offsets: Ints
    turn_starts: npt.NDArray[np.int32]
    turn_offsets: Ints
    bands: npt.NDArray[np.uint32]
    band_offsets: Ints
    sketches: npt.NDArray[np.uint32]
    sketch_offsets: Ints


@dataclass(frozen=True)
class Documents:
    """All rows of all corpora, as they arrived; a row without a document has a reason, and no tokens.

    corpus, file, row: where a row stood. count: rows of the dump that it stands for. key: uint64 [rows, 2], a hash of
    what is said. reason: None for a document. num_tokens, num_supervised, num_turns: of the document. known: the
    columns KNOWN of DOCUMENTS, memory-mapped. authors: lists of names or null, memory-mapped. duplicate_of: of what was
    left out as a duplicate the row that stays, else -1.
    """

    corpus: Ints
    file: Ints
    row: Ints
    count: Ints
    key: npt.NDArray[np.uint64]
    reason: npt.NDArray[np.object_]
    has_document: npt.NDArray[np.bool_]
    num_tokens: Ints
    num_supervised: Ints
    num_turns: Ints
    has_fingerprint: npt.NDArray[np.bool_]
    known: pa.Table
    authors: "pa.ChunkedArray[Any]"
    duplicate_of: Ints
    _known_chunks: Sequence[pa.RecordBatch]
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
        source, detail = (self.known[name][row].as_py() for name in ("source", "detail"))
        if self.duplicate_of[row] >= 0:
            detail = self._same_as(row)
        return f"{source}: {detail}" if detail else str(source)

    def details(self, rows: Ints) -> pa.Table:
        """Return the rows' part of `known`, in their order; `known.take` would copy whole columns for it."""
        chunks = np.searchsorted(self._chunk_starts, rows, side="right") - 1
        by_chunk = np.argsort(chunks, kind="stable")
        firsts = np.flatnonzero(np.diff(chunks[by_chunk], prepend=-1))
        parts = [
            self._known_chunks[chunks[group[0]]].take(pa.array(rows[group] - self._chunk_starts[chunks[group[0]]]))
            for group in np.split(by_chunk, firsts[1:])
            if len(group)
        ]
        in_order = pa.Table.from_batches(parts, schema=self.known.schema).combine_chunks()
        table = in_order.take(np.argsort(by_chunk))
        duplicates = self.duplicate_of[rows] >= 0
        if not duplicates.any():
            return table
        same_as = [self._same_as(row) if yes else None for row, yes in zip(rows.tolist(), duplicates, strict=True)]
        detail: Any = pc.coalesce(pa.array(same_as, pa.string()), table["detail"])
        return table.set_column(table.schema.get_field_index("detail"), "detail", detail)

    def bands_of(self, rows: Ints) -> Iterator[npt.NDArray[np.uint32]]:
        """Yield for each band its value of each of these rows, which must all have a fingerprint."""
        places = np.cumsum(self.has_fingerprint)[rows] - 1
        count = max((int(np.diff(chunk.band_offsets).max()) for chunk in self._chunks), default=0)
        for band in range(count):
            yield np.concatenate([chunk.bands[band::count] for chunk in self._chunks])[places]

    def sketch(self, document: int) -> npt.NDArray[np.uint32]:
        """Return the sketch of a document's fingerprint."""
        chunk, index = self._find(document)
        return chunk.sketches[chunk.sketch_offsets[index] : chunk.sketch_offsets[index + 1]]

    def strata(self) -> Ints:
        """Return a number of each row's corpus and language; equal input gives equal numbers."""
        column: Any = self.known["language"]
        words = column.fill_null("").dictionary_encode().combine_chunks()
        names = words.dictionary.to_pylist()
        places: Ints = np.argsort(np.argsort(names)).astype(np.int64)
        return cast(Ints, self.corpus * len(names) + places[words.indices.to_numpy()])

    def left_out(self, rows: Ints, reason: str, *, because_of: Ints | None = None) -> "Documents":
        """Return the same with these rows left out for a reason; duplicates `because_of` the rows that stay."""
        reasons, has_document, duplicate_of = self.reason.copy(), self.has_document.copy(), self.duplicate_of.copy()
        reasons[rows] = reason
        has_document[rows] = False
        if because_of is not None:
            duplicate_of[rows] = because_of
        return replace(self, reason=reasons, has_document=has_document, duplicate_of=duplicate_of)

    def _same_as(self, row: int) -> str:
        return f"as {self.known['source'][int(self.duplicate_of[row])].as_py()}"

    def kept(self, inside: npt.NDArray[np.bool_]) -> Ints:
        """Return the numbers of the rows `inside` that have a document."""
        return np.flatnonzero(inside & self.has_document)

    def within_limits(self, limits: Sequence[int | None]) -> npt.NDArray[np.bool_]:
        """Mark the rows up to each corpus's last conversation of `limit`, in the order of its files.

        What cleaning drops is a conversation; rows that gave none, unreadable or of no use, do not count.
        """
        inside = np.ones(len(self), dtype=np.bool_)
        gave_one: npt.NDArray[np.bool_] = self.known["changes"].is_valid().to_numpy()
        for corpus, limit in enumerate(limits):
            if limit is not None:
                rows = np.flatnonzero(self.corpus == corpus)
                rows = rows[np.lexsort((self.row[rows], self.file[rows]))]
                before: Ints = np.cumsum(gave_one[rows]) - gave_one[rows]
                inside[rows] = before < limit
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
        count=table["count"].to_numpy().astype(np.int64),
        key=np.frombuffer(b"".join(keys), dtype=">u8").reshape(-1, 2).astype(np.uint64),
        reason=np.array(table["reason"].to_pylist(), dtype=object),
        has_document=table["reason"].is_null().to_numpy(),
        num_tokens=_concatenated([np.diff(chunk.token_offsets) for chunk in chunks]),
        num_supervised=_concatenated([_sums(chunk.supervised, chunk.token_offsets) for chunk in chunks]),
        num_turns=_concatenated([np.diff(chunk.turn_offsets) for chunk in chunks]),
        has_fingerprint=_concatenated([np.diff(chunk.band_offsets) for chunk in chunks]).astype(np.bool_),
        known=table.select(KNOWN),
        authors=table["authors"],
        duplicate_of=np.full(len(table), -1, np.int64),
        _known_chunks=[batch.select(KNOWN) for batch in batches],
        _chunks=chunks,
        _chunk_starts=_concatenated([np.array([0]), np.cumsum([len(batch) for batch in batches])])[:-1],
    )


def _chunk(batch: pa.RecordBatch) -> _Chunk:
    ids, supervised, starts, bands, sketches = (
        cast("pa.LargeListArray[Any]", batch.column(name))
        for name in ("input_ids", "supervised", "turn_starts", "bands", "sketch")
    )
    return _Chunk(
        input_ids=ids.values.to_numpy(),
        supervised=supervised.values.to_numpy(),
        token_offsets=ids.offsets.to_numpy(),
        turn_starts=starts.values.to_numpy(),
        turn_offsets=starts.offsets.to_numpy(),
        bands=bands.values.to_numpy(),
        band_offsets=bands.offsets.to_numpy(),
        sketches=sketches.values.to_numpy(),
        sketch_offsets=sketches.offsets.to_numpy(),
    )


def _sums(values: npt.NDArray[np.uint8], offsets: Ints) -> Ints:
    totals: Ints = np.concatenate([[0], np.cumsum(values, dtype=np.int64)])
    return cast(Ints, totals[offsets[1:]] - totals[offsets[:-1]])


def _concatenated(arrays: Sequence[npt.NDArray[np.integer]]) -> Ints:
    return np.concatenate([np.zeros(0, np.int64), *arrays]).astype(np.int64)
