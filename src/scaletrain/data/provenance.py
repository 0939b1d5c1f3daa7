"""What became of every row of the corpora: Parquet files beside the shards, one row for each row that was read.

    corpus, source, id       which corpus; file:line or file:key where it was read; what the dump calls it
    rows                     1, or how many of the dump's rows it stands for, where a format counts what it leaves out
    language, licence        as far as known, else empty
    changes                  the cleaning steps that changed it, in order
    annotations              what cleaning steps counted in it, by name
    key                      hash of what is said after cleaning, in hex; null where cleaning left it out
    reason, detail, step     why it was left out, what is particular to it, and the cleaning step; null where kept
    split, sample_ids        where it is, and the rows of that split that hold it
    turns, tokens            of the conversation as it was tokenised; 0 where it was left out before
    dropped_tokens           of these, the tokens that are in no sample: packing left them out

Rows come in the order of corpora, files and rows, so equal input gives equal bytes. What people said is not in here,
nor are the names of those who said it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from scaletrain import storage
from scaletrain.data import shards
from scaletrain.data.dataset_files import FileInfo, damage, upload_file
from scaletrain.data.shards import DatasetIndex
from scaletrain.errors import ConfigError, DataError
from scaletrain.log import visible
from scaletrain.scratch import scratch_folder

if TYPE_CHECKING:
    import pyarrow as pa

    from scaletrain.data.documents import Documents, Ints
    from scaletrain.data.row_plan import SplitPlan

PREFIX = "provenance-"
_ROWS_PER_GROUP = 2**16
_ROWS_PER_FILE = 2**20
_LIVES_SHOWN = 20
_KNOWN = ("source", "id", "language", "licence", "changes", "annotations", "detail", "step")


# ---- writing -------------------------------------------------------------------------------------------------------


def write_provenance(
    documents: "Documents",
    inside: npt.NDArray[np.bool_],
    plans: "Mapping[str, SplitPlan]",
    dataset_url: str,
    *,
    corpora: Sequence[str],
) -> tuple[FileInfo, ...]:
    """Write a row for every row `inside` the limits; returns what the index says of the files.

    Beside documents and plans it takes some 75 bytes of memory for each row and piece. Raises StorageError.
    """
    import pyarrow.parquet as pq

    rows = in_order_of_reading(documents, np.flatnonzero(inside))
    places = _places(documents, plans)
    files = []
    with scratch_folder("provenance") as folder:
        for number, first in enumerate(range(0, max(len(rows), 1), _ROWS_PER_FILE)):
            path = folder / f"{PREFIX}{number:05d}.parquet"
            with pq.ParquetWriter(path, _schema(), compression="zstd") as writer:
                for start in range(first, min(first + _ROWS_PER_FILE, len(rows)), _ROWS_PER_GROUP):
                    writer.write_table(_table(documents, rows[start : start + _ROWS_PER_GROUP], places, corpora))
            files.append(upload_file(path, dataset_url))
            path.unlink()
    return tuple(files)


def in_order_of_reading(documents: "Documents", rows: "Ints") -> "Ints":
    """Return rows in the order of corpora, their files, and the rows of these."""
    order = np.lexsort((documents.row[rows], documents.file[rows], documents.corpus[rows]))
    return rows[order]


@dataclass(frozen=True)
class _Places:
    """Where documents went. Their pieces, by document: `documents[i]` is in the sample `sample_ids[i]` of its split."""

    splits: Sequence[str]
    split: npt.NDArray[np.int8]  # of each document, -1: none
    dropped_tokens: "Ints"
    documents: "Ints"
    sample_ids: "Ints"

    def samples_of(self, rows: "Ints") -> tuple["Ints", "Ints"]:
        """Return the sample ids of some documents one behind the other, and where those of each begin (and end)."""
        starts = np.searchsorted(self.documents, rows, side="left")
        counts = np.searchsorted(self.documents, rows, side="right") - starts
        offsets = np.concatenate([[0], np.cumsum(counts)])
        found = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], counts)
        return self.sample_ids[found], offsets


def _places(documents: "Documents", plans: "Mapping[str, SplitPlan]") -> _Places:
    split = np.full(len(documents), -1, np.int8)
    dropped_tokens = np.zeros(len(documents), np.int64)
    owners, sample_ids = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for number, plan in enumerate(plans.values()):
        split[plan.documents] = number
        pieces = np.array([piece.document for row in plan.rows for piece in row], dtype=np.int64)
        owners.append(plan.documents[pieces])
        sample_ids.append(np.repeat(np.arange(len(plan.rows)), [len(row) for row in plan.rows]))
        for document, count in _in_no_row(plan, documents.num_tokens).items():
            dropped_tokens[document] = count
    owner, sample = np.concatenate(owners), np.concatenate(sample_ids)
    order = np.lexsort((sample, owner))
    return _Places(list(plans), split, dropped_tokens, owner[order], sample[order])


def _in_no_row(plan: "SplitPlan", num_tokens: "Ints") -> dict[int, int]:
    """Count each document's tokens that no row has; of one that is there several times, any copy's row will do."""
    is_left_out: dict[int, npt.NDArray[np.bool_]] = {}
    for piece, _ in plan.dropped:
        document = int(plan.documents[piece.document])
        spans = is_left_out.setdefault(document, np.zeros(num_tokens[document], np.bool_))
        spans[piece.start : piece.stop] = True
    for piece in (piece for row in plan.rows for piece in row) if is_left_out else ():
        if (document := int(plan.documents[piece.document])) in is_left_out:
            is_left_out[document][piece.start : piece.stop] = False
    return {document: int(spans.sum()) for document, spans in is_left_out.items()}


def _table(documents: "Documents", rows: "Ints", places: _Places, corpora: Sequence[str]) -> "pa.Table":
    import pyarrow as pa
    import pyarrow.compute as pc

    known = documents.details(rows)
    sample_ids, offsets = places.samples_of(rows)
    keys = [f"{high:016x}{low:016x}" if high or low else None for high, low in documents.key[rows].tolist()]
    columns: dict[str, Any] = {name: known[name] for name in _KNOWN}
    columns |= {
        "rows": documents.count[rows],
        "corpus": [corpora[number] for number in documents.corpus[rows].tolist()],
        "key": keys,
        "reason": documents.reason[rows].tolist(),
        "split": [places.splits[number] if number >= 0 else None for number in places.split[rows].tolist()],
        "sample_ids": pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(sample_ids)),
        "turns": documents.num_turns[rows],
        "tokens": documents.num_tokens[rows],
        "dropped_tokens": places.dropped_tokens[rows],
    }
    for name in ("id", "language", "licence"):
        columns[name] = columns[name].fill_null("")
    for name in ("changes", "annotations"):
        columns[name] = pc.coalesce(columns[name], pa.scalar([], _schema().field(name).type))
    return pa.table({name: columns[name] for name in _schema().names}).cast(_schema())


def _schema() -> "pa.Schema":
    import pyarrow as pa

    text, number = pa.string(), pa.int64()
    kinds: dict[str, pa.DataType] = {
        **dict.fromkeys(("corpus", "source", "id"), text),
        "rows": number,
        **dict.fromkeys(("language", "licence"), text),
        "changes": pa.list_(text),
        "annotations": pa.map_(text, pa.float64()),
        **dict.fromkeys(("key", "reason", "detail", "step", "split"), text),
        "sample_ids": pa.list_(number),
        **dict.fromkeys(("turns", "tokens", "dropped_tokens"), number),
    }
    return pa.schema(kinds)


# ---- reading -------------------------------------------------------------------------------------------------------


def read_provenance(
    dataset_url: str, index: DatasetIndex, *, columns: Sequence[str] | None = None
) -> "Iterator[pa.Table]":
    """Yield the provenance in its order, a row group at a time.

    Raises DataError where the dataset has none, or a file of it is damaged; StorageError.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = [file for file in index.files if file.name.startswith(PREFIX)]
    if not files:
        raise DataError(
            f"{dataset_url}: has no provenance, as datasets of older versions have none; remove the folder and run "
            "`scaletrain prepare` again"
        )
    with scratch_folder("provenance") as folder:
        for file in files:
            path, url = folder / file.name, storage.join(dataset_url, file.name)
            storage.download_file(url, path)
            if problem := damage(str(folder), file):
                raise DataError(f"{url}: {problem}; put the file back, or remove the folder and prepare again")
            with pq.ParquetFile(path) as parquet:
                for group in range(parquet.num_row_groups):
                    table: pa.Table = parquet.read_row_group(group, columns=list(columns) if columns else None)
                    yield table
            path.unlink()


