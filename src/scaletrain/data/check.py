"""Is a dataset whole and sound: every file against the index, every row against what a row must be.

Files pass through this machine's disk one at a time, and memory holds a row group. All problems are found in one go.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import orjson

from scaletrain import storage
from scaletrain.data import shards
from scaletrain.data.dataset_files import Listed, damage
from scaletrain.data.provenance import PREFIX
from scaletrain.data.shards import IGNORED_LABEL, DatasetIndex
from scaletrain.data.statistics import STATISTICS
from scaletrain.errors import DataError, NotFoundError
from scaletrain.log import progress
from scaletrain.scratch import scratch_folder

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass
class Checked:
    """What was read, and what is wrong; `rows` are those of each split."""

    url: str
    files: int = 0
    size_bytes: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def record(self) -> dict[str, object]:
        """The result as plain data."""
        return asdict(self)

    def lines(self) -> str:
        """The result as a person reads it."""
        read = ", ".join(f"{rows:,} {split} rows" for split, rows in self.rows.items())
        head = f"{self.url}: {self.files} files, {self.size_bytes / 1e6:,.1f} MB; {read}"
        if not self.problems:
            return f"{head}\nwhole: every file matches its checksum, every row is what it must be"
        return "\n".join((head, f"{len(self.problems)} problems:", *(f"  - {each}" for each in self.problems)))


def check_dataset(dataset_url: str) -> Checked:
    """Read all of a dataset and return what is wrong; raises DataError where there is no dataset, StorageError."""
    if not storage.exists(storage.join(dataset_url, shards.INDEX)):
        shards.load_index(dataset_url)  # raises the error that says what to do
    checked = Checked(dataset_url)
    try:
        index = shards.load_index(dataset_url)
    except DataError as error:
        checked.problems.append(str(error))
        return checked
    found = {split: _Found() for split in index.splits}
    listed: list[tuple[str, Listed]] = [(split, shard) for split, info in index.splits.items() for shard in info.shards]
    listed += [("", file) for file in index.files]
    with scratch_folder("check") as folder, progress(unit="files") as display:
        for split, file in display.track(listed, total=len(listed), description="reading files"):
            path = folder / file.name
            if _fetch(checked, file, path) and split:
                _check_shard(checked, index, split, path, found[split])
                path.unlink()
        checked.rows = {split: each.rows for split, each in found.items()}
        if not checked.problems:
            _check_sums(checked, index, found)
            _check_provenance(checked, index, folder, found)
    return checked


@dataclass
class _Found:
    """What a split's shards hold; `documents` has the number of documents of each row."""

    rows: int = 0
    tokens: int = 0
    supervised_tokens: int = 0
    documents: list[npt.NDArray[np.int64]] = field(default_factory=list)


def _fetch(checked: Checked, file: Listed, path: Path) -> bool:
    """Bring a file here, and say whether it is the one that the index lists."""
    url = storage.join(checked.url, file.name)
    try:
        storage.download_file(url, path)
    except NotFoundError:
        checked.problems.append(f"{file.name}: is missing")
        return False
    checked.files += 1
    checked.size_bytes += path.stat().st_size
    if problem := damage(str(path.parent), file):
        checked.problems.append(f"{file.name}: {problem}")
        path.unlink()
        return False
    return True


# ---- rows ----------------------------------------------------------------------------------------------------------


def _check_shard(checked: Checked, index: DatasetIndex, split: str, path: Path, found: _Found) -> None:
    """Check a shard's rows, and count what it holds; there is one line for each kind of problem."""
    import pyarrow.parquet as pq

    wrong: dict[str, list[int]] = {}
    with pq.ParquetFile(path) as parquet:
        for group in range(parquet.num_row_groups):
            table = parquet.read_row_group(group)
            for problem, rows in _wrong_rows(table, index, found.rows):
                wrong.setdefault(problem, []).extend((rows + found.rows).tolist())
            found.rows += len(table)
            found.tokens += int(table["tokens"].to_numpy().sum())
            found.supervised_tokens += int(table["supervised_tokens"].to_numpy().sum())
            found.documents.append(_lengths_of(table, "document_lengths"))
    for problem, samples in wrong.items():
        checked.problems.append(f"{path.name}: {len(samples)} rows {problem}, as row {samples[0]} of the {split} split")


