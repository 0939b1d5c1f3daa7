"""The format preferences: what judge exports and what TRL's datasets have, and what is left out with its reason."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dumps import write_jsonl
from pair_dumps import pair

from scaletrain.config import Config
from scaletrain.config_data import Corpus
from scaletrain.config_file import parse_config
from scaletrain.data.conversation import Conversation
from scaletrain.data.formats import Item, hold_pairs, list_files, read_files
from scaletrain.errors import ConfigError
from scaletrain.judge.preferences import Preference, lines


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def assistant(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}


def read(path: Path) -> list[Item]:
    corpus = Corpus(format="preferences", source=str(path))
    return list(read_files(list_files(corpus), corpus=corpus))


def said(item: Item) -> tuple[list[str], str | None]:
    assert isinstance(item, Conversation), item
    return [turn.content for turn in item.turns], item.rejected


def test_what_judge_exports_is_read(tmp_path: Path) -> None:
    """The prompt with all its turns, and both answers."""
    prompt = ({"role": "system", "content": "Be kind."}, user("Hi"))
    exported = Preference(prompt, "Hello!", "What?", {}, {}, "judge")
    (tmp_path / "preferences.jsonl").write_bytes(lines([exported.record()]))
    assert [said(each) for each in read(tmp_path)] == [(["Be kind.", "Hi", "Hello!"], "What?")]


def test_the_forms_of_trl_are_the_same_pair(tmp_path: Path) -> None:
    """Prompt apart or within, as messages or text, and with a prompt that is named a second time; JSON or Parquet."""
    conversations = {"chosen": [user("Hi"), assistant("Hello!")], "rejected": [user("Hi"), assistant("What?")]}
    rows: list[dict[str, Any]] = [
        pair("Hi", "Hello!", "What?"),
        conversations,
        {"prompt": "Hi", **conversations},
        {"prompt": "Hi", "chosen": "Hello!", "rejected": "What?"},
    ]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    pq.write_table(pa.Table.from_pylist([rows[2] | {"score": 1.0}]), tmp_path / "rows.parquet")
    assert [said(each) for each in read(tmp_path)] == [(["Hi", "Hello!"], "What?")] * 5


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"chosen": "a", "rejected": "b"}, "bad_row: no prompt, and chosen does not begin with what the user says"),
        ({"prompt": "Hi", "chosen": "a"}, "bad_row: no rejected, only prompt, chosen"),
        (pair("Hi", "same", "same"), "answers_are_equal: "),
        ({"chosen": [user("a"), assistant("b")], "rejected": [user("c"), assistant("d")]}, "more_than_one_answer_dif"),
        ({"chosen": [user("a")], "rejected": [user("a")]}, "pair_without_answers: "),
        (pair("Hi") | {"tools": [{"type": "function"}]}, "tools_not_supported: "),
    ],
)
def test_what_is_no_pair_is_left_out_with_its_reason(tmp_path: Path, row: dict[str, Any], reason: str) -> None:
    """Rows that are malformed, and sound ones of which nothing can be learned here."""
    (found,) = read(write_jsonl(tmp_path / "rows.jsonl", [row]))
    assert not isinstance(found, Conversation)
    assert f"{found.reason}: {found.detail}".startswith(reason)


RUN = """
name: run
model: {init: random, size: {}}
data: {corpora: [CORPORA]}
train: {steps: 1, TRAIN}
"""


def configured(corpora: str, train: str) -> Config:
    return parse_config(RUN.replace("CORPORA", corpora).replace("TRAIN", train), source="run.yaml")


def test_pairs_and_their_objective_go_together() -> None:
    """Either without the other is refused, corpus by corpus, and so is a setting that would be ignored."""
    pairs, talk = "{format: preferences, source: a}", "{format: messages, source: b}"
    assert hold_pairs(configured(pairs, "objective: dpo, dpo: {beta: 0.2}").data.corpora)
    with pytest.raises(ConfigError, match=r"data.corpora.1.format: got messages, and train.objective: dpo learns from"):
        configured(f"{pairs}, {talk}", "objective: dpo")
    with pytest.raises(ConfigError) as caught:
        configured(f"{talk}, {pairs}", "learning_rate: -1")
    assert len(caught.value.problems) == 2
    with pytest.raises(ConfigError, match=r"data.corpora.0.format: got preferences, which has pairs of answers; set"):
        configured(pairs, "")
    with pytest.raises(ConfigError, match=r"train.dpo: goes with objective: dpo"):
        configured(talk, "dpo: {beta: 0.2}")
    with pytest.raises(ConfigError, match="are not learned from in one run"):
        hold_pairs([Corpus(format="messages", source="a"), Corpus(format="preferences", source="b")])
