"""check: a whole dataset passes, and every kind of damage is named."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pytest
from random_dataset import random_rows, write_dataset

from scaletrain import storage
from scaletrain.data.check import check_dataset
from scaletrain.data.shards import Row, load_index, write_index, write_split
from scaletrain.errors import DataError
from varied import prepare_varied

SEQ_LEN = 64


def test_a_prepared_dataset_is_whole(tmp_path: Path) -> None:
    """What `prepare` writes has no problem, packed, padded, cut and dropped pieces and all."""
    url = prepare_varied(tmp_path).dataset_url
    found = check_dataset(url)
    assert found.problems == []
    assert found.rows == {name: split.rows for name, split in load_index(url).splits.items()}
    assert found.files == len(storage.list_objects(url)) - 1
    assert "whole" in found.lines()


def test_all_damaged_files_are_named_at_once(tmp_path: Path) -> None:
    """One that is missing, one of another size, one with a flipped bit."""
    url = Path(prepare_varied(tmp_path).dataset_url)
    (url / "shard-00000.parquet").unlink()
    (url / "stats.json").write_bytes(b"{}")
    report = bytearray((url / "report.html").read_bytes())
    report[-20] ^= 4
    (url / "report.html").write_bytes(report)
    problems = "\n".join(check_dataset(str(url)).problems)
    for problem in ("shard-00000.parquet: is missing", "stats.json: has 2 bytes", "report.html: its checksum"):
        assert problem in problems


def test_no_dataset_and_a_damaged_index(tmp_path: Path) -> None:
    """The first is the user's mistake; the second is what was asked for."""
    with pytest.raises(DataError, match="there is no complete dataset here"):
        check_dataset(str(tmp_path))
    (tmp_path / "index.json").write_bytes(b"{")
    (problem,) = check_dataset(str(tmp_path)).problems
    assert "index.json: is damaged" in problem


@pytest.mark.parametrize("name", ["../victim.txt", "VICTIM", "..", ""])
def test_an_index_that_names_other_places_is_refused(tmp_path: Path, name: str) -> None:
    """Checking somebody's dataset neither writes nor removes a file outside of it."""
    victim = tmp_path / "victim.txt"
    victim.write_text("mine")
    url = tmp_path / "data" / "theirs"
    write_dataset(url, rows=3)
    index = orjson.loads((url / "index.json").read_bytes())
    index["files"] = [{"name": name.replace("VICTIM", str(victim)), "size_bytes": 4, "checksum": "0"}]
    (url / "index.json").write_bytes(orjson.dumps(index))
    (problem,) = check_dataset(str(url)).problems
    assert "which is no file's name" in problem
    assert victim.read_text() == "mine"


def other_labels(row: Row) -> Row:
    return replace(row, labels=np.where(row.labels >= 0, row.labels + 1, row.labels))


def longer_padding(row: Row) -> Row:
    ids = row.input_ids.copy()
    ids[sum(row.document_lengths) :] = 9
    return replace(row, input_ids=ids)


def learned_first(row: Row) -> Row:
    labels = row.labels.copy()
    labels[0] = row.input_ids[0]
    return replace(row, labels=labels)


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (other_labels, "have labels that are not their tokens"),
        (longer_padding, "have something else than padding behind their tokens"),
        (learned_first, "learn a document's first token"),
        (lambda row: replace(row, document_corpora=tuple(7 for _ in row.document_corpora)), "have a corpus that"),
        (
            lambda row: replace(
                row, document_lengths=(0, *row.document_lengths), document_corpora=(0, *row.document_corpora)
            ),
            "document_lengths that do not",
        ),
    ],
)
def test_rows_that_no_preparation_writes_are_found(tmp_path: Path, spoil: Callable[[Row], Row], problem: str) -> None:
    """Files that match their checksums may still hold wrong rows: of a bug, or of another program."""
    url = str(tmp_path)
    index = write_dataset(url, rows=4, seq_len=SEQ_LEN)
    rows = list(random_rows(300, seq_len=SEQ_LEN))
    assert sum(rows[200].document_lengths) < SEQ_LEN
    rows[200] = spoil(rows[200])
    train = write_split(iter(rows), url, split="train", seq_len=SEQ_LEN)
    write_index(url, replace(index, splits={**index.splits, "train": train}))
    (found,) = check_dataset(url).problems
    assert problem in found and "as row 200 of the train split" in found


def test_sums_and_places_are_checked(tmp_path: Path) -> None:
    """Shards in the wrong order, and totals that are not those of the rows."""
    index = write_dataset(tmp_path, rows=300, seq_len=SEQ_LEN)
    wrong = replace(index.splits["train"], tokens=1)
    write_index(str(tmp_path), replace(index, splits={**index.splits, "train": wrong}))
    assert [each for each in check_dataset(str(tmp_path)).problems if "the index says 1" in each]
    validation = write_split(random_rows(3, seq_len=SEQ_LEN), str(tmp_path), split="validation", seq_len=SEQ_LEN)
    twice = replace(validation, shards=validation.shards * 2, rows=6, tokens=2 * validation.tokens)
    write_index(str(tmp_path), replace(index, splits={**index.splits, "validation": twice}))
    (found,) = check_dataset(str(tmp_path)).problems
    assert "3 rows have a sample_id that is not their place, as row 3" in found


def test_provenance_that_tells_of_other_rows_is_found(tmp_path: Path) -> None:
    """The files of two datasets put together: each whole, and not of one another."""
    url, other = (prepare_varied(tmp_path / name, seq_len=size).dataset_url for name, size in (("a", 128), ("b", 64)))
    index, told = (orjson.loads(storage.read_bytes(storage.join(each, "index.json"))) for each in (url, other))
    for file in told["files"]:
        storage.write_bytes(storage.join(url, file["name"]), storage.read_bytes(storage.join(other, file["name"])))
    storage.write_bytes(storage.join(url, "index.json"), orjson.dumps({**index, "files": told["files"]}))
    problems = check_dataset(url).problems
    assert any("provenance: tells of another number of documents" in each for each in problems)
