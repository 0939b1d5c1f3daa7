"""Rows of a dataset by their sample ids: row groups are fetched side by side, checked, decoded and put in order.

Every row group is one read, and only footers are kept. Footers are checked against the index, row groups against their
footer, rows against their sample ids: a shard that is not the one that was prepared is never trained on.

Shapes: N rows, T tokens of a row.
"""

import io
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xxhash

from scaletrain import storage
from scaletrain.data.shards import GROUP_CHECKSUMS, DatasetIndex, ShardInfo
from scaletrain.errors import DataError, NotFoundError

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.parquet import FileMetaData

_FETCHES_AT_ONCE = 16
_FOOTERS_KEPT = 8
_ANOTHER = "not the one that was prepared: damaged, or of another file"
_FOOTER_BYTES_PER_GROUP = 528  # somewhat more than it takes, so that one read is enough
_FOOTER_BYTES = 4096
_TAIL_BYTES = 8  # the footer's length, and the letters PAR1

Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Samples:
    """Decoded rows: sample_ids, tokens and supervised_tokens of shape [N], the others [N, T].

    `positions` counts from 0 in each document; `documents` numbers them from 1 in each row; `corpora` has the corpus of
    the document. Padding is document 0 of corpus -1.
    """

    sample_ids: Int64s
    input_ids: Int32s
    labels: Int32s
    positions: Int32s
    documents: Int32s
    corpora: Int32s
    tokens: Int32s
    supervised_tokens: Int32s


