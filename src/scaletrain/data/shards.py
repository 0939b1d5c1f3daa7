"""A prepared dataset's files: token shards in Parquet, and index.json, which is written last and makes them a dataset.

One Parquet row is one sample, a packed row of seq_len tokens:

    sample_id          int64        place in its split, counted from 0 over all shards
    input_ids          list<int32>  seq_len of them, padded with the pad token
    labels             list<int32>  aligned with input_ids: the same id where the token is supervised, else -100
    document_lengths   list<int32>  tokens of each document in the row; the rest of the row is padding
    document_corpora   list<int32>  each document's corpus, counted in the index's `corpora`
    tokens             int32        sum of document_lengths
    supervised_tokens  int32        labels that are not -100

In a dataset of pairs a row's documents are, by turns, a conversation with the answer that was preferred and the same
with the other one; only these answers are supervised.

Row groups have about 8,192 tokens, whatever the micro batch: they are what a reader fetches and decodes at once. Token
columns are split by bytes before zstd, which is smaller and faster to decode than plain or dictionary encoding.

The index holds a checksum of each shard's footer, and the footer those of the row groups. So a reader that fetches one
row group knows that it has the very bytes that the index stands for, whatever happened to the file since.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from io import RawIOBase
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt
import orjson
import xxhash

from scaletrain import storage
from scaletrain.data.dataset_files import FileInfo, checksum_of
from scaletrain.data.order import SPAN_GROUPS
from scaletrain.errors import DataError, NotFoundError, StorageError
from scaletrain.scratch import scratch_folder

if TYPE_CHECKING:
    import pyarrow as pa

INDEX = "index.json"
FORMAT_VERSION = 2
IGNORED_LABEL = -100
ROW_GROUP_TOKENS = 8192
GROUP_CHECKSUMS = "scaletrain.row_group_checksums"  # in a footer: xxh3-64 of each row group's bytes, in hex
MAX_SHARD_TOKENS = SPAN_GROUPS * ROW_GROUP_TOKENS  # some 50 MB; a whole span of the order, so reading is local
_PREFIXES = {"train": "shard"}

Int32s = npt.NDArray[np.int32]


@dataclass(frozen=True)
class ShardInfo:
    """One shard as the index lists it; `checksum` is the xxh3-128 of the file, in hex.

    `footer_checksum` is the xxh3-64 of what comes after the last row group.
    """

    name: str
    rows: int
    size_bytes: int
    checksum: str
    footer_checksum: str


@dataclass(frozen=True)
class SplitInfo:
    """The shards of a split in order, and their sums."""

    shards: tuple[ShardInfo, ...]
    rows: int
    tokens: int
    supervised_tokens: int


@dataclass(frozen=True)
class DatasetIndex:
    """What index.json says; `splits` has "train" and "validation", `tokenizer` is the hash of the tokenizer's files.

    `files` tell of the dataset: stats.json, report.html and the provenance. `pairs`: its documents come in pairs.
    """

    version: int
    dataset_id: str
    seq_len: int
    row_group_rows: int
    pad_token_id: int
    corpora: tuple[str, ...]
    tokenizer: str
    splits: dict[str, SplitInfo]
    files: tuple[FileInfo, ...] = ()
    pairs: bool = False


@dataclass(frozen=True)
class Row:
    """One sample to be written: input_ids and labels of shape [seq_len], lengths and corpora of its documents."""

    input_ids: Int32s
    labels: Int32s
    document_lengths: tuple[int, ...]
    document_corpora: tuple[int, ...]


def row_group_rows(seq_len: int) -> int:
    """The number of rows of a row group."""
    return max(1, ROW_GROUP_TOKENS // seq_len)


def shard_rows(seq_len: int) -> int:
    """The number of rows of every shard but a split's last; a multiple of the row group's."""
    group = row_group_rows(seq_len)
    return group * max(1, min(SPAN_GROUPS, MAX_SHARD_TOKENS // (group * seq_len)))


# ---- writing -------------------------------------------------------------------------------------------------------


def write_split(rows: Iterable[Row], url: str, *, split: str, seq_len: int) -> SplitInfo:
    """Write a split's rows, in the order given, as shards below `url`; returns what the index says of them.

    Rows are streamed: memory does not grow with their number. Raises StorageError.
    """
    prefix, per_shard = _PREFIXES.get(split, split), shard_rows(seq_len)
    remaining = iter(rows)
    shards: list[ShardInfo] = []
    num_rows = tokens = supervised_tokens = 0
    with scratch_folder("shards") as folder:
        for first in remaining:
            name = f"{prefix}-{len(shards):05d}.parquet"
            path = folder / name
            shard = chain((first,), islice(remaining, per_shard - 1))
            counted = _write_shard(shard, path, first_sample_id=num_rows, seq_len=seq_len)
            with path.open("rb") as file:
                checksum = checksum_of(file)
            shards.append(ShardInfo(name, counted.rows, path.stat().st_size, checksum, counted.footer_checksum))
            storage.upload_file(path, storage.join(url, name))
            path.unlink()
            num_rows += counted.rows
            tokens += counted.tokens
            supervised_tokens += counted.supervised_tokens
    return SplitInfo(tuple(shards), num_rows, tokens, supervised_tokens)


def write_index(url: str, index: DatasetIndex) -> None:
    """Write index.json, which makes what lies below `url` a dataset; call it when all else is written."""
    storage.write_bytes(storage.join(url, INDEX), orjson.dumps(asdict(index), option=orjson.OPT_INDENT_2))


@dataclass
class _Written:
    rows: int = 0
    tokens: int = 0
    supervised_tokens: int = 0
    footer_checksum: str = ""


class _HashedFile(RawIOBase):
    """A file to be written, and the checksum of what was written since it was last asked for."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = xxhash.xxh3_64()
        self._size_bytes = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._size_bytes

    def write(self, data: Any) -> int:
        self._file.write(data)
        self._digest.update(data)
        self._size_bytes += len(data)
        return len(data)

    def take_checksum(self) -> str:
        checksum = self._digest.hexdigest()
        self._digest.reset()
        return checksum


