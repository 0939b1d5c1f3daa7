from pathlib import Path

import pytest
from dumps import exchange, write_jsonl
from reddit_dump import comment, submission

from scaletrain.config import Corpus
from scaletrain.data import tokenise
from scaletrain.data.formats import list_files


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
    """Alone in it, whole; small files of other corpora share a task before it and one after it."""
    section = corpora(tmp_path)
    tasks = tokenise._read_tasks([list_files(corpus) for corpus in section], section)
    assert [list(zip(*task.select(["corpus", "file"]).to_pydict().values(), strict=True)) for task in tasks] == [
        [(0, 0), (0, 1), (0, 2)],
        [(1, 0), (1, 1)],
        [(2, 0), (2, 1), (2, 2)],
    ]


def test_each_record_says_how_many_rows_it_stands_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And tables are cut by their text too, so that 256 rows of a megabyte are not one table."""
    monkeypatch.setattr(tokenise, "_ENCODE_TASK_CHARS", 50)
    section = corpora(tmp_path)
    tasks = tokenise._read_tasks([list_files(corpus) for corpus in section], section)
    tables = [table for task in tasks for table in tokenise._read(task, section, max_bad_rows=0)]
    rows = [row for table in tables for row in table.to_pylist()]
    assert [row["count"] for row in rows if row["reason"] is None] == [1] * 13
    assert {row["reason"]: row["count"] for row in rows if row["reason"]} == {"no_reply": 1, "parent_missing": 1}
    assert max(len(table) for table in tables) <= 3
    assert [row["row"] for row in rows if row["corpus"] == 1] == [0, 1, 2]