def _wrong_rows(table: "pa.Table", index: DatasetIndex, first: int) -> Iterator[tuple[str, npt.NDArray[np.int64]]]:
    """Yield each kind of problem with the places of the rows that have it. Shapes: N rows, T tokens of a row."""
    seq_len, count = index.seq_len, len(table)

    def report(problem: str, is_wrong: npt.NDArray[np.bool_]) -> Iterator[tuple[str, npt.NDArray[np.int64]]]:
        if is_wrong.any():
            yield problem, np.flatnonzero(is_wrong)

    sample_ids = table["sample_id"].to_numpy()
    yield from report("have a sample_id that is not their place", sample_ids != np.arange(first, first + count))
    lengths = [_lengths_of(table, name) for name in ("input_ids", "labels")]
    not_full = (lengths[0] != seq_len) | (lengths[1] != seq_len)
    yield from report(f"are not {seq_len} tokens long", not_full)
    of_documents, of_corpora = (_lengths_of(table, name) for name in ("document_lengths", "document_corpora"))
    uneven = (of_documents != of_corpora) | (of_documents < 1)
    yield from report("have no documents, or not a corpus for each", uneven)
    yield from report("have half a pair", index.pairs & (of_documents % 2 == 1))
    if not_full.any() or uneven.any():
        return
    input_ids, labels = (_values_of(table, name).reshape(count, seq_len) for name in ("input_ids", "labels"))
    owners = np.repeat(np.arange(count), of_documents)
    lengths_of, corpora = _values_of(table, "document_lengths"), _values_of(table, "document_corpora")
    tokens = table["tokens"].to_numpy()
    sums = np.bincount(owners, weights=lengths_of, minlength=count)
    bad_lengths = (sums != tokens) | (tokens > seq_len) | _any_of(owners, lengths_of < 1, count)
    yield from report("have document_lengths that do not add up to their tokens", bad_lengths)
    yield from report(
        "have a corpus that the index does not know",
        _any_of(owners, (corpora < 0) | (corpora >= len(index.corpora)), count),
    )
    supervised = labels != IGNORED_LABEL
    yield from report("have labels that are not their tokens", (supervised & (labels != input_ids)).any(axis=1))
    yield from report(
        "have another number of labels than supervised_tokens says",
        supervised.sum(axis=1) != table["supervised_tokens"].to_numpy(),
    )
    padding = np.arange(seq_len) >= tokens[:, None]
    wrong_padding = padding & (supervised | (input_ids != index.pad_token_id))
    yield from report("have something else than padding behind their tokens", wrong_padding.any(axis=1))
    if not bad_lengths.any():
        ends = np.cumsum(lengths_of)
        starts = ends - lengths_of - np.repeat(np.cumsum(sums) - sums, of_documents).astype(np.int64)
        yield from report(
            "learn a document's first token, which has no context", _any_of(owners, supervised[owners, starts], count)
        )


def _any_of(owners: npt.NDArray[np.int64], wrong: npt.NDArray[np.bool_], count: int) -> npt.NDArray[np.bool_]:
    """Which rows own something that is wrong."""
    found = np.zeros(count, np.bool_)
    found[owners[wrong]] = True
    return found


def _values_of(table: "pa.Table", name: str) -> npt.NDArray[np.int64]:
    column: Any = table[name].combine_chunks()
    values: npt.NDArray[np.int64] = column.flatten().to_numpy()
    return values


def _lengths_of(table: "pa.Table", name: str) -> npt.NDArray[np.int64]:
    column: Any = table[name].combine_chunks()
    lengths: npt.NDArray[np.int64] = column.value_lengths().to_numpy()
    return lengths


# ---- sums and provenance -------------------------------------------------------------------------------------------


def _check_sums(checked: Checked, index: DatasetIndex, found: Mapping[str, _Found]) -> None:
    for split, each in found.items():
        for name in ("rows", "tokens", "supervised_tokens"):
            counted, stated = getattr(each, name), getattr(index.splits[split], name)
            if counted != stated:
                checked.problems.append(f"{split}: its shards have {counted:,} {name}, the index says {stated:,}")


def _check_provenance(checked: Checked, index: DatasetIndex, folder: Path, found: Mapping[str, _Found]) -> None:
    """Compare what is told of the dataset with its rows: every document of every row, or pair, has its origin."""
    import pyarrow.parquet as pq

    files = sorted(folder.glob(f"{PREFIX}*.parquet"))
    if not files:
        return  # a dataset of an older version
    told = {split: np.zeros(each.rows + 1, np.int64) for split, each in found.items()}
    rows = 0
    for path in files:
        with pq.ParquetFile(path) as parquet:
            for group in range(parquet.num_row_groups):
                table = parquet.read_row_group(group, columns=["rows", "split", "sample_ids"])
                rows += int(table["rows"].to_numpy().sum())
                for split, ids in zip(table["split"].to_pylist(), table["sample_ids"].to_pylist(), strict=True):
                    if split is not None and ids:  # an id beyond the last row is counted behind it
                        np.add.at(told[split], np.clip(ids, 0, found[split].rows), 2 if index.pairs else 1)
    for split, each in found.items():
        wrong = np.flatnonzero(told[split] != np.concatenate([*each.documents, [0]]))
        if len(wrong):
            checked.problems.append(
                f"provenance: tells of another number of documents than {len(wrong)} {split} rows have, as row "
                f"{wrong[0]}"
            )
    statistics = orjson.loads((folder / STATISTICS).read_bytes())
    read = sum(corpus["read"] + corpus["bad_rows"] for corpus in statistics["corpora"])
    if read != rows:
        checked.problems.append(f"provenance: has {rows:,} rows, stats.json says that {read:,} were read")
