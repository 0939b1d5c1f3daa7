"""prepare: what a dataset holds, that it is prepared once, and what ends a preparation."""

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest
from dumps import exchange, write_jsonl
from prepared import Configure, documents_of, files_of, statistics_of
from pydantic import ValidationError
from random_dataset import write_dataset
from test_formats_movies import LINES, write_cornell

from scaletrain import storage
from scaletrain.config import Config
from scaletrain.config_data import Corpus
from scaletrain.data.chat_template import encode
from scaletrain.data.check import check_dataset
from scaletrain.data.conversation import from_messages
from scaletrain.data.formats import read_conversations
from scaletrain.data.prepare import _commit, prepare
from scaletrain.data.shards import load_index
from scaletrain.errors import ConfigError, DataError, NotFoundError
from scaletrain.model.build import load_tokenizer


def test_statistics_account_for_every_row(configure: Configure, many_formats: tuple[dict[str, Any], ...]) -> None:
    """Read = kept + dropped, tokens = in rows + dropped by packing, and bad rows are named with file and line."""
    statistics = statistics_of(prepare(configure(*many_formats, seq_len=64), use_ray=False).dataset_url)
    messages, chitchat, yaml, reddit = statistics["corpora"]
    assert (messages["files"], messages["read"], messages["kept"]) == (3, 3 * 41, 3 * 40)
    assert messages["dropped"] == {"too_few_turns": 3}
    assert messages["drop_examples"]["too_few_turns"].endswith("messages/part-0.jsonl:42")
    assert messages["bad_rows"] == 3
    assert "part-0.jsonl:41: not JSON" in messages["bad_row_examples"][0]
    assert (chitchat["name"], chitchat["read"], yaml["name"], yaml["read"]) == ("chitchat", 25, "yaml", 40)
    assert (reddit["files"], reddit["kept"], reddit["bad_rows"], reddit["licences"]) == (2, 8, 1, {"theirs": 8})
    assert reddit["dropped"] == {"no_reply": 1, "not_best_reply": 22, "parent_missing": 1}
    splits = statistics["splits"].values()
    in_rows = sum(split["tokens"] for split in splits)
    dropped = sum(sum(split["dropped_tokens"].values()) for split in splits)
    assert in_rows + dropped == sum(corpus["tokens"] for corpus in statistics["corpora"])
    assert "turn_longer_than_seq_len" in statistics["splits"]["train"]["dropped_pieces"]
    assert sum(split["conversations"] for split in splits) == sum(c["kept"] for c in statistics["corpora"])


def test_rows_hold_each_conversation_with_its_mask(configure: Configure, talk: dict[str, Any]) -> None:
    """What is in the shards is what encoding gives: every conversation whole, its answers as labels, nothing else."""
    prepared = prepare(configure(talk, validation=0, seq_len=512, duplicates="keep"), use_ray=False)
    tokenizer = load_tokenizer(prepared.model_url)
    expected = []
    for line in Path(talk["source"]).read_bytes().splitlines():
        encoded = encode(from_messages(orjson.loads(line)["messages"]), tokenizer)
        expected.append((encoded.input_ids.tolist(), np.where(encoded.supervised, encoded.input_ids, -100).tolist()))
    assert sorted(documents_of(prepared.dataset_url)) == sorted(expected)
    index = load_index(prepared.dataset_url)
    assert check_dataset(prepared.dataset_url).problems == []
    assert index.splits["train"].tokens == sum(len(ids) for ids, _ in expected)
    assert index.splits["validation"].rows == 0


