"""Tables, read as streams, with `columns` saying what each column means (see columns.py).

csv       a header line, and cells separated by commas; by semicolons or tabs, where the header has those and no comma
parquet   Parquet files
hf_disk   a folder that the library datasets wrote with save_to_disk, or one file of it
"""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self, cast

from scaletrain import storage
from scaletrain.config_data import Corpus
from scaletrain.data.formats.columns import choose, conversations
from scaletrain.data.formats.files import (
    FREE_UNPACKED_BYTES,
    MAX_LINE_BYTES,
    MAX_RATIO,
    BinaryFile,
    SourceFile,
    bare_name,
    folder_of,
    load_json,
    opened,
    read_lines,
)
from scaletrain.data.formats.items import BAD_ROW, SAVE_AS_UTF8, Item, Rejected
from scaletrain.errors import DataError, NotFoundError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

TableRow = tuple[str, dict[str, Any]] | Rejected  # (place, column -> value)
INFO = "dataset_info.json"
_BATCH_ROWS = 64
# https://arrow.apache.org/docs/format/Columnar.html#ipc-streaming-format
_END_OF_ARROW = b"\xff\xff\xff\xff\x00\x00\x00\x00"


def read_csv(files: Sequence[SourceFile], corpus: Corpus) -> Iterator[Item]:
    """Read comma-, semicolon- or tab-separated files."""
    for file in files:
        with csv_rows(file) as (header, rows):
            yield from conversations(rows, choose(corpus.columns, header, name=file.name))


def read_parquet(files: Sequence[SourceFile], corpus: Corpus) -> Iterator[Item]:
    """Read Parquet files, a few rows at a time."""
    for file in files:
        with parquet_table(file) as table:
            columns = choose(corpus.columns, table.schema_arrow.names, name=file.name)
            yield from conversations(parquet_rows(file, table, columns.used()), columns)


def read_hf_disk(files: Sequence[SourceFile], corpus: Corpus) -> Iterator[Item]:
    """Read Arrow files of a dataset on disk; DataError where one is cut short."""
    import pyarrow as pa

    for file in files:
        if file.name.rpartition("/")[2].startswith("cache-"):  # what `map` left behind is no part of the dataset
            continue
        licence = _licence(file)
        with storage.open_read(file.url) as stream, _arrow_errors(file):
            stream.seek(-len(_END_OF_ARROW), io.SEEK_END)
            if stream.read() != _END_OF_ARROW:  # without it, a stream that was cut between two batches seems whole
                raise pa.ArrowInvalid("the end of the stream is missing")
            stream.seek(0)
            batches = pa.ipc.open_stream(pa.PythonFile(cast(io.IOBase, stream), mode="r"))
            columns = choose(corpus.columns, batches.schema.names, name=file.name)
            for item in conversations(_arrow_rows(batches, file), columns):
                yield item if isinstance(item, Rejected) or item.licence else replace(item, licence=licence)


@contextmanager
def parquet_table(file: SourceFile) -> "Iterator[pq.ParquetFile]":
    """Open a Parquet file, of which its footer is read; DataError for what is wrong with it, then or later."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with storage.open_read(file.url) as stream, _arrow_errors(file):
        yield pq.ParquetFile(pa.PythonFile(cast(io.IOBase, stream), mode="r"), pre_buffer=False)


def parquet_rows(file: SourceFile, table: "pq.ParquetFile", columns: Sequence[str]) -> Iterator[TableRow]:
    """Yield the rows of an open Parquet file with these columns, a few at a time."""
    _check_size(table.metadata, columns, file)
    yield from _arrow_rows(table.iter_batches(_BATCH_ROWS, columns=list(columns)), file)


@contextmanager
def csv_rows(file: SourceFile) -> Iterator[tuple[list[str], Iterator[TableRow]]]:
    """Open a CSV file: its header, and the rows that follow, each with the line that it begins at."""
    csv.field_size_limit(MAX_LINE_BYTES)
    with opened(file) as stream:
        delimiter = _delimiter(file, stream)
        lines = _CsvLines(stream, file.name)
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        try:
            names = next(reader, None)
        except csv.Error as exc:
            raise DataError(f"{file.name}:1: the header is not CSV: {exc}") from exc
        if not names or not lines.is_utf8:
            raise DataError(f"{file.name}: begins with no header line in UTF-8; check the source, {SAVE_AS_UTF8}")
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise DataError(f"{file.name}: two columns are called {' and '.join(repeated)}; rename one")
        yield names, _table_rows(file, reader, lines, names)


def _delimiter(file: SourceFile, stream: BinaryFile) -> str:
    """What stands between cells: Excel writes semicolons in half of the world's languages."""
    if bare_name(file.name).endswith((".tsv", ".tab")):
        return "\t"
    header = stream.peek().partition(b"\n")[0]
    return next((each for each in ",;\t" if each.encode() in header), ",")


