"""leakage: what quotes a benchmark is found, and nothing else."""

import gzip
import itertools
import random
from pathlib import Path

import pytest
from dumps import write_jsonl

import planted
from scaletrain.data.leakage import Leakage, load_leakage
from scaletrain.data.ngrams import hash_units, units
from scaletrain.errors import ConfigError, DataError, NotFoundError

QUESTION = "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May."
CHINESE = "小明有二十四个苹果，他把其中的三分之一分给了他的同学，又买了七个，请问小明现在一共有几个苹果？"


def found(leakage: Leakage | None, said: str) -> str | None:
    assert leakage is not None
    return leakage.find(hash_units(units(said)))


def test_thirteen_words_in_a_row_are_a_quotation(tmp_path: Path) -> None:
    """Whatever is around them, and whatever their case and punctuation; twelve are none."""
    path = write_jsonl(tmp_path / "gsm.jsonl", [{"id": 7, "question": QUESTION, "choices": ["1", "2"]}])
    leakage = load_leakage([str(path)])
    words = QUESTION.split()
    assert found(leakage, f"Tell me: {' '.join(words[3:16]).upper()}?! That is all.") == str(path)
    assert found(leakage, f"Tell me: {' '.join(words[3:15])} bananas, that is all that I wanted to say today.") is None


@pytest.mark.parametrize("chinese", [False, True])
def test_planted_quotations_are_all_found_and_nothing_else(tmp_path: Path, chinese: bool) -> None:
    """Thirty words of an item in 300 of 1,000 conversations: 300 found, each by its file; of the other 700 none."""
    rng = random.Random(3)
    texts = (planted.text(rng, chinese=chinese).replace("\n", " ") for _ in itertools.count())
    items = list(itertools.islice((text for text in texts if len(units(text)) > 40), 300))
    paths = [tmp_path / "first.txt", tmp_path / "second.txt"]
    for path, part in zip(paths, (items[:150], items[150:]), strict=True):
        path.write_text("\n".join(part), "utf-8")
    leakage = load_leakage([str(path) for path in paths])
    said = [planted.text(rng, chinese=chinese) for _ in range(1000)]
    for number, item in enumerate(items):
        quotation = ("" if chinese else ", ").join(units(item)[5:35])
        said[number] += f"\nI say {quotation.upper()}!\n{planted.text(rng, chinese=chinese)}"
    sources = [found(leakage, text) for text in said]
    assert sources == [str(paths[0])] * 150 + [str(paths[1])] * 150 + [None] * 700


def test_short_items_count_where_they_are_there_as_a_whole(tmp_path: Path) -> None:
    """Of eight words or more; shorter ones are counted as too short, for they are said by chance."""
    path = tmp_path / "items.txt"
    path.write_text("What is the capital city of the country Chad?\n\nWho are you?\n")
    leakage = load_leakage([str(path)])
    assert leakage is not None
    assert (leakage.files[0].items, leakage.files[0].too_short) == (2, 1)
    assert found(leakage, "Well, what is the capital city of the country Chad, then?") == str(path)
    assert found(leakage, "What is the capital city of the country Mali? Who are you?") is None


def test_without_spaces_characters_are_counted(tmp_path: Path) -> None:
    """26 characters in a row are a quotation, 25 are none."""
    path = write_jsonl(tmp_path / "zh.jsonl", [{"q": CHINESE}])
    leakage = load_leakage([str(path)])
    characters = units(CHINESE)
    assert found(leakage, "请问：" + "".join(characters[2:28]) + "谢谢") == str(path)
    assert found(leakage, "请问：" + "".join(characters[2:27]) + "谢谢") is None


def test_files_of_several_kinds_are_told_apart(tmp_path: Path) -> None:
    """JSON lines, an array, plain text, compressed; the first file that is quoted is named."""
    rows = [[" ".join(f"w{file}x{n}" for n in range(20))] for file in range(4)]
    paths = [tmp_path / "a.jsonl", tmp_path / "b.json", tmp_path / "c.txt.gz", tmp_path / "d.jsonl.gz"]
    write_jsonl(paths[0], [{"nested": {"deep": rows[0]}}])
    paths[1].write_text(f'[{{"text": "{rows[1][0]}"}}]')
    paths[2].write_bytes(gzip.compress(rows[2][0].encode()))
    paths[3].write_bytes(gzip.compress(f'{{"text": "{rows[3][0]}"}}'.encode()))
    leakage = load_leakage([str(path) for path in paths])
    for path, row in zip(paths, rows, strict=True):
        assert found(leakage, row[0]) == str(path)
    assert found(leakage, " ".join(row[0] for row in reversed(rows))) == str(paths[0])


def test_no_files_are_nothing_to_look_for() -> None:
    """The default."""
    assert load_leakage([]) is None


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.jsonl", b'{"q": "too short"}\n', "of its 1 items none has the 8 words"),
        ("a.jsonl", b"", "of its 0 items none"),
        ("a.jsonl", b'{"q": "x"}\noops\n', r"a\.jsonl:2: not JSON"),
        ("a.json", b'{"q": "x"}', "expected an array of items"),
        ("a.txt", b"abc \xff\xfe", "not UTF-8 at byte 4; convert"),
        ("a.txt.gz", b"no gzip", "cannot be unpacked"),
    ],
)
def test_files_that_cannot_be_used_are_named(tmp_path: Path, name: str, content: bytes, problem: str) -> None:
    """Nothing is passed over in silence."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises((ConfigError, DataError), match=problem):
        load_leakage([str(tmp_path / name)])
    with pytest.raises(NotFoundError):
        load_leakage([str(tmp_path / "nowhere.txt")])
