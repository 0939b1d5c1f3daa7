import bz2
import gzip
import lzma
from pathlib import Path

import orjson
import pytest
from backports import zstd
from dumps import exchange, write_chitchat, write_jsonl
from reading import read, roles, texts

from scaletrain.config_data import Corpus
from scaletrain.data.conversation import Conversation
from scaletrain.data.formats import Rejected, list_files, read_conversations
from scaletrain.errors import ConfigError, DataError

COMPRESS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstd.compress}


def test_messages_reads_openai_and_sharegpt_rows(tmp_path: Path) -> None:
    """Both kinds of row, and a bare list, may stand in one file; each knows its corpus, file and line."""
    sharegpt = {"id": "1", "conversations": [{"from": "human", "value": "你好"}, {"from": "gpt", "value": "Hi"}]}
    path = write_jsonl(tmp_path / "a.jsonl", [exchange("a", "b"), "", sharegpt, exchange("c", "d")["messages"]])
    items = read(path, name="mine")
    assert texts(items) == [["a", "b"], ["你好", "Hi"], ["c", "d"]]
    assert [(item.corpus, item.source) for item in items if isinstance(item, Conversation)] == [
        ("mine", f"{path}:{line}") for line in (1, 3, 4)
    ]


def test_messages_reads_a_json_array(tmp_path: Path) -> None:
    """A .json file may be one array, over many lines, and begin with a byte order mark."""
    path = tmp_path / "a.json"
    path.write_bytes(b"\xef\xbb\xbf \n" + orjson.dumps([exchange("a", "b"), 3], option=orjson.OPT_INDENT_2))
    good, bad = read(path)
    assert texts([good]) == [["a", "b"]]
    assert isinstance(bad, Rejected)
    assert bad.source == f"{path}:row 2"


def test_json_lines_may_be_called_json(tmp_path: Path) -> None:
    """A file of JSON lines that is named .json is read all the same."""
    assert texts(read(write_jsonl(tmp_path / "a.json", [exchange("a", "b"), exchange("c", "d")]))) == [
        ["a", "b"],
        ["c", "d"],
    ]


@pytest.mark.parametrize("suffix", COMPRESS)
def test_compressed_files_are_read_as_they_are(tmp_path: Path, suffix: str) -> None:
    """All four kinds, also of several members, as parallel compressors write them."""
    compress = COMPRESS[suffix]
    lines = [orjson.dumps(exchange(str(i), "x")) + b"\n" for i in range(200)]
    path = tmp_path / f"a.jsonl.{suffix}"
    path.write_bytes(compress(b"".join(lines[:100])) + compress(b"".join(lines[100:])))
    assert texts(read(path)) == [[str(i), "x"] for i in range(200)]


@pytest.mark.parametrize("suffix", COMPRESS)
def test_a_compressed_file_that_is_cut_short_is_an_error(tmp_path: Path, suffix: str) -> None:
    """What is missing at the end is not lost in silence."""
    compress = COMPRESS[suffix]
    path = tmp_path / f"a.jsonl.{suffix}"
    path.write_bytes(compress(b"".join(orjson.dumps(exchange(str(i), "x")) + b"\n" for i in range(5000)))[:-20])
    with pytest.raises(DataError, match=r"a\.jsonl\.\w+: cannot be read to its end"):
        read(path)


def test_a_corrupt_line_is_counted_with_its_place(tmp_path: Path) -> None:
    """Rows that are not JSON, not messages or no plain dialogue are yielded as rejected, and the others read."""
    tool = {"messages": [{"role": "tool", "content": "42"}]}
    path = write_jsonl(tmp_path / "a.jsonl", [exchange("a", "b"), '{"messages": [', {"text": "x"}, tool, ""])
    path.write_bytes(path.read_bytes() + b'{"messages": [{"role": "user", "content": "\xff"}]}\n')
    items = read(path)
    assert texts(items) == [["a", "b"]]
    rejected = [item for item in items if isinstance(item, Rejected)]
    assert [(row.source.rpartition(":")[2], row.reason) for row in rejected] == [
        ("2", "bad_row"),
        ("3", "bad_row"),
        ("4", "unknown_role"),
        ("6", "bad_row"),
    ]
    assert "only text" in rejected[1].detail


