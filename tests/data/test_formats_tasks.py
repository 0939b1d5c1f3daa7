from pathlib import Path

import pytest
from dumps import exchange, write_jsonl
from reddit_dump import comment, submission

from scaletrain.config_data import Corpus
from scaletrain.data import tokenise
from scaletrain.data.formats import list_files
from scaletrain.data.parts import END_OF_PART, cut_into_parts


def corpora(folder: Path) -> list[Corpus]:
    """Two corpora of three files whose rows stand alone, and between them one of two files that belong together."""
    for name in ("a", "z"):
        for number in range(3):
            write_jsonl(folder / name / f"{number}.jsonl", [exchange(f"{name}{number}", "x"), exchange("y" * 99, "z")])
    write_jsonl(folder / "reddit" / "1.jsonl", [submission("a", "T"), submission("b", "U")])
    write_jsonl(folder / "reddit" / "2.jsonl", [comment("c", "a", "t3_a", "x"), comment("d", "zz", "t3_zz", "y")])
    formats = {"a": "messages", "reddit": "reddit", "z": "messages"}
    return [Corpus(format=format, source=str(folder / name), name=name) for name, format in formats.items()]


def test_files_that_belong_together_are_one_task(tmp_path: Path) -> None:
    """Alone in it, whole; a task has files of one corpus, and survives the way to Ray and back."""
    section = corpora(tmp_path)
    parts = cut_into_parts([list_files(corpus) for corpus in section], section)
    assert [len(part.files) for part in parts if part.corpus == 1] == [2]
    assert [[file.url[-8:] for part in parts if part.corpus == corpus for file in part.files] for corpus in (0, 2)] == [
        [f"/{name}/{number}.jsonl"[-8:] for number in range(3)] for name in ("a", "z")
    ]
    assert [list(tokenise._parts_of(tokenise._to_task(*each))) for each in enumerate(parts)] == [[p] for p in parts]


def test_each_record_says_how_many_rows_it_stands_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And tables are cut by their text too, so that 256 rows of a megabyte are not one table."""
    monkeypatch.setattr(tokenise, "_ENCODE_TASK_CHARS", 50)
    section = corpora(tmp_path)
    parts = cut_into_parts([list_files(corpus) for corpus in section], section)
    tables = [table for part in parts for table in tokenise._read(part, section, max_bad_rows=0)]
    rows = [row for table in tables for row in table.to_pylist()]
    assert sum(row["count"] for row in rows if row["reason"] == END_OF_PART) == len(rows) - len(parts)
    rows = [row for row in rows if row["reason"] != END_OF_PART]
    assert [row["count"] for row in rows if row["reason"] is None] == [1] * 13
    assert {row["reason"]: row["count"] for row in rows if row["reason"]} == {"no_reply": 1, "parent_missing": 1}
    assert max(len(table) for table in tables) <= 4
    assert [row["row"] for row in rows if row["corpus"] == 1] == [0, 1, 2]