def _write_shard(rows: Iterator[Row], path: Path, *, first_sample_id: int, seq_len: int) -> _Written:
    import pyarrow as pa
    import pyarrow.parquet as pq

    done, group = _Written(), row_group_rows(seq_len)
    token_columns = ("input_ids", "labels")
    checksums: list[str] = []
    with path.open("wb") as plain:
        file = _HashedFile(plain)
        try:
            with pq.ParquetWriter(
                pa.PythonFile(file, mode="w"),
                _schema(),
                compression="zstd",
                use_dictionary=False,
                column_encoding={f"{name}.list.element": "BYTE_STREAM_SPLIT" for name in token_columns},
                write_statistics=False,
                store_schema=False,
            ) as writer:
                file.take_checksum()  # of the letters PAR1
                while chunk := list(islice(rows, group)):
                    table = _table(chunk, first_sample_id=first_sample_id + done.rows, seq_len=seq_len)
                    writer.write_table(table, row_group_size=group)
                    checksums.append(file.take_checksum())
                    done.rows += len(chunk)
                    done.tokens += int(table["tokens"].to_numpy().sum())
                    done.supervised_tokens += int(table["supervised_tokens"].to_numpy().sum())
                writer.add_key_value_metadata({GROUP_CHECKSUMS: " ".join(checksums)})
        except OSError as error:
            raise StorageError(f"{path}: cannot write a shard before its upload: {error}; is it full?") from error
    done.footer_checksum = file.take_checksum()
    return done


def _table(rows: Sequence[Row], *, first_sample_id: int, seq_len: int) -> "pa.Table":
    import pyarrow as pa

    for number, row in enumerate(rows, start=first_sample_id):
        assert row.input_ids.shape == row.labels.shape == (seq_len,), f"row {number} is not {seq_len} tokens long"
        assert len(row.document_lengths) == len(row.document_corpora) > 0, f"row {number} has no documents"
        assert sum(row.document_lengths) <= seq_len, f"the documents of row {number} are longer than the row"
    labels = np.stack([row.labels for row in rows])
    columns = {
        "sample_id": np.arange(first_sample_id, first_sample_id + len(rows), dtype=np.int64),
        "input_ids": [row.input_ids for row in rows],
        "labels": [row.labels for row in rows],
        "document_lengths": [row.document_lengths for row in rows],
        "document_corpora": [row.document_corpora for row in rows],
        "tokens": np.asarray([sum(row.document_lengths) for row in rows], np.int32),
        "supervised_tokens": (labels != IGNORED_LABEL).sum(axis=1, dtype=np.int32),
    }
    return pa.table(columns, schema=_schema())


def _list_type() -> "pa.DataType":
    import pyarrow as pa

    return pa.list_(pa.field("element", pa.int32(), nullable=False))


def _schema() -> "pa.Schema":
    import pyarrow as pa

    kinds = {
        "sample_id": pa.int64(),
        "input_ids": _list_type(),
        "labels": _list_type(),
        "document_lengths": _list_type(),
        "document_corpora": _list_type(),
        "tokens": pa.int32(),
        "supervised_tokens": pa.int32(),
    }
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in kinds.items()])


# ---- reading -------------------------------------------------------------------------------------------------------


def load_index(dataset_url: str) -> DatasetIndex:
    """Read a dataset's index.json.

    Raises DataError where there is no complete dataset, where the file is damaged, or where another version of
    scaletrain wrote it; StorageError where the bucket cannot be read.
    """
    from pydantic import TypeAdapter, ValidationError

    url = storage.join(dataset_url, INDEX)
    try:
        written = orjson.loads(storage.read_bytes(url))
    except NotFoundError as error:
        raise DataError(
            f"{url}: there is no complete dataset here; run `scaletrain prepare` with this configuration"
        ) from error
    except orjson.JSONDecodeError as error:
        raise _damaged(url, f"it is not JSON ({error})") from error
    version = written.get("version") if isinstance(written, dict) else None
    if version != FORMAT_VERSION:
        raise DataError(
            f"{url}: has format version {version!r}, this scaletrain reads {FORMAT_VERSION}; prepare the dataset again "
            "with this version, or use the version that wrote it"
        )
    try:
        index = TypeAdapter(DatasetIndex).validate_python(written)
    except ValidationError as error:
        first = error.errors()[0]
        raise _damaged(url, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    listed = [file.name for file in index.files]
    for name in [*listed, *(shard.name for split in index.splits.values() for shard in split.shards)]:
        if name in ("", ".", "..") or "/" in name or "\\" in name:  # it is joined to paths
            raise _damaged(url, f"it lists {name!r}, which is no file's name")
    for name, split in index.splits.items():
        if (counted := sum(shard.rows for shard in split.shards)) != split.rows:
            raise _damaged(url, f"its {name} split has {split.rows} rows, but its shards have {counted}")
    return index


def _damaged(url: str, problem: str) -> DataError:
    return DataError(f"{url}: is damaged: {problem}; remove the dataset's folder and run `scaletrain prepare` again")