def test_rows_are_shuffled(configure: Configure, tmp_path: Path) -> None:
    """Two corpora come mixed, and the rows that packing fills last are not all at the end."""
    sources = [write_jsonl(tmp_path / f"{n}.jsonl", [exchange(f"{n} {i}", "x" * i) for i in range(100)]) for n in "ab"]
    corpora = [{"format": "messages", "name": path.stem, "source": str(path)} for path in sources]
    url = prepare(configure(*corpora, validation=0), use_ray=False).dataset_url
    table = pq.read_table(storage.join(url, "shard-00000.parquet"))
    corpora_of_rows = np.array([row[0] for row in table["document_corpora"].to_pylist()])
    assert 0.2 < corpora_of_rows[: len(corpora_of_rows) // 2].mean() < 0.8
    tokens = np.array(table["tokens"])
    assert not (np.diff(tokens) <= 0).all()


def test_equal_conversations_are_in_one_split(configure: Configure, talk: dict[str, Any]) -> None:
    """Where duplicates are kept, none is both trained on and held out; about the share asked for is."""
    url = prepare(configure(talk, validation=0.3, seq_len=512, duplicates="keep"), use_ray=False).dataset_url
    train, validation = (documents_of(url, split) for split in ("train", "validation"))
    assert not {tuple(ids) for ids, _ in train} & {tuple(ids) for ids, _ in validation}
    assert len(train) + len(validation) == 60
    assert 8 <= len(validation) <= 30


def test_a_limit_counts_conversations_and_no_other_rows(configure: Configure, tmp_path: Path) -> None:
    """Rows that give none, here a line that is there twice, take no place; nor where the tokenizer is trained."""
    folder = write_cornell(tmp_path / "cornell", lines=LINES.replace("L1 +++", "L870 +++"))
    corpus = {"format": "cornell", "source": str(folder), "limit": 2}
    assert len(list(read_conversations(Corpus.model_validate(corpus), max_bad_rows=0))) == 2
    (counted,) = statistics_of(prepare(configure(corpus), use_ray=False).dataset_url)["corpora"]
    assert (counted["kept"], counted["dropped"]) == (2, {"duplicate_id": 1})


def test_a_split_survives_new_conversations(configure: Configure, talk: dict[str, Any], tmp_path: Path) -> None:
    """What was held out stays held out when the corpus grows."""
    before = prepare(configure(talk, validation=0.2, seq_len=512), use_ray=False).dataset_url
    more = write_jsonl(tmp_path / "more.jsonl", [exchange(f"New {i}", "Yes") for i in range(20)])
    model = {"init": "pretrained", "source": str(next((tmp_path / "bucket" / "models").iterdir())), "size": None}
    grown = configure(talk, {"format": "messages", "name": "more", "source": str(more)}, validation=0.2, seq_len=512)
    grown = Config.model_validate({**grown.model_dump(), "model": model})
    after = prepare(grown, use_ray=False).dataset_url
    held_out = {tuple(ids) for ids, _ in documents_of(before, "validation")}
    assert held_out <= {tuple(ids) for ids, _ in documents_of(after, "validation")}


@pytest.mark.parametrize(("share", "held_out"), [(0.0, 0), (0.01, 1), (0.5, 1)])
def test_both_splits_get_a_conversation_where_there_are_two(
    configure: Configure, tmp_path: Path, share: float, held_out: int
) -> None:
    """However small the corpus, there is something to train on, and something to evaluate on if that was asked for."""
    path = write_jsonl(tmp_path / "a.jsonl", [exchange("Hello", "Hi"), exchange("Bye", "See you")])
    url = prepare(configure({"format": "messages", "source": str(path)}, validation=share), use_ray=False).dataset_url
    assert len(documents_of(url, "validation")) == held_out
    assert len(documents_of(url, "train")) == 2 - held_out


def test_a_dataset_is_prepared_once(configure: Configure, talk: dict[str, Any], tmp_path: Path) -> None:
    """The same configuration finds it; anything that makes other rows makes another dataset."""
    url = prepare(configure(talk), use_ray=False).dataset_url
    written = (Path(url) / "shard-00000.parquet").stat().st_mtime_ns
    assert prepare(configure(talk, max_bad_rows=7), use_ray=False).dataset_url == url
    assert (Path(url) / "shard-00000.parquet").stat().st_mtime_ns == written
    template = tmp_path / "t.jinja"
    template.write_text("{% for m in messages %}{{m.role + ': ' + m.content + eos_token}}{% endfor %}{{'assistant: '}}")
    others = [
        configure(talk, seq_len=256),
        configure(talk, system_prompt="Be kind."),
        configure(talk, cleaning=["merge_turns"]),
        configure({**talk, "limit": 10}),
        configure({**talk, "name": "other"}),
    ]
    urls = {url, *(prepare(each, use_ray=False).dataset_url for each in others)}
    write_jsonl(Path(talk["source"]), [exchange("a", "b")] * 3)
    urls.add(prepare(configure(talk), use_ray=False).dataset_url)
    assert len(urls) == 7


def test_an_interrupted_preparation_leaves_nothing_behind(configure: Configure, talk: dict[str, Any]) -> None:
    """Without index.json there is no dataset: the next call overwrites what is there, and removes the rest."""
    url = prepare(configure(talk), use_ray=False).dataset_url
    complete = files_of(url)
    folder = Path(url)
    (folder / "index.json").unlink()
    (folder / "shard-00000.parquet").write_bytes(b"half a sh")
    (folder / "shard-00001.parquet").write_bytes(b"left over")
    assert prepare(configure(talk), use_ray=False).dataset_url == url
    assert files_of(url) == complete


@pytest.mark.parametrize(
    ("rows", "settings", "problem"),
    [
        ([], {}, "no conversation in 1 file"),
        ([exchange("Hi", "Ho")], {"min_chars": 1000}, "1 too_short, as .*a.jsonl:1"),
        (
            [exchange("Hi", " ".join(map(str, range(200))))],
            {"seq_len": 16},
            "data.seq_len=16 leaves nothing to train on.*raise",
        ),
    ],
)
def test_nothing_left_is_an_error_that_says_why(
    configure: Configure, tmp_path: Path, rows: list[object], settings: dict[str, Any], problem: str
) -> None:
    """An empty corpus, one that cleaning empties, and one that packing does."""
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    with pytest.raises(Exception, match=problem):
        prepare(configure({"format": "messages", "source": str(path)}, **settings), use_ray=False)


def test_wrong_names_are_refused_before_any_work(configure: Configure, talk: dict[str, Any], tmp_path: Path) -> None:
    """A misspelt step or format, and a source that is not there, leave no model behind."""
    with pytest.raises(ValidationError, match="did you mean merge_turns"):
        configure(talk, cleaning=["merge_turn"])
    wrong = ({**talk, "format": "message"}, {**talk, "columns": {"prompt": "q", "answer": "a"}})
    with pytest.raises(ConfigError) as caught:
        prepare(configure(*wrong, cleaning=["nowhere:step"]), use_ray=False)
    hint, setting, function = caught.value.problems
    assert "did you mean messages" in hint and "data.corpora.1.columns" in setting and "nowhere:step" in function
    with pytest.raises((DataError, NotFoundError), match="nowhere"):
        prepare(configure({**talk, "source": str(tmp_path / "nowhere.jsonl")}), use_ray=False)
    assert not (tmp_path / "bucket").exists()


def test_committing_again_never_takes_the_index_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two preparations at once the second finds what the first has committed: only what is no part of it goes."""
    url = tmp_path / "dataset"
    index = write_dataset(url, rows=3)
    (url / "of-an-interrupted-one.parquet").write_bytes(b"x")
    removed: list[str] = []
    monkeypatch.setattr(storage, "remove", removed.append)
    _commit(str(url), index)
    assert [each.rpartition("/")[2] for each in removed] == ["of-an-interrupted-one.parquet"]
