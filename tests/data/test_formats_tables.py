from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dumps import exchange
from reading import conversations, read, rejects, roles, texts

from scaletrain.data.formats import Rejected, files
from scaletrain.errors import ConfigError, DataError

PROMPTS = {"prompt": "question", "answer": "reply"}
MESSAGES = {"conversation": "chat", "speaker": "who", "text": "line"}


def write_dataset(folder: Path, table: pa.Table, *, licence: str = "") -> Path:
    """A folder as datasets.Dataset.save_to_disk writes it: Arrow's stream format, and two JSON files beside it."""
    folder.mkdir(parents=True)
    name = "data-00000-of-00001.arrow"
    with pa.OSFile(str(folder / name), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    info = {"citation": "", "description": "", "features": {}, "homepage": "", "license": licence}
    (folder / "dataset_info.json").write_bytes(orjson.dumps(info))
    state = {"_data_files": [{"filename": name}], "_fingerprint": "f", "_format_columns": None, "_split": "train"}
    (folder / "state.json").write_bytes(orjson.dumps(state))
    return folder


def test_csv_columns_may_be_prompt_and_answer(tmp_path: Path) -> None:
    """Quotes, commas, line breaks in cells and a byte order mark; the place is the line that a row begins at."""
    path = tmp_path / "a.csv"
    path.write_bytes(
        b"\xef\xbb\xbfid,question,reply,spoken\r\n"
        b'1,"Well, ""what""?","two\nlines",en\r\n'
        b"2,\xe4\xbd\xa0,\xe5\xa5\xbd,zh\r\n"
    )
    items = read(path, "csv", columns={**PROMPTS, "id": "id", "language": "spoken"}, licence="CC0-1.0")
    assert texts(items) == [['Well, "what"?', "two\nlines"], ["你", "好"]]
    known = [(item.source, item.id, item.language, item.licence) for item in conversations(items)]
    assert known == [(f"{path}:2", "1", "en", "CC0-1.0"), (f"{path}:4", "2", "zh", "CC0-1.0")]


@pytest.mark.parametrize("separator", [";", "\t"])
def test_a_csv_of_semicolons_or_tabs_is_read(tmp_path: Path, separator: str) -> None:
    """As Excel writes it where commas are in numbers; a comma in a cell is then none between cells."""
    path = tmp_path / "a.csv"
    rows = [["question", "reply"], ["How much, please?", "3,50"], ['"a, ""b"" or c"', "c"]]
    path.write_text("\ufeff" + "\r\n".join(separator.join(row) for row in rows))
    assert texts(read(path, "csv", columns=PROMPTS)) == [["How much, please?", "3,50"], ['a, "b" or c', "c"]]


def test_csv_rows_that_are_wrong_are_counted(tmp_path: Path) -> None:
    """Too few cells, a stray quote and bytes that are not UTF-8; blank lines are no rows."""
    path = tmp_path / "a.tsv"
    path.write_bytes(b'question\treply\na\tb\nalone\n\n"x"y\tz\n\xff\tb\nc\td\n')
    items = read(path, "csv", columns=PROMPTS)
    assert texts(items) == [["a", "b"], ["c", "d"]]
    bad = [(item.source.rpartition(":")[2], item.reason) for item in items if isinstance(item, Rejected)]
    assert bad == [("3", "bad_row"), ("5", "bad_row"), ("6", "bad_row")]


def test_a_csv_that_ends_within_quotes_is_an_error(tmp_path: Path) -> None:
    """A file cut short is not a file whose last row is long; nor is one quote too many a row of a gigabyte."""
    path = tmp_path / "a.csv"
    path.write_text('question,reply\na,b\nc,"d\nand so on\n')
    with pytest.raises(DataError, match=r"a\.csv:3: a quote is opened here and never closed"):
        read(path, "csv", columns=PROMPTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scaletrain.data.formats.tables.MAX_LINE_BYTES", 1000)
        path.write_text('question,reply\na,"b\n' + "line\n" * 1000)
        with pytest.raises(DataError, match=r"a\.csv:\d+: a row of more than 1,000 bytes"):
            read(path, "csv", columns=PROMPTS)


def test_messages_of_one_conversation_are_brought_together(tmp_path: Path) -> None:
    """A row a message: of speakers by name, or by role; what one says in a row is one turn."""
    path = tmp_path / "a.csv"
    path.write_text("chat,who,line\n1,amy,Hi\n2,User,Hello\n1,ben,Ho\n2,Assistant,Hey\n1,ben,Hu\n3,a,1\n3,b,2\n3,c,3\n")
    items = read(path, "csv", columns=MESSAGES)
    found = {item.id: item for item in conversations(items)}
    assert texts([found["1"], found["2"]]) == [["Hi", "Ho\nHu"], ["Hello", "Hey"]]
    assert found["1"].authors == ("amy", "ben")
    assert roles(found["2"]) == "user assistant"
    assert rejects(items) == {"more_than_two_speakers": 3}


def test_a_csv_cell_may_hold_messages_as_json(tmp_path: Path) -> None:
    """As exports of chats have them."""
    path = tmp_path / "a.csv"
    cell = orjson.dumps(exchange("a", "b")["messages"]).decode().replace('"', '""')
    path.write_text(f'messages\n"{cell}"\nnonsense\n')
    items = read(path, "csv")
    assert texts(items) == [["a", "b"]]
    assert rejects(items) == {"bad_row": 1}


def test_parquet_and_datasets_on_disk_hold_lists_of_messages(tmp_path: Path) -> None:
    """Lists of objects, and the objects of lists of older tables; the dataset's own licence is known."""
    rows = [exchange("a", "b")["messages"], exchange("c", "d", "e")["messages"], None]
    table = pa.table({"id": ["x", "y", "z"], "messages": rows, "score": [1, 2, 3]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    items = read(tmp_path, "parquet")
    assert texts(items) == [["a", "b"], ["c", "d", "e"]]
    assert [item.id for item in conversations(items)] == ["x", "y"]
    assert rejects(items) == {"bad_row": 1}

    turned = pa.table(
        {"dialog": [{"from": ["human", "gpt"], "value": ["a", "b"]}, {"from": ["human"], "value": ["c"]}]}
    )
    folder = write_dataset(tmp_path / "dataset" / "train", turned, licence="mit")
    (folder / "cache-1234.arrow").write_bytes(b"left over by map")
    items = read(folder.parent, "hf_disk", columns={"messages": "dialog"})
    assert texts(items) == [["a", "b"], ["c"]]
    assert {item.licence for item in conversations(items)} == {"mit"}
    assert [item.source.rpartition(":")[2] for item in items] == ["row 1", "row 2"]


def test_a_table_that_is_cut_short_is_an_error(tmp_path: Path) -> None:
    """Also where an Arrow stream ends between two of its batches, which Arrow itself takes for its end."""
    table = pa.table({"prompt": ["a"] * 10, "answer": ["b"] * 10})
    pq.write_table(table, tmp_path / "a.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(whole[:-10])
    with pytest.raises(DataError, match=r"a\.parquet: cannot be read to its end"):
        read(tmp_path / "a.parquet", "parquet", columns={"prompt": "prompt", "answer": "answer"})
    file = write_dataset(tmp_path / "dataset", table) / "data-00000-of-00001.arrow"
    for size in (len(file.read_bytes()) - 8, 100, 2, 0):
        file.write_bytes(file.read_bytes()[:size])
        with pytest.raises(DataError, match=r"\.arrow: cannot be read to its end"):
            read(tmp_path / "dataset", "hf_disk", columns={"prompt": "prompt", "answer": "answer"})


def test_a_parquet_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns that unpack to more than any text does."""
    monkeypatch.setattr("scaletrain.data.formats.tables.FREE_UNPACKED_BYTES", 2**16)
    table = pa.table({"prompt": ["x" * 2**22], "answer": ["y"]})
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd", use_dictionary=False, write_statistics=False)
    with pytest.raises(DataError, match="unpacks to more than 250 times its size"):
        read(tmp_path, "parquet", columns={"prompt": "prompt", "answer": "answer"})


def test_text_that_is_not_utf8_is_found_in_its_row(tmp_path: Path) -> None:
    """Arrow does not look; one row of a batch is bad, and the others are read."""
    text = pa.array([b"a", b"\xff", b"c"]).view(pa.string())
    pq.write_table(pa.table({"p": text, "a": ["1", "2", "3"]}), tmp_path / "a.parquet")
    items = read(tmp_path, "parquet", columns={"prompt": "p", "answer": "a"})
    assert texts(items) == [["a", "1"], ["c", "3"]]
    assert rejects(items) == {"bad_row": 1}


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"prompt": "q"}, "columns names prompt; name one of these sets: messages; or prompt, answer; or"),
        ({"messages": "m", "prompt": "q", "answer": "a"}, "name one of these sets"),
        ({**MESSAGES, "id": "i"}, r"columns\.id: does not go with conversation, speaker, text"),
        (
            {"messages": "m", "system": "s", "colour": "c"},
            r"columns\.system: does not go with messages(.|\n)*columns\.colour",
        ),
    ],
)
def test_columns_that_do_not_go_together_are_refused(columns: dict[str, str], problem: str) -> None:
    """All of them at once, before a file is opened."""
    with pytest.raises(ConfigError, match=problem):
        read("/nowhere", "csv", columns=columns)


def test_a_column_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    """And settings that belong to other formats are refused."""
    (tmp_path / "a.csv").write_text("Question,Reply\na,b\n")
    with pytest.raises(DataError, match="has no column question and no reply, only Question, Reply"):
        read(tmp_path, "csv", columns=PROMPTS)
    with pytest.raises(DataError, match="has no column messages"):
        read(tmp_path, "csv")
    (tmp_path / "a.csv").write_text("")
    with pytest.raises(DataError, match="begins with no header line in UTF-8"):
        read(tmp_path, "csv")
    with pytest.raises(ConfigError, match=r"columns: the format messages has no such setting(.|\n)*min_score"):
        read(tmp_path, "messages", columns=PROMPTS, min_score=3)
    assert files.MAX_LINE_BYTES == 2**26