def test_chitchat_speakers_take_turns_by_first_appearance(tmp_path: Path) -> None:
    """Who speaks first is the user; what one says in a row is one turn, a line each."""
    rows = [
        [("bob", "Hello"), ("bob", " "), ("bob", "Are you there?")],
        [("amy", "Yes")],
        [("amy", "Hi")],
        [("bob", "?")],
    ]
    path = write_chitchat(tmp_path / "dataset.json", {"k1": rows, "k2": [[("a", "1")], [("b", "2")], [("c", "3")]]})
    talk, crowd = read(path, "chitchat")
    assert texts([talk]) == [["Hello\nAre you there?", "Yes\nHi", "?"]]
    assert roles(talk) == "user assistant user"
    assert talk.source == f"{path}:k1"
    assert isinstance(crowd, Rejected)
    assert crowd.reason == "more_than_two_speakers"


def test_chatterbot_lines_alternate(tmp_path: Path) -> None:
    """Every scalar is text (`no`, `1`), whatever the language; a line where a list should be is a bad row."""
    (tmp_path / "greetings.yml").write_text(
        "categories:\n- 问候\nconversations:\n- - 你好\n  - こんにちは\n- - Really?\n  - no\n  - 1\n- just a line\n",
        "utf-8",
    )
    items = read(tmp_path, "chatterbot")
    assert texts(items) == [["你好", "こんにちは"], ["Really?", "no", "1"]]
    assert roles(items[1]) == "user assistant user"
    assert isinstance(items[2], Rejected)
    assert items[2].source.endswith("greetings.yml:conversation 3")


@pytest.mark.parametrize(
    ("format", "content", "problem"),
    [
        ("chitchat", '{"a": {"messages": [\n}', r"x\.json:2: not JSON"),
        ("chitchat", "[]", "not a chitchat file"),
        ("chatterbot", "a: [", "not YAML.*line 2"),
        ("chatterbot", "- a", "not a chatterbot file"),
        ("messages", "[1,\n2", r"x\.json:2: not JSON"),
    ],
)
def test_a_file_that_cannot_be_parsed_is_an_error(tmp_path: Path, format: str, content: str, problem: str) -> None:
    """Where nobody can say how much would be lost, reading stops, with the file and the place."""
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(DataError, match=problem):
        read(tmp_path / "x.json", format)


def test_globs_and_folders_are_read_in_order(tmp_path: Path) -> None:
    """A glob takes what it matches, a folder what looks like the format, both sorted by name."""
    for name in ("b.jsonl", "a.jsonl", "sub/c.jsonl"):
        write_jsonl(tmp_path / name, [exchange(name, "x")])
    (tmp_path / "README.md").write_text("no rows")
    assert [each[0] for each in texts(read(tmp_path))] == ["a.jsonl", "b.jsonl", "sub/c.jsonl"]
    assert [each[0] for each in texts(read(f"{tmp_path}/*.jsonl"))] == ["a.jsonl", "b.jsonl"]


def test_nothing_found_names_the_source(tmp_path: Path) -> None:
    """An empty folder, and a package that is not there, are errors that say what to do."""
    with pytest.raises(DataError, match=r"nothing found at .*\*\.jsonl; check the path"):
        read(f"{tmp_path}/*.jsonl")
    with pytest.raises(DataError, match="no_such_package is not installed; pip install no-such-package"):
        read("package:no_such_package/x.json", "chitchat")


