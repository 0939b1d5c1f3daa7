"""Tokenised documents are kept in the bucket, so that the next preparation makes only what is not there.

Kept are parts (parts.py), each as one object, `documents/<key>.arrow.zst` below the storage root: a stream of Arrow
batches, packed by zstd, and after it 16 bytes, the xxh3-128 of what is before them. The key is a hash of all that
determines the rows (identity.py). An object is written in one step, and says itself whether it is sound: a crash leaves
whole parts or none, two preparations at once write the same rows over one another, and a part that is damaged, or was
removed at any moment, is made again. What is there is found by one listing, a request for a thousand parts.

In a part's rows `corpus` is 0 and files are counted from the part's first: where the part stands is set on reading.
"""

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import xxhash

from scaletrain import storage
from scaletrain.data.dataset_files import checksum_of
from scaletrain.data.encoding import DOCUMENTS
from scaletrain.data.parts import Part, ends_of_parts
from scaletrain.errors import NotFoundError, StorageError
from scaletrain.log import get_logger
from scaletrain.storage.errors import without_password
from scaletrain.storage.parallel import in_parallel

_SUFFIX = ".arrow.zst"
_CHECKSUM_BYTES = 16
_AT_ONCE = 8  # downloads, and uploads
# https://arrow.apache.org/docs/format/Columnar.html#ipc-streaming-format
_END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"

log = get_logger(__name__)


def read_kept(
    url: str, parts: Sequence[Part], keys: Sequence[str], *, folder: Path
) -> Iterator[tuple[int, Iterator[pa.Table]]]:
    """Yield (number of the part, tables of DOCUMENTS) for each of the parts that are kept at `url`, whole and sound.

    keys: of the parts. Objects of a bucket are fetched into `folder`, a few at a time. A damaged one is left out, with
    a warning. Raises StorageError.
    """
    there = {each.url.rpartition("/")[2] for each in storage.list_objects(url)}
    found = iter([number for number, key in enumerate(keys) if key + _SUFFIX in there])

    def fetch(number: int) -> pa.Buffer | None:
        return _fetch(storage.join(url, keys[number] + _SUFFIX), folder / f"{number}.fetched")

    while few := list(islice(found, _AT_ONCE)):
        for number, packed in zip(few, in_parallel(fetch, few, max_workers=_AT_ONCE), strict=True):
            if packed is not None:
                yield number, _tables(packed, parts[number])


def _fetch(url: str, path: Path) -> pa.Buffer | None:
    """Map a kept part into memory; None where it was removed meanwhile, or, with a warning, is damaged."""
    try:
        if storage.is_local(url):
            path = storage.local_path(url)
        else:
            storage.download_file(url, path)
        if path.stat().st_size > _CHECKSUM_BYTES:
            with pa.memory_map(str(path)) as mapped:
                buffer = mapped.read_buffer()
            packed, checksum = (
                buffer.slice(0, len(buffer) - _CHECKSUM_BYTES),
                buffer.slice(len(buffer) - _CHECKSUM_BYTES),
            )
            if xxhash.xxh3_128_digest(packed) == checksum.to_pybytes():
                return packed
    except (NotFoundError, FileNotFoundError):
        return None
    finally:
        if not storage.is_local(url):
            path.unlink(missing_ok=True)  # what is mapped stays readable
    log.warning("%s is damaged; what was kept there is made again", without_password(url))
    return None


def _tables(packed: pa.Buffer, part: Part) -> Iterator[pa.Table]:
    with pa.ipc.open_stream(pa.CompressedInputStream(pa.BufferReader(packed), "zstd")) as stream:
        for batch in stream:
            yield _moved(pa.Table.from_batches([batch]), corpus=part.corpus, files=part.first)


def _moved(table: pa.Table, *, corpus: int, files: int) -> pa.Table:
    """The same rows as those of a corpus of this number, with their files' numbers raised."""
    columns: dict[str, Any] = {"corpus": np.full(len(table), corpus), "file": table["file"].to_numpy() + files}
    for name, values in columns.items():
        field = DOCUMENTS.field(name)
        table = table.set_column(DOCUMENTS.get_field_index(name), field, pa.array(values, field.type))
    return table


class DocumentKeeper:
    """Keeps parts at a URL as they are made, each as soon as all of its rows have come, in whatever order.

    Until then they lie in a local folder, 5 bytes a token. A context: where it ends, all whole parts have been kept.
    """

    def __init__(self, url: str, parts: Sequence[Part], keys: Sequence[str], *, folder: Path) -> None:
        self._url = url
        self._parts = parts
        self._keys = keys
        self._starts = _place([part.corpus for part in parts], [part.first for part in parts])
        self._folder = folder
        self._num_rows: Counter[int] = Counter()
        self._expected: dict[int, int] = {}
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="keep")
        self._uploads: deque[Future[None]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            while self._uploads and kind is None:
                self._uploads.popleft().result()
        finally:
            self._pool.shutdown()

    def take(self, table: pa.Table) -> pa.Table:
        """Take rows that `tokenise` made of these parts; returns them without the ends of parts.

        Raises StorageError, of what was taken before too.
        """
        part_of_row = np.searchsorted(self._starts, _place(table["corpus"], table["file"]), side="right") - 1
        is_end = ends_of_parts(table)
        for number in np.unique(part_of_row).tolist():
            own = part_of_row == number
            rows = table.filter(pa.array(own & ~is_end))
            self._append(number, rows)
            self._num_rows[number] += len(rows)
            for end in np.flatnonzero(own & is_end):
                self._expected[number] = table["count"][int(end)].as_py()
            if self._expected.get(number) == self._num_rows[number]:
                self._keep(number)
        return table.filter(pa.array(~is_end)) if is_end.any() else table

    def _append(self, number: int, rows: pa.Table) -> None:
        """Write rows to the file of their part, which is not held open: a cluster makes many parts at a time."""
        if len(rows):
            rows = _moved(rows, corpus=0, files=-self._parts[number].first).combine_chunks()
            with self._disk_errors(), self._path(number).open("ab") as file:
                for batch in rows.to_batches():
                    file.write(batch.serialize())

    def _keep(self, number: int) -> None:
        while len(self._uploads) >= 2 * _AT_ONCE:
            self._uploads.popleft().result()
        self._uploads.append(self._pool.submit(self._pack_and_upload, number))

    def _pack_and_upload(self, number: int) -> None:
        rows, packed = self._path(number), self._path(number).with_suffix(".packed")
        with self._disk_errors():
            with pa.OSFile(str(packed), "wb") as sink, pa.CompressedOutputStream(sink, "zstd") as stream:
                stream.write(DOCUMENTS.serialize())
                if rows.exists():  # a part of no rows is kept too
                    with pa.memory_map(str(rows)) as mapped:
                        stream.write(mapped.read_buffer())
                    rows.unlink()
                stream.write(_END_OF_STREAM)
            with packed.open("r+b") as file:
                file.write(bytes.fromhex(checksum_of(file)))
        storage.upload_file(packed, storage.join(self._url, self._keys[number] + _SUFFIX))
        packed.unlink()

    def _path(self, number: int) -> Path:
        return self._folder / f"{number}.rows"

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise StorageError(
                f"{self._folder}: {exc}; tokenised documents lie there until they are kept in the bucket: free space, "
                "set TMPDIR, or turn data.reuse off"
            ) from exc


def _place(corpus: Any, file: Any) -> Any:
    """A number for each row, which rises from file to file and from corpus to corpus."""
    return np.asarray(corpus, np.int64) << 32 | np.asarray(file, np.int64)
