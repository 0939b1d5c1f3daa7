"""rows: any samples come back as they were written, in the order asked for; a changed file never does."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_dataset import random_rows, write_dataset

from scaletrain import storage
from scaletrain.data import rows as rows_module
from scaletrain.data import shards
from scaletrain.data.rows import Samples, read_samples
from scaletrain.data.shards import DatasetIndex, Row, row_group_rows, write_index, write_split
from scaletrain.errors import DataError

SEQ_LEN = 1024
NUM_ROWS = 45  # six row groups of eight rows, the last one short, in three shards


@pytest.fixture(autouse=True)
def no_footers_kept() -> None:
    rows_module._footer.cache_clear()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, DatasetIndex, list[Row]]]:
    """A dataset of three shards, and the rows it was written from."""
    url = str(tmp_path_factory.mktemp("dataset"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "shard_rows", lambda seq_len: 2 * row_group_rows(seq_len))
        index = write_dataset(url, rows=NUM_ROWS, seq_len=SEQ_LEN)
    yield url, index, list(random_rows(NUM_ROWS, seq_len=SEQ_LEN))


def read(url: str, index: DatasetIndex, ids: list[int]) -> Samples:
    return read_samples(url, index, split="train", ids=np.array(ids, dtype=np.int64))


@settings(deadline=None, max_examples=40)
@given(ids=st.lists(st.integers(0, NUM_ROWS - 1), min_size=1, max_size=12))
def test_samples_come_in_the_order_asked_for(dataset: tuple[str, DatasetIndex, list[Row]], ids: list[int]) -> None:
    """Ids may be in any order, in any shard, and repeat; each gives the row that was written under it."""
    url, index, rows = dataset
    samples = read(url, index, ids)
    assert samples.sample_ids.tolist() == ids
    for place, number in enumerate(ids):
        assert np.array_equal(samples.input_ids[place], rows[number].input_ids)
        assert np.array_equal(samples.labels[place], rows[number].labels)
        assert samples.tokens[place] == sum(rows[number].document_lengths)
        assert samples.supervised_tokens[place] == np.count_nonzero(rows[number].labels != -100)


def test_documents_are_spread_over_their_tokens(tmp_path: Path) -> None:
    """Positions restart in each document; padding is document 0 of corpus -1."""
    ids = np.arange(8, dtype=np.int32)
    rows = [Row(ids, ids, (3, 2, 1), (1, 0, 1)), Row(ids, ids, (8,), (0,)), Row(ids, ids, (1,), (1,))]
    split = write_split(rows, str(tmp_path), split="train", seq_len=8)
    index = DatasetIndex(1, "x", 8, row_group_rows(8), 0, ("a", "b"), "none", {"train": split})
    samples = read(str(tmp_path), index, [0, 1, 2])
    assert samples.positions.tolist() == [[0, 1, 2, 0, 1, 0, 0, 1], list(range(8)), [0, *range(7)]]
    assert samples.documents.tolist() == [[1, 1, 1, 2, 2, 3, 0, 0], [1] * 8, [1, *[0] * 7]]
    assert samples.corpora.tolist() == [[1, 1, 1, 0, 0, 1, -1, -1], [0] * 8, [1, *[-1] * 7]]


def test_all_arrays_are_of_the_stated_types(dataset: tuple[str, DatasetIndex, list[Row]]) -> None:
    """sample_ids are int64, all else int32; what a device is fed does not depend on the reader."""
    samples = read(*dataset[:2], [3, 44])
    kinds = {name: (array.dtype.name, array.shape) for name, array in vars(samples).items()}
    assert kinds.pop("sample_ids") == ("int64", (2,))
    assert kinds.pop("tokens") == kinds.pop("supervised_tokens") == ("int32", (2,))
    assert set(kinds.values()) == {("int32", (2, SEQ_LEN))}


def test_every_kind_of_storage_gives_the_same(bucket_root: str) -> None:
    """A bucket is read by ranges, several at once; the result is that of a local folder."""
    url = storage.join(bucket_root, "data")
    index = write_dataset(url, rows=NUM_ROWS, seq_len=SEQ_LEN)
    rows = list(random_rows(NUM_ROWS, seq_len=SEQ_LEN))
    samples = read(url, index, [44, 0, 17])
    assert np.array_equal(samples.input_ids, np.stack([rows[number].input_ids for number in (44, 0, 17)]))


def test_a_sample_costs_its_row_group_and_a_footer(
    dataset: tuple[str, DatasetIndex, list[Row]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shard's first sample takes two reads, its next one: what is not asked for is not transferred."""
    url, index, _ = dataset
    sizes: list[int] = []

    def counting_read(url: str, *, start: int = 0, length: int | None = None) -> bytes:
        data = read_bytes(url, start=start, length=length)
        sizes.append(len(data))
        return data

    read_bytes = storage.read_bytes
    monkeypatch.setattr(storage, "read_bytes", counting_read)
    read(url, index, [0, 1, 7])
    read(url, index, [9])
    shard_bytes = index.splits["train"].shards[0].size_bytes
    assert len(sizes) == 3
    assert sizes[0] < 0.2 * shard_bytes
    assert all(size < 0.6 * shard_bytes for size in sizes[1:])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[: len(data) // 2], r"has \d+ bytes, the index says \d+"),
        (lambda data: data + b"x", r"has \d+ bytes, the index says \d+"),
        (lambda data: data[:100] + bytes([data[100] ^ 1]) + data[101:], "its row group 0 is not the one"),
        (lambda data: data[:-40] + bytes([data[-40] ^ 1]) + data[-39:], "its footer is not the one"),
        (lambda data: data[:-4] + b"PAR2", "its footer is not the one"),
    ],
    ids=["cut", "longer", "flipped bit", "flipped bit in the footer", "no parquet"],
)
def test_a_changed_shard_is_an_error_that_names_it(tmp_path: Path, damage: object, message: str) -> None:
    """No changed byte of what is read gets into training: size, footer and row groups are checked."""
    assert callable(damage)
    index = write_dataset(tmp_path, rows=8, seq_len=SEQ_LEN)
    shard = tmp_path / "shard-00000.parquet"
    shard.write_bytes(damage(shard.read_bytes()))
    with pytest.raises(DataError, match=rf"{shard}: {message}.*run `scaletrain prepare` again"):
        read(str(tmp_path), index, [0, 1])