@dataclass(frozen=True)
class Life:
    """One row of the provenance: what became of one row of a corpus."""

    corpus: str
    source: str
    id: str
    rows: int
    language: str
    licence: str
    changes: Sequence[str]
    key: str | None
    reason: str | None
    detail: str | None
    step: str | None
    split: str | None
    sample_ids: Sequence[int]
    turns: int
    tokens: int
    dropped_tokens: int
    annotations: Sequence[tuple[str, float]] = ()

    def lines(self, dataset_url: str) -> list[str]:
        """Tell it in plain words, a line for each fact."""
        told = [f"{self.corpus}: {self.source}"]
        if self.id:
            told.append(f"  id        {self.id}")
        if self.rows > 1:
            told.append(f"  rows      stands for {self.rows:,} of the dump")
        told.append(f"  language  {self.language or 'not known'}")
        told.append(f"  licence   {self.licence or 'NOT KNOWN: set licence in data.corpora'}")
        if self.reason is None or self.changes:
            told.append(f"  changed   {', '.join(self.changes) or 'by no cleaning step'}")
        if self.annotations:
            told.append(f"  counted   {', '.join(f'{name} {count:g}' for name, count in self.annotations)}")
        if self.reason is not None:
            by = f" by {self.step}" if self.step else ""
            told.append(f"  left out  {self.reason}{by}" + (f": {self.detail}" if self.detail else ""))
        if self.tokens:
            told.append(f"  length    {self.turns:,} turns, {self.tokens:,} tokens")
        if self.key:
            told.append(f"  key       {self.key}")
        if self.split is not None:
            lost = f"; packing left out {self.dropped_tokens:,} tokens" if self.dropped_tokens else ""
            ids = ", ".join(map(str, self.sample_ids)) or "none"
            told.append(f"  kept      split {self.split}, samples {ids}{lost}")
        if self.sample_ids:
            split = "" if self.split == "train" else f" --split {self.split}"
            told.append(f"  see it    scaletrain data show {dataset_url} --sample {self.sample_ids[0]}{split}")
        return [visible(" ".join(line.split("\n"))) for line in told]


def explain(dataset_url: str, wanted: str) -> list[Life]:
    """Find the rows with this original id, key, or source (file:line; the end of a path is enough), at most twenty.

    Raises ConfigError where there is none, DataError, StorageError.
    """
    index = shards.load_index(dataset_url)
    import pyarrow as pa
    import pyarrow.compute as pc

    found: list[Life] = []
    example = ""
    for table in read_provenance(dataset_url, index):
        if not example and len(table):
            example = str(table["source"][0].as_py())
        rows: Any = table
        is_it: Any = pc.ends_with(rows["source"], f"/{wanted}")
        for name, text in (("source", wanted), ("id", wanted), ("key", wanted.lower())):
            is_it = pc.or_kleene(is_it, pc.equal(rows[name], pa.scalar(text)))
        found += [Life(**row) for row in rows.filter(is_it).slice(0, _LIVES_SHOWN - len(found)).to_pylist()]
        if len(found) == _LIVES_SHOWN:
            break
    if not found:
        raise ConfigError(
            f"{wanted}: no such row was read for {dataset_url}; give the id that the dump has for it, a source as "
            f"{example.rsplit('/', 1)[-1] or 'file.jsonl:12'}, or a key (beyond a corpus's limit nothing is read)"
        )
    return found
