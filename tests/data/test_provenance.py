"""provenance: what became of every row, and the plain words for it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scaletrain import storage
from scaletrain.data.packing import DropReason, Piece
from scaletrain.data.provenance import _in_no_row, explain, read_provenance
from scaletrain.data.row_plan import SplitPlan
from scaletrain.data.shards import load_index
from scaletrain.errors import ConfigError, DataError
from varied import prepare_varied


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of the varied dataset."""
    return prepare_varied(tmp_path_factory.mktemp("varied")).dataset_url


def table_of(dataset_url: str) -> pa.Table:
    return pa.concat_tables(read_provenance(dataset_url, load_index(dataset_url)))


def test_every_row_is_there_once_and_in_order(dataset: str) -> None:
    """Read = kept + left out, in the order of the files; only what was kept has a split."""
    rows = table_of(dataset).to_pylist()
    assert [row["source"].rsplit("/")[-1] for row in rows] == [
        *(f"dump.jsonl:{n}" for n in range(1, 41)),
        *(f"plain.jsonl:{n}" for n in range(1, 21)),
    ]
    assert all((row["reason"] is None) == (row["split"] is not None) for row in rows)
    statistics = orjson.loads(storage.read_bytes(storage.join(dataset, "stats.json")))
    for corpus in statistics["corpora"]:
        own = [row for row in rows if row["corpus"] == corpus["name"]]
        assert sum(row["reason"] is None for row in own) == corpus["kept"]
        assert sum(row["rows"] for row in own) == corpus["read"] + corpus["bad_rows"]


def test_samples_hold_the_tokens_of_their_conversations(dataset: str) -> None:
    """The tokens of the rows that a provenance names are those of the shards, and what packing left out is stated."""
    index = load_index(dataset)
    rows = [row for row in table_of(dataset).to_pylist() if row["split"] == "train"]
    pieces: dict[int, int] = {}
    for row in rows:
        for sample in row["sample_ids"]:
            pieces[sample] = pieces.get(sample, 0) + 1
    shard = pq.read_table(storage.join(dataset, "shard-00000.parquet")).to_pylist()
    assert [pieces[row["sample_id"]] for row in shard] == [len(row["document_lengths"]) for row in shard]
    assert sum(row["tokens"] - row["dropped_tokens"] for row in rows) == index.splits["train"].tokens
    long = next(row for row in table_of(dataset).to_pylist() if row["id"] == "long")
    assert long["dropped_tokens"] > 0


def test_copies_of_a_repeated_conversation_are_not_left_out_twice() -> None:
    """Left out is what is in no row: of two copies, one cut otherwise, the tokens that neither has in one."""
    rows = [(Piece(0, 0, 10),), (Piece(1, 4, 10), Piece(2, 0, 5))]
    dropped: list[tuple[Piece, DropReason]] = [
        (Piece(0, 10, 30), "turn_longer_than_seq_len"),
        (Piece(1, 0, 4), "piece_without_supervised_tokens"),
        (Piece(1, 10, 30), "turn_longer_than_seq_len"),
    ]
    plan = SplitPlan(np.array([3, 3, 1]), rows, dropped)
    assert _in_no_row(plan, np.array([0, 5, 0, 30])) == {3: 20}


def test_a_row_knows_its_origin_and_what_changed_it(dataset: str) -> None:
    """Id, language and licence come from the format, changes from cleaning, reasons with the step that gave them."""
    rows = {row["source"].rsplit("/")[-1]: row for row in table_of(dataset).to_pylist()}
    changed, short, alone = rows["dump.jsonl:1"], rows["dump.jsonl:37"], rows["plain.jsonl:20"]
    assert (changed["id"], changed["language"], changed["licence"]) == ("t3", "en", "CC-BY-4.0")
    assert changed["changes"] == ["fix_unicode"] and changed["reason"] is None
    assert (short["reason"], short["step"], short["key"], short["tokens"]) == ("too_short", "check_length", None, 0)
    assert (alone["licence"], alone["reason"]) == ("", "too_few_turns")
    assert rows["plain.jsonl:19"]["reason"] == "bad_row" and rows["plain.jsonl:19"]["changes"] == []


def test_the_index_vouches_for_it(dataset: str, tmp_path: Path) -> None:
    """A damaged file is refused by its name, and a dataset without provenance says so."""
    index = load_index(dataset)
    storage.download_folder(dataset, tmp_path)
    path = tmp_path / "provenance-00000.parquet"
    damaged = bytearray(path.read_bytes())
    damaged[100] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(DataError, match=r"provenance-00000\.parquet: its checksum"):
        list(read_provenance(str(tmp_path), index))
    old = orjson.loads((tmp_path / "index.json").read_bytes())
    del old["files"]
    (tmp_path / "index.json").write_bytes(orjson.dumps(old))
    with pytest.raises(DataError, match="has no provenance"):
        list(read_provenance(str(tmp_path), load_index(str(tmp_path))))


@pytest.mark.parametrize("wanted", ["t3", "dump.jsonl:1"])
def test_a_conversation_is_found_by_id_source_and_key(dataset: str, wanted: str) -> None:
    """By what the dump calls it, by the end of its path, and by its key in any case of letters."""
    (found,) = explain(dataset, wanted)
    assert (found.id, found.split in ("train", "validation")) == ("t3", True)
    (by_key,) = explain(dataset, str(found.key).upper())
    assert by_key == found


def test_a_life_is_told_in_plain_lines(dataset: str) -> None:
    """Where it was read, what changed it, where it is now, and how to see it; or why it was left out."""
    kept = "\n".join(explain(dataset, "t3")[0].lines(dataset))
    for fact in ("dump.jsonl:1", "en", "CC-BY-4.0", "fix_unicode", "samples ", f"scaletrain data show {dataset}"):
        assert fact in kept
    dropped = "\n".join(explain(dataset, "short1")[0].lines(dataset))
    assert "too_short by check_length" in dropped and "samples" not in dropped
    assert "licence   NOT KNOWN" in "\n".join(explain(dataset, "plain.jsonl:1")[0].lines(dataset))


def test_a_life_does_not_steer_the_terminal(dataset: str) -> None:
    """What strangers chose as an id or caused as a detail is shown, in its line."""
    (life,) = explain(dataset, "t3")
    lines = replace(life, id="\x1b[2Jme\nand you", reason="x", detail="\x07").lines(dataset)
    assert "  id        ␛[2Jme and you" in lines and "  left out  x: ␇" in lines


def test_what_is_not_there_is_an_error_with_an_example(dataset: str) -> None:
    """The message shows what a source looks like."""
    with pytest.raises(ConfigError, match=r"t99: no such row.*dump\.jsonl:1"):
        explain(dataset, "t99")


def test_row_groups_and_files_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset: str) -> None:
    """A big dataset's provenance comes in several files, and a reader holds a row group at a time."""
    monkeypatch.setattr("scaletrain.data.provenance._ROWS_PER_GROUP", 7)
    monkeypatch.setattr("scaletrain.data.provenance._ROWS_PER_FILE", 28)
    url = prepare_varied(tmp_path).dataset_url
    index = load_index(url)
    names = [file.name for file in index.files if file.name.startswith("provenance-")]
    assert names == [f"provenance-0000{number}.parquet" for number in range(3)]
    tables = list(read_provenance(url, index, columns=["key", "tokens"]))
    assert max(map(len, tables)) == 7
    expected = table_of(dataset)
    assert np.array_equal(pa.concat_tables(tables)["tokens"], expected["tokens"])
    assert pa.concat_tables(tables)["key"].to_pylist() == expected["key"].to_pylist()
