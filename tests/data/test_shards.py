"""shards: what is written is what any Parquet reader finds, and a dataset is one only when its index says so."""

from dataclasses import replace
from pathlib import Path

import orjson
import pyarrow.parquet as pq
import pytest
from random_dataset import random_rows, write_dataset

from scaletrain import storage
from scaletrain.data import shards
from scaletrain.data.check import check_dataset
from scaletrain.data.shards import load_index, write_index, write_split
from scaletrain.errors import DataError


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a shard be full after two row groups."""
    monkeypatch.setattr(shards, "shard_rows", lambda seq_len: 2 * shards.row_group_rows(seq_len))


def test_any_parquet_reader_finds_the_rows_as_they_were_given(tmp_path: Path) -> None:
    """Columns have the names, types and values that the module's docstring promises."""
    rows = list(random_rows(20, seq_len=64))
    written = write_split(rows, str(tmp_path), split="train", seq_len=64)
    table = pq.read_table(tmp_path / "shard-00000.parquet")
    assert table["sample_id"].to_pylist() == list(range(20))
    assert table["input_ids"].to_pylist() == [row.input_ids.tolist() for row in rows]
    assert table["labels"].to_pylist() == [row.labels.tolist() for row in rows]
    assert table["document_lengths"].to_pylist() == [list(row.document_lengths) for row in rows]
    assert table["document_corpora"].to_pylist() == [list(row.document_corpora) for row in rows]
    assert table["tokens"].to_pylist() == [sum(row.document_lengths) for row in rows]
    assert table["supervised_tokens"].to_pylist() == [int((row.labels != -100).sum()) for row in rows]
    types = {str(field.type) for field in table.schema}
    assert types == {"int64", "int32", "list<element: int32 not null>"}
    assert (written.rows, written.tokens) == (20, sum(sum(row.document_lengths) for row in rows))
    assert written.supervised_tokens == sum(int((row.labels != -100).sum()) for row in rows)


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize(("seq_len", "group"), [(1024, 8), (3000, 2), (8192, 1), (9000, 1)])
def test_row_groups_have_the_same_rows_in_all_shards_but_the_last(tmp_path: Path, seq_len: int, group: int) -> None:
    """Row groups hold 8192 // seq_len rows, and only the last one of a split may be short."""
    written = write_split(random_rows(5 * group, seq_len=seq_len), str(tmp_path), split="train", seq_len=seq_len)
    assert [shard.name for shard in written.shards] == [f"shard-{number:05d}.parquet" for number in range(3)]
    assert [shard.rows for shard in written.shards] == [2 * group, 2 * group, group]
    for shard in written.shards:
        footer = pq.read_metadata(tmp_path / shard.name)
        assert {footer.row_group(number).num_rows for number in range(footer.num_row_groups)} == {group}


@pytest.mark.usefixtures("small_shards")
def test_sample_ids_go_on_over_shards(tmp_path: Path) -> None:
    """A sample's id is its place in its split, whichever shard it is in; validation has shards and ids of its own."""
    index = write_dataset(tmp_path, rows=37, validation_rows=9, seq_len=1024)
    for split, prefix in (("train", "shard"), ("validation", "validation")):
        found: list[int] = []
        for number, shard in enumerate(index.splits[split].shards):
            assert shard.name == f"{prefix}-{number:05d}.parquet"
            found += pq.read_table(tmp_path / shard.name)["sample_id"].to_pylist()
        assert found == list(range(index.splits[split].rows))


def test_shards_of_any_seq_len_are_of_bounded_size() -> None:
    """A full shard has whole row groups and about 16 million tokens at most, unless one row is longer."""
    for seq_len in (16, 100, 1024, 3000, 8192, 50_000, 10**6):
        rows, group = shards.shard_rows(seq_len), shards.row_group_rows(seq_len)
        assert rows % group == 0
        assert rows * seq_len <= max(2**24, seq_len)


def test_equal_rows_give_equal_bytes(tmp_path: Path) -> None:
    """Preparing again writes the same files, so that two preparations at once do no harm."""
    first = write_split(random_rows(30, seq_len=64), str(tmp_path / "a"), split="train", seq_len=64)
    second = write_split(random_rows(30, seq_len=64), str(tmp_path / "b"), split="train", seq_len=64)
    assert first == second


def test_a_split_may_be_empty(tmp_path: Path) -> None:
    """No rows are no shards, and the index says so."""
    index = write_dataset(tmp_path, rows=0)
    assert load_index(str(tmp_path)).splits["train"] == index.splits["train"]
    assert (index.splits["train"].shards, index.splits["train"].rows) == ((), 0)


def test_a_row_of_another_length_is_refused(tmp_path: Path) -> None:
    """Only a bug of ours could hand over such a row; it must not reach the bucket."""
    row = next(random_rows(1, seq_len=64))
    with pytest.raises(AssertionError, match="row 0 is not 32 tokens long"):
        write_split([row], str(tmp_path), split="train", seq_len=32)
    with pytest.raises(AssertionError, match="longer than the row"):
        write_split([replace(row, document_lengths=(65,), document_corpora=(0,))], str(tmp_path), split="x", seq_len=64)


def test_an_index_comes_back_as_it_was_written(bucket_root: str) -> None:
    """write_index and load_index are each other's inverse, in every kind of storage."""
    url = storage.join(bucket_root, "data", "random")
    index = write_dataset(url, rows=11, validation_rows=3)
    assert load_index(url) == index
    assert check_dataset(url).problems == []


def test_without_an_index_there_is_no_dataset(tmp_path: Path) -> None:
    """Shards alone are what an interrupted preparation left; the message says what to run."""
    write_dataset(tmp_path, rows=5)
    (tmp_path / "index.json").unlink()
    with pytest.raises(DataError, match=r"index\.json: there is no complete dataset here; run `scaletrain prepare`"):
        load_index(str(tmp_path))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (b"{", "is damaged: it is not JSON"),
        (b"[]", "has format version None, this scaletrain reads 2"),
        (b'{"version": 99}', "has format version 99, this scaletrain reads 2"),
        (b'{"version": 2, "dataset_id": "x"}', "is damaged: seq_len: Field required"),
    ],
)
def test_an_unreadable_index_says_why(tmp_path: Path, damage: bytes, message: str) -> None:
    """A damaged index, or one of another version, is an error that names the file and the remedy."""
    (tmp_path / "index.json").write_bytes(damage)
    with pytest.raises(DataError, match=message):
        load_index(str(tmp_path))


def test_an_index_whose_shards_do_not_add_up_is_damaged(tmp_path: Path) -> None:
    """The rows of a split are those of its shards, as the order of samples depends on their number."""
    write_dataset(tmp_path, rows=5)
    written = orjson.loads((tmp_path / "index.json").read_bytes())
    written["splits"]["train"]["rows"] = 6
    (tmp_path / "index.json").write_bytes(orjson.dumps(written))
    with pytest.raises(DataError, match="train split has 6 rows, but its shards have 5"):
        load_index(str(tmp_path))


def test_an_index_can_be_replaced(tmp_path: Path) -> None:
    """A reader sees the old index or the new one."""
    index = write_dataset(tmp_path, rows=5)
    write_index(str(tmp_path), replace(index, dataset_id="other"))
    assert load_index(str(tmp_path)).dataset_id == "other"