def test_a_missing_shard_is_an_error_that_names_it(tmp_path: Path) -> None:
    """The index promises the shard, so its absence is the dataset's damage and not a typing mistake."""
    index = write_dataset(tmp_path, rows=8, seq_len=SEQ_LEN)
    (tmp_path / "shard-00000.parquet").unlink()
    with pytest.raises(DataError, match=r"shard-00000\.parquet: is missing"):
        read(str(tmp_path), index, [0])


def test_a_shard_that_vanishes_during_a_run_is_an_error(tmp_path: Path) -> None:
    """A footer that is kept does not hide that the file is gone."""
    index = write_dataset(tmp_path, rows=16, seq_len=SEQ_LEN)
    read(str(tmp_path), index, [0])
    (tmp_path / "shard-00000.parquet").unlink()
    with pytest.raises(DataError, match=r"shard-00000\.parquet: is missing"):
        read(str(tmp_path), index, [8])


def test_rows_of_another_shard_are_noticed(tmp_path: Path, dataset: tuple[str, DatasetIndex, list[Row]]) -> None:
    """Shards that changed places are sound files of possibly equal size; their sample ids give them away."""
    url, index, _ = dataset
    first, second, *rest = index.splits["train"].shards
    for source, target in ((first, second), (second, first)):
        (tmp_path / target.name).write_bytes((Path(url) / source.name).read_bytes())
    swapped = (replace(second, name=first.name), replace(first, name=second.name), *rest)
    index = replace(index, splits={"train": replace(index.splits["train"], shards=swapped)})
    write_index(str(tmp_path), index)
    with pytest.raises(DataError, match="not where its index says"):
        read(str(tmp_path), index, [0])
