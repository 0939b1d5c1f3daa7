"""judge.items: what is judged, read from JSON lines."""

from pathlib import Path

import pytest

from scaletrain.errors import ConfigError, NotFoundError
from scaletrain.judge.items import Item, read_items, write_items

PROMPT = ({"role": "user", "content": "Hi"},)


def read(tmp_path: Path, *lines: str) -> object:
    path = tmp_path / "judging.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return read_items(str(path))


def test_items_come_back_as_they_were_written(tmp_path: Path) -> None:
    """Also with earlier turns, and to any URL."""
    url = str(tmp_path / "judging.jsonl")
    talk = ({"role": "system", "content": "Be kind."}, *PROMPT, {"role": "assistant", "content": "Yes?"}, *PROMPT)
    items = [Item(PROMPT, {"a": "1", "b": "2"}), Item(talk, {"a": "1", "b": "2", "c": "3"})]
    write_items(url, items)
    found = read_items(url)
    assert found.items == tuple(items)
    assert found.models == ("a", "b", "c")
    assert len(found.pairs) == 1 + 3


def test_a_prompt_stands_for_one_message(tmp_path: Path) -> None:
    """The short form of an item."""
    items = read(tmp_path, '{"prompt": "Hi", "answers": {"b": "Hello.", "a": "Hey."}}')
    assert items.items == (Item(PROMPT, {"b": "Hello.", "a": "Hey."}),)  # type: ignore[attr-defined]


def test_equal_answers_are_not_judged_but_counted() -> None:
    """There is nothing to choose between them; blanks at the ends do not make a difference."""
    item = Item(PROMPT, {"a": "Yes.", "b": " Yes.\n", "c": "No."})
    assert [(pair.first, pair.second) for pair in item.pairs] == [("a", "c"), ("b", "c")]


def test_votes_belong_to_texts() -> None:
    """Another answer is another pair; the order of the models in the file is not."""
    pair = Item(PROMPT, {"a": "1", "b": "2"}).pairs[0]
    assert Item(PROMPT, {"b": "2", "a": "1"}).pairs[0].id == pair.id
    assert Item(PROMPT, {"a": "2", "b": "1"}).pairs[0].id != pair.id
    assert Item(PROMPT, {"a": "1", "b": "3"}).pairs[0].id != pair.id


def test_every_line_that_is_wrong_is_named_with_all_that_is_wrong(tmp_path: Path) -> None:
    """One error for the whole file."""
    with pytest.raises(ConfigError) as caught:
        read(
            tmp_path,
            '{"prompt": "Hi", "answers": {"a": "1", "b": "2"}}',
            "{",
            "[]",
            '{"answers": {"a": "1"}}',
            '{"prompt": 3, "answers": {"a": "1", "b": 2}}',
            '{"messages": [{"role": "assistant", "content": "x"}], "answers": {"a": "1", "b": "2"}}',
        )
    problems = caught.value.problems
    assert [problem.split("jsonl:")[1][0] for problem in problems] == ["2", "3", "4", "5", "6"]
    assert 'either "prompt" or "messages"' in problems[2] and "two or more models" in problems[2]
    assert '"role"' in problems[3] and "every answer has to be a text" in problems[3]
    assert "the user's" in problems[4]


@pytest.mark.parametrize("lines", [[], ['{"prompt": "Hi", "answers": {"a": "1", "b": "1"}}']])
def test_nothing_to_judge_is_said(tmp_path: Path, lines: list[str]) -> None:
    """An empty file, or one whose models all said the same."""
    with pytest.raises(ConfigError, match="nothing to judge"):
        read(tmp_path, *lines)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """As every other URL that is not there."""
    with pytest.raises(NotFoundError, match="nowhere"):
        read_items(str(tmp_path / "nowhere.jsonl"))
