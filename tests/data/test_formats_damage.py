"""Whatever is done to the bytes of a dump, reading it ends in rows and counted rejects, or in one error of ours."""

from collections.abc import Callable
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dumps import exchange, write_chitchat, write_jsonl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reading import conversations, read
from reddit_dump import comment, submission
from test_formats_json import TALK, tree
from test_formats_movies import utterance, write_cornell
from test_formats_stack_exchange import answer, question, write_xml
from test_formats_tables import PROMPTS, write_dataset
from test_formats_tweets import write_archive, write_twcs

from scaletrain.errors import DataError

Write = Callable[[Path], Path]  # into a folder -> the file to damage


def _archive(folder: Path) -> Path:
    write_archive(folder / "data", "1", [("5", "Hi", ""), ("7", "Hu", "6")])
    write_archive(folder / "other", "2", [("6", "Ho", "5")])
    return folder / "data" / "tweets.js"


def _yaml(folder: Path) -> Path:
    (folder / "a.yml").write_text("categories:\n- a\nconversations:\n- - Hi\n  - 'Ho'\n- - \"a\"\n  - b\n")
    return folder / "a.yml"


def _csv(folder: Path) -> Path:
    (folder / "a.csv").write_text('question,reply\n"a, b",c\nd,e\n')
    return folder / "a.csv"


def _parquet(folder: Path) -> Path:
    pq.write_table(pa.table({"messages": [exchange("a", "b")["messages"]] * 3}), folder / "a.parquet")
    return folder / "a.parquet"


def _array(folder: Path) -> Path:
    (folder / "a.json").write_bytes(orjson.dumps([{"instruction": "a", "input": "", "output": "b"}]))
    return folder / "a.json"


def _text(folder: Path) -> Path:
    (folder / "a.txt").write_text("amy: Hi\nben: Ho\n\namy: é\nben: 你\n")
    return folder / "a.txt"


def _whatsapp(folder: Path) -> Path:
    (folder / "a.txt").write_text(
        "1/1/22, 9:41 AM - amy: Hi\n1/1/22, 9:42 AM - ben: Ho\n[2.1.22, 9:41:01] amy: é\n你\n"
    )
    return folder / "a.txt"


DUMPS: dict[str, Write] = {
    "messages": lambda folder: write_jsonl(folder / "a.jsonl", [exchange("a", "b"), exchange("c", "d")]),
    "alpaca": _array,
    "oasst": lambda folder: write_jsonl(folder / "a.jsonl", [tree(*TALK), *TALK]),
    "cornell": lambda folder: write_cornell(folder) / "movie_lines.txt",
    "convokit": lambda folder: write_jsonl(
        folder / "utterances.jsonl",
        [utterance("L1", "a", speaker="u", to=None, root="L1"), utterance("L2", "b", speaker="v", to="L1", root="L1")],
    ),
    "csv": _csv,
    "parquet": _parquet,
    "hf_disk": lambda folder: (
        write_dataset(folder / "d", pa.table({"messages": [exchange("a", "b")["messages"]]}))
        / "data-00000-of-00001.arrow"
    ),
    "twcs": lambda folder: write_twcs(folder / "a.csv", [(1, "a", True, "Hi", "2", ""), (2, "b", False, "Ho", "", 1)]),
    "x_archive": _archive,
    "reddit": lambda folder: write_jsonl(folder / "a.jsonl", [submission("a", "T"), comment("b", "a", "t3_a", "x")]),
    "stack_exchange": lambda folder: write_xml(
        folder / "Posts.xml", [question(1, "<p>Q</p>"), answer(2, 1, "<b>A</b>")]
    ),
    "text": _text,
    "chat_log": _text,
    "whatsapp": _whatsapp,
    "chitchat": lambda folder: write_chitchat(folder / "a.json", {"k": [[("a", "1")], [("b", "2")]]}),
    "chatterbot": _yaml,
}
PIECES = [b"", b'"', b"\n", b"\x00", b"\xff", b"{", b"[", b"<", b",", b"null", b"1e999", b"\\ud800", b"[" * 2000, b"-1"]


@pytest.mark.parametrize("format", DUMPS)
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_bytes_give_rows_or_one_error(tmp_path: Path, format: str, data: st.DataObject) -> None:
    """A stretch of bytes is cut out or replaced, anywhere: what comes out is a DataError that names the file."""
    whole_path = next((tmp_path / "whole").glob("*"), None)
    if whole_path is None:  # the first example of this format
        path = DUMPS[format](tmp_path)
        assert conversations(_read(path, format))
        (tmp_path / "whole").mkdir()
        whole_path = path.rename(tmp_path / "whole" / path.name)
    whole = whole_path.read_bytes()
    path = tmp_path / "data" / whole_path.name if format == "x_archive" else tmp_path / whole_path.name
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, len(whole)) | st.integers(start, min(start + 4, len(whole))))
    path.write_bytes(whole[:start] + data.draw(st.sampled_from(PIECES)) + whole[stop:])
    try:
        _read(path, format)
    except DataError as error:
        assert path.name in str(error)


def _read(path: Path, format: str) -> list[object]:
    columns = {"columns": PROMPTS} if format == "csv" else {}
    globs = {"cornell": f"{path.parent}/*.txt", "x_archive": f"{path.parents[1]}/[do]*/tweets.js"}
    return list(read(globs.get(format, path), format, **columns))