class _CsvLines:
    """The lines of a CSV file as text; a record may be several of them."""

    def __init__(self, stream: BinaryFile, name: str) -> None:
        self._lines = read_lines(stream)
        self._name = name
        self._record_bytes = 0
        self.number = 0
        self.is_utf8 = True

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        self.number, offset, line = next(self._lines)
        self._record_bytes += MAX_LINE_BYTES if line is None else len(line)
        if line is None or self._record_bytes > MAX_LINE_BYTES:
            raise DataError(
                f"{self._name}:{self.number}: a row of more than {MAX_LINE_BYTES:,} bytes (up to byte {offset}); "
                "a quote is opened and not closed, or this is no CSV"
            )
        try:
            return line.decode()
        except UnicodeDecodeError:
            self.is_utf8 = False
            return line.decode(errors="replace")

    def begin_record(self) -> int:
        """Return the number of the line that the next record begins at; `is_utf8` tells of its lines then."""
        self._record_bytes = 0
        self.is_utf8 = True
        return self.number + 1


def _table_rows(
    file: SourceFile, reader: Iterator[list[str]], lines: _CsvLines, names: list[str]
) -> Iterator[TableRow]:
    while True:
        source = f"{file.name}:{lines.begin_record()}"
        try:
            cells = next(reader, None)
        except csv.Error as exc:
            if "end of data" in str(exc):
                raise DataError(f"{source}: a quote is opened here and never closed; fetch the file again") from exc
            yield Rejected(source, BAD_ROW, f"not CSV: {exc}")
            continue
        if cells is None:
            return
        if not lines.is_utf8:
            yield Rejected(source, BAD_ROW, "text that is not UTF-8")
        elif len(cells) == len(names):
            yield source, dict(zip(names, cells, strict=True))
        elif cells:
            yield Rejected(source, BAD_ROW, f"{len(cells)} cells, and the header has {len(names)}")


def _arrow_rows(batches: "Iterable[pa.RecordBatch]", file: SourceFile) -> Iterator[TableRow]:
    number = 0
    for batch in batches:
        for start in range(0, len(batch), _BATCH_ROWS):
            for row in _python_rows(batch.slice(start, _BATCH_ROWS)):
                number += 1
                source = f"{file.name}:row {number}"
                yield Rejected(source, BAD_ROW, "text that is not UTF-8") if row is None else (source, row)


def _python_rows(batch: "pa.RecordBatch") -> Iterator[dict[str, Any] | None]:
    """Rows as Python has them, None for one with text that is not UTF-8; ArrowInvalid where the batch is damaged.

    What Arrow reads from a file it believes unless it is told to look, and would follow a wrong offset anywhere.
    """
    import pyarrow as pa

    try:
        batch.validate(full=True)
    except pa.ArrowInvalid as exc:
        if "UTF8" not in str(exc):
            raise
        if len(batch) == 1:
            yield None
            return
        for number in range(len(batch)):
            yield from _python_rows(batch.slice(number, 1))
        return
    yield from batch.to_pylist()


@contextmanager
def _arrow_errors(file: SourceFile) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, MemoryError, OverflowError, UnicodeDecodeError) as exc:
        # Beside Arrow's own errors, those of Python when it is asked for a damaged number of bytes or name.
        detail = " ".join(str(exc).split())
        raise DataError(f"{file.name}: cannot be read to its end ({detail}); fetch or make the file again") from exc


def _check_size(metadata: "pq.FileMetaData", columns: Sequence[str], file: SourceFile) -> None:
    """Refuse a Parquet file whose columns unpack to an absurd size."""
    for group in range(metadata.num_row_groups):
        chunks = [metadata.row_group(group).column(i) for i in range(metadata.num_columns)]
        wanted = [each for each in chunks if each.path_in_schema.split(".")[0] in columns]
        unpacked_bytes = sum(each.total_uncompressed_size for each in wanted)
        if unpacked_bytes > FREE_UNPACKED_BYTES + MAX_RATIO * file.size_bytes:
            raise DataError(f"{file.name}: unpacks to more than {MAX_RATIO} times its size, as no text does")


def _licence(file: SourceFile) -> str:
    """What the dataset's own dataset_info.json says."""
    try:
        data = storage.read_bytes(storage.join(folder_of(file.url), INFO))
    except NotFoundError:
        return ""
    info = load_json(data, f"{folder_of(file.url)}{INFO}")
    licence = info.get("license") if isinstance(info, dict) else None
    return licence if isinstance(licence, str) else ""
