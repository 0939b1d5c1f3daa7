"""What `scaletrain doctor CONFIG` says of the sources: found, readable, and of the format they are said to be."""

from pathlib import Path

import pytest
from dumps import exchange, write_jsonl
from test_formats_whatsapp import ANDROID

from scaletrain.config_data import Corpus
from scaletrain.data import source_check
from scaletrain.data.source_check import sources


def look_at(source: Path, format: str = "messages", **settings: object) -> tuple[str, str, str]:
    (found,) = sources([Corpus(format=format, source=str(source), **settings)])  # type: ignore[arg-type]
    assert found.name == f"source {format}"
    return found.status, found.found, found.remedy


def test_a_sound_source_is_a_line_with_its_size(tmp_path: Path) -> None:
    """How many files, how large, and what the first conversation is."""
    for name in "ab":
        write_jsonl(tmp_path / f"{name}.jsonl", [exchange("Hi", "Ho", "Hu", "Ha")])
    assert look_at(tmp_path) == ("ok", "2 file(s), 0.0 MB; the first conversation has 4 turns", "")


def test_what_is_wrong_with_a_source_is_told_with_what_to_do(tmp_path: Path) -> None:
    """A wrong path, a wrong format, another encoding, columns that are missing, and a setting that does not go."""
    log = tmp_path / "chat.txt"
    log.write_text(ANDROID)
    status, found, remedy = look_at(tmp_path / "nowhere" / "*.jsonl")
    assert (status, remedy) == ("fail", "check the path, or the glob's wildcards")
    status, found, remedy = look_at(log)
    assert status == "fail" and "rows 11 cannot be read, as" in found and "format" in remedy
    assert "format: whatsapp" in look_at(log, "chat_log")[1]
    assert look_at(log, "whatsapp")[0] == "ok"
    (tmp_path / "latin.jsonl").write_bytes(b'{"messages": [{"role": "user", "content": "\xfc"}]}')
    status, found, remedy = look_at(tmp_path / "latin.jsonl")
    assert status == "fail" and "iconv" in remedy
    (tmp_path / "a.csv").write_text("Question;Reply\na;b\n")
    status, found, remedy = look_at(tmp_path / "a.csv", "csv", columns={"prompt": "q", "answer": "a"})
    assert status == "fail" and "only Question, Reply" in found and "set columns" in remedy
    assert look_at(log, "whatsapp", min_score=3)[0] == look_at(log, "whatsap")[0] == "fail"


def test_a_few_bad_rows_among_good_ones_are_a_warning(tmp_path: Path) -> None:
    """Named by the first of them."""
    path = write_jsonl(tmp_path / "a.jsonl", [exchange("Hi", "Ho"), "oops"])
    status, found, remedy = look_at(path)
    assert (status, remedy) == ("warn", "correct the dump, check data.corpora's format")
    assert f"of the first 2 rows 1 cannot be read, as {path}:2: not JSON" in found


def test_no_more_is_read_of_a_large_dump_than_its_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What would have to be read as a whole is opened alone; what is read line by line is still looked into."""
    monkeypatch.setattr(source_check, "_SMALL_BYTES", 10)
    (tmp_path / "a.json").write_text("[" + "nonsense " * 100)
    assert "too large to look into" in look_at(tmp_path / "a.json", "chitchat")[1]
    assert "too large to look into" in look_at(tmp_path / "a.json", "reddit")[1]
    path = write_jsonl(tmp_path / "a.jsonl", [exchange("Hi", "Ho")] * 100)
    assert look_at(path)[1].endswith("the first conversation has 2 turns")