def test_a_file_of_an_installed_package_can_be_a_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """package:name/glob is found without importing the package, and its version does not depend on the machine."""
    package = tmp_path / "some_corpus"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    write_jsonl(package / "data" / "b.jsonl", [exchange("b", "x")])
    write_jsonl(package / "data" / "a.jsonl", [exchange("a", "x")])
    monkeypatch.syspath_prepend(str(tmp_path))
    files = list_files(Corpus(format="messages", source="package:some_corpus/data/*.jsonl"))
    assert [file.name for file in files] == ["package:some_corpus/data/a.jsonl", "package:some_corpus/data/b.jsonl"]
    (package / "data" / "a.jsonl").touch()
    assert list_files(Corpus(format="messages", source="package:some_corpus/data/*.jsonl")) == files
    assert texts(read("package:some_corpus/data/*.jsonl")) == [["a", "x"], ["b", "x"]]


def test_an_unknown_format_is_refused_with_a_hint() -> None:
    """A misspelt format names its neighbour, before anything is opened."""
    with pytest.raises(ConfigError, match="unknown format chit-chat; did you mean chitchat"):
        list_files(Corpus(format="chit-chat", source="/nowhere"))


def test_a_users_own_function_reads_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """my_package.module:read_row gets each row; what it cannot take is a bad row, what it drops is dropped."""
    (tmp_path / "their_rows.py").write_text(
        "from scaletrain.data.conversation import Conversation, Drop, Turn\n"
        "def read_row(row):\n"
        "    if row.get('secret'):\n"
        "        raise Drop('secret')\n"
        "    return Conversation((Turn('user', row['q']), Turn('assistant', row['a'])))\n"
        "def wrong(row):\n"
        "    return row\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    path = write_jsonl(tmp_path / "a.jsonl", [{"q": "a", "a": "b"}, {"question": "x"}, {"secret": True}])
    items = read(path, "their_rows:read_row")
    assert texts(items) == [["a", "b"]]
    assert [(item.reason, item.detail) for item in items if isinstance(item, Rejected)] == [
        ("bad_row", "their_rows:read_row raised KeyError: 'q'"),
        ("secret", ""),
    ]
    with pytest.raises(ConfigError, match="returned dict; it must return"):
        read(path, "their_rows:wrong")


def test_reading_stops_at_the_limit_and_at_too_many_bad_rows(tmp_path: Path) -> None:
    """`limit` counts conversations over all files; bad rows beyond data.max_bad_rows are named with their lines."""
    write_jsonl(tmp_path / "a.jsonl", [exchange("a", "x"), "oops", exchange("b", "x")])
    write_jsonl(tmp_path / "b.jsonl", [exchange("c", "x"), "oops", exchange("d", "x")])
    corpus = Corpus(format="messages", source=str(tmp_path), limit=3)
    assert [each.turns[0].content for each in read_conversations(corpus, max_bad_rows=1)] == ["a", "b", "c"]
    with pytest.raises(DataError, match=r"more than data\.max_bad_rows=0 rows.*\n.*a\.jsonl:2: not JSON"):
        list(read_conversations(corpus, max_bad_rows=0))


def test_text_that_is_no_unicode_is_a_bad_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lone surrogate, which no tokenizer takes, is refused where it is read."""
    (tmp_path / "their_surrogates.py").write_text(
        "from scaletrain.data.conversation import Conversation, Turn\n"
        "def read_row(row):\n"
        "    return Conversation((Turn('user', chr(0xD800)),))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    (row,) = read(write_jsonl(tmp_path / "a.jsonl", [{}]), "their_surrogates:read_row")
    assert isinstance(row, Rejected)
    assert row.reason == "bad_row"


@pytest.mark.real_model
def test_the_demo_corpora_are_read_to_the_last_row() -> None:
    """The real chitchat and chatterbot packages: the numbers of their conversations, languages and odd lines."""
    pytest.importorskip("chitchat_dataset")
    pytest.importorskip("chatterbot_corpus")
    assert len(read("package:chitchat_dataset/dataset.json", "chitchat")) == 7168
    items = read("package:chatterbot_corpus/data/*/*.yml", "chatterbot")
    assert sum(isinstance(item, Rejected) for item in items) < 10
    assert any("你" in text for conversation in texts(items) for text in conversation)