def read_samples(dataset_url: str, index: DatasetIndex, *, split: str, ids: Int64s) -> Samples:
    """Read the samples with the given ids, in their order; an id may occur more than once.

    Raises DataError that names the shard where it is missing, was replaced or is damaged; StorageError.
    """
    groups, places = np.unique(ids // index.row_group_rows, return_inverse=True)
    table = _read_groups(dataset_url, index, split, groups)
    rows = places * index.row_group_rows + ids % index.row_group_rows
    samples = _decode(table, rows, index.seq_len)
    if not np.array_equal(samples.sample_ids, ids):
        raise DataError(
            f"{dataset_url}: the rows of the {split} split are not where its index says; remove the folder and run "
            "`scaletrain prepare` again"
        )
    return samples


# ---- fetching ------------------------------------------------------------------------------------------------------


def _read_groups(dataset_url: str, index: DatasetIndex, split: str, groups: Int64s) -> "pa.Table":
    """Read row groups, counted over the whole split and ascending, into one table."""
    import pyarrow as pa

    shards = index.splits[split].shards
    shard_groups = [-(-shard.rows // index.row_group_rows) for shard in shards]
    first_groups = np.cumsum([0, *shard_groups])
    owners = np.searchsorted(first_groups, groups, side="right") - 1
    tables = []
    for owner in np.unique(owners).tolist():
        url, own_groups = storage.join(dataset_url, shards[owner].name), groups[owners == owner] - first_groups[owner]
        with _damage_reported(url):
            footer = _footer(url, shards[owner], shard_groups[owner])
            tables.append(_read_shard(url, footer, own_groups.tolist()))
    return pa.concat_tables(tables)


def _read_shard(url: str, footer: "_Footer", groups: list[int]) -> "pa.Table":
    """Read row groups of one shard."""
    import pyarrow.parquet as pq

    in_order = map if storage.is_local(url) else _fetchers().map
    fetched = list(in_order(lambda group: _fetch(url, footer, group), groups))
    file: Any = _Fetched([footer.byte_range(group)[0] for group in groups], fetched)
    parquet = pq.ParquetFile(file, metadata=footer.metadata, pre_buffer=False)
    return parquet.read_row_groups(groups, use_threads=False)


@dataclass(frozen=True)
class _Footer:
    """What a shard says of itself at its end, and the checksums of its row groups."""

    metadata: "FileMetaData"
    checksums: tuple[str, ...]

    def byte_range(self, group: int) -> tuple[int, int]:
        """Return where a row group starts and ends; columns lie one behind the other, without dictionaries."""
        columns = self.metadata.row_group(group)
        last = columns.column(columns.num_columns - 1)
        return columns.column(0).data_page_offset, last.data_page_offset + last.total_compressed_size


@lru_cache(maxsize=_FOOTERS_KEPT)
def _footer(url: str, shard: ShardInfo, num_groups: int) -> _Footer:
    """Read a shard's footer; the same read tells whether the file has the size that the index says."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    size_bytes = shard.size_bytes
    guess = min(size_bytes, _FOOTER_BYTES + _FOOTER_BYTES_PER_GROUP * num_groups)
    tail = storage.read_bytes(url, start=size_bytes - guess, length=guess + 1)
    if len(tail) != guess:
        raise _Damage(f"has {storage.info(url).size_bytes} bytes, the index says {size_bytes}")
    length = int.from_bytes(tail[-_TAIL_BYTES:-4], "little") + _TAIL_BYTES
    if guess < length <= size_bytes:
        tail = storage.read_bytes(url, start=size_bytes - length, length=length)
    if xxhash.xxh3_64_hexdigest(memoryview(tail)[-length:]) != shard.footer_checksum:
        raise _Damage(f"its footer is {_ANOTHER}")
    metadata = pq.read_metadata(pa.BufferReader(tail))
    assert metadata.metadata is not None
    return _Footer(metadata, tuple(metadata.metadata[GROUP_CHECKSUMS.encode()].decode().split()))


def _fetch(url: str, footer: _Footer, group: int) -> bytes:
    start, stop = footer.byte_range(group)
    data = storage.read_bytes(url, start=start, length=stop - start)
    if xxhash.xxh3_64_hexdigest(data) != footer.checksums[group]:
        raise _Damage(f"its row group {group} is {_ANOTHER}")
    return data


@cache
def _fetchers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_FETCHES_AT_ONCE, thread_name_prefix="fetch-rows")


class _Damage(Exception):
    """What is wrong with a shard's file."""


@contextmanager
def _damage_reported(url: str) -> Iterator[None]:
    """Raise DataError for a shard that is missing, or that Parquet cannot read."""
    import pyarrow as pa

    try:
        yield
    except NotFoundError as error:
        raise _unusable(url, "is missing") from error
    except _Damage as error:
        raise _unusable(url, str(error)) from error
    except (pa.ArrowException, OSError) as error:
        raise _unusable(url, f"is damaged ({error})") from error


def _unusable(url: str, problem: str) -> DataError:
    return DataError(f"{url}: {problem}; put the file back, or remove the folder and run `scaletrain prepare` again")


class _Fetched(io.RawIOBase):
    """A file of which only some ranges are there: what Parquet reads through, at the offsets of the whole file."""

    def __init__(self, starts: Sequence[int], ranges: Sequence[bytes]) -> None:
        self._starts = starts
        self._ranges = ranges
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        end = self._starts[-1] + len(self._ranges[-1])
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: end}[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, size: int = -1) -> bytes:
        number = bisect_right(self._starts, self._position) - 1
        begin = self._position - self._starts[number]
        data = self._ranges[number][begin : begin + size]
        self._position += len(data)
        return data


# ---- decoding ------------------------------------------------------------------------------------------------------


def _decode(table: "pa.Table", rows: Int64s, seq_len: int) -> Samples:
    """Take rows of a table as arrays, and spread what is said of documents over their tokens."""
    lengths, counts = _lists(table, "document_lengths", rows)
    corpora, _ = _lists(table, "document_corpora", rows)
    tokens = table["tokens"].to_numpy()[rows]
    # Padding becomes a last segment of every row, so that segments fill rows to the last token.
    row_ends = np.cumsum(counts)
    numbers = np.arange(1, len(lengths) + 1) - np.repeat(row_ends - counts, counts)
    segments = np.insert(lengths, row_ends, seq_len - tokens)
    starts = np.cumsum(segments) - segments

    def spread(values: Int64s | Int32s) -> Int32s:
        return np.repeat(values.astype(np.int32), segments).reshape(len(rows), seq_len)

    return Samples(
        sample_ids=table["sample_id"].to_numpy()[rows],
        input_ids=_tokens(table, "input_ids", seq_len)[rows],
        labels=_tokens(table, "labels", seq_len)[rows],
        positions=np.arange(len(rows) * seq_len, dtype=np.int32).reshape(-1, seq_len) - spread(starts),
        documents=spread(np.insert(numbers, row_ends, 0)),
        corpora=spread(np.insert(corpora, row_ends, -1)),
        tokens=tokens,
        supervised_tokens=table["supervised_tokens"].to_numpy()[rows],
    )


def _tokens(table: "pa.Table", name: str, seq_len: int) -> Int32s:
    """Return a column whose lists are all seq_len long, shape [rows of the table, seq_len]."""
    column: Any = table[name].combine_chunks()
    values: Int32s = column.flatten().to_numpy().reshape(-1, seq_len)
    return values


def _lists(table: "pa.Table", name: str, rows: Int64s) -> tuple[Int32s, Int32s]:
    """Return the lists of some rows one behind the other, and the length of each."""
    lists: Any = table[name].combine_chunks().take(rows)
    return lists.flatten().to_numpy(), lists.value_lengths().to_numpy()
