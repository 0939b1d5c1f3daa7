from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest
from dumps import exchange, write_chitchat, write_jsonl
from pydantic import ValidationError
from random_dataset import write_dataset
from reddit_dump import comment, submission

from scaletrain import storage
from scaletrain.config import Config
from scaletrain.data.chat_template import encode
from scaletrain.data.check import check_dataset
from scaletrain.data.conversation import from_messages
from scaletrain.data.prepare import _commit, prepare
from scaletrain.data.shards import load_index
from scaletrain.errors import ClusterError, ConfigError, DataError, NotFoundError
from scaletrain.model.build import load_tokenizer

Configure = Callable[..., Config]
ANIMALS = ("apes", "bears", "cats", "dogs", "eagles", "foxes", "geese", "hares", "ibises", "jackals", "koalas", "lions")
FILES = {
    "index.json",
    "provenance-00000.parquet",
    "report.html",
    "shard-00000.parquet",
    "stats.json",
    "validation-00000.parquet",
}


@pytest.fixture
def configure(tmp_path: Path) -> Configure:
    """Make a configuration of a tiny random model and these corpora, in a bucket of this test's."""

    def make(
        *corpora: dict[str, Any], root: str | None = None, options: dict[str, Any] | None = None, **data: Any
    ) -> Config:
        return Config.model_validate(
            {
                "name": "test",
                "storage": {"root": root or str(tmp_path / "bucket"), "options": options or {}},
                "model": {"init": "random", "size": {"vocab_size": 300, "hidden_size": 16, "num_heads": 2}},
                "data": {"corpora": corpora, "seq_len": 128, **data},
                "train": {"steps": 1},
            }
        )

    return make


@pytest.fixture
def talk(tmp_path: Path) -> dict[str, Any]:
    """Sixty short conversations in the messages format, five of them twice."""
    rows = [exchange(f"How are you, number {i}?", "Fine! " * (i % 7 + 1), "Bye", f"See you, {i}") for i in range(55)]
    return {"format": "messages", "source": str(write_jsonl(tmp_path / "talk.jsonl", [*rows, *rows[:5]]))}


@pytest.fixture
def many_formats(tmp_path: Path) -> tuple[dict[str, Any], ...]:
    """Corpora of every format, with several files, long and short conversations, dropped ones and bad rows."""
    for part in range(3):
        rows: list[object] = [exchange(*(f"{part} {i} {n} café 你好 👋" for n in range(2 + i % 20))) for i in range(40)]
        write_jsonl(tmp_path / "messages" / f"part-{part}.jsonl", [*rows, "oops", exchange("alone")])
    line = "I have heard that one before, " * 12
    dialogues = {}
    for i in range(30):
        rows_of_bob = [("bob", f"Hello {i}"), ("bob", line[: i * 9])]
        dialogues[f"id-{i}"] = [rows_of_bob, [("amy", f"Hi {i}")], [("bob", line)]] * (1 + i % 5)
    write_chitchat(tmp_path / "dataset.json", {**dialogues, "monologue": [[("bob", "Anyone?")]]})
    (tmp_path / "yaml").mkdir()
    for name in ("food", "humor"):
        lines = "".join(f"- - 你喜欢{name}吗? {i}\n  - はい {i}\n" for i in range(20))
        (tmp_path / "yaml" / f"{name}.yml").write_text(f"categories:\n- {name}\nconversations:\n{lines}", "utf-8")
    posts = [submission(f"a{i}", f"Question {i}?") for i in range(9)]
    replies = [comment(f"b{i}", f"a{i % 8}", f"t3_a{i % 8}", f"Answer {i}", score=i) for i in range(30)]
    write_jsonl(tmp_path / "reddit" / "RS_2020-01.jsonl", [*posts, "oops"])
    write_jsonl(tmp_path / "reddit" / "RC_2020-01.jsonl", [*replies, comment("c", "zz", "t3_zz", "whose?")])
    return (
        {"format": "messages", "source": str(tmp_path / "messages")},
        {"format": "chitchat", "source": str(tmp_path / "dataset.json"), "limit": 25},
        {"format": "chatterbot", "source": f"{tmp_path}/yaml/*.yml", "name": "yaml"},
        {"format": "reddit", "source": str(tmp_path / "reddit"), "min_score": 0, "licence": "theirs"},
    )


def files_of(dataset_url: str) -> dict[str, bytes]:
    return {each.url.rpartition("/")[2]: storage.read_bytes(each.url) for each in storage.list_objects(dataset_url)}


def statistics_of(dataset_url: str) -> dict[str, Any]:
    return orjson.loads(storage.read_bytes(storage.join(dataset_url, "stats.json")))  # type: ignore[no-any-return]


def documents_of(dataset_url: str, split: str = "train") -> list[tuple[list[int], list[int]]]:
    """Ids and labels of every document of a split, in order."""
    found = []
    for shard in load_index(dataset_url).splits[split].shards:
        for row in pq.read_table(storage.join(dataset_url, shard.name)).to_pylist():
            stops = np.cumsum(row["document_lengths"]).tolist()
            for start, stop in zip([0, *stops], stops, strict=False):
                found.append((row["input_ids"][start:stop], row["labels"][start:stop]))
    return found


def test_ray_and_this_process_give_the_same_bytes(
    configure: Configure, many_formats: tuple[dict[str, Any], ...], tmp_path: Path, local_ray: None
) -> None:
    """Shards, statistics and index do not depend on tasks, their number, or the order in which they end."""
    with_ray = prepare(configure(*many_formats, root=str(tmp_path / "a"), validation=0.1)).dataset_url
    without = prepare(configure(*many_formats, root=str(tmp_path / "b"), validation=0.1), use_ray=False).dataset_url
    assert files_of(with_ray) == files_of(without)
    assert set(files_of(without)) == FILES
    assert check_dataset(without).problems == []


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


def test_each_conversation_is_there_once_and_no_benchmark_is(
    configure: Configure, tmp_path: Path, local_ray: None
) -> None:
    """Duplicates across corpora, near-duplicates and quotations are left out and counted, the same with Ray."""
    say = [f"I would like to know how many {n} there are in this town, if you can tell me." for n in ANIMALS]
    answer = "Let me think about it. Some people say a hundred, others say two hundred, I say nobody knows."
    first = write_jsonl(tmp_path / "first.jsonl", [exchange(text, answer) for text in say])
    rows = [exchange(say[0], answer), exchange(say[1], answer.upper() + " Really!"), exchange("New " * 9, "Yes")]
    second = write_jsonl(tmp_path / "second.jsonl", rows)
    benchmark = write_jsonl(tmp_path / "bench.jsonl", [{"question": say[2], "answer": "7"}, {"question": "Who?"}])
    corpora = [{"format": "messages", "name": path.stem, "source": str(path)} for path in (first, second)]
    settings = {"leakage": [str(benchmark)], "validation": 0.2, "similarity": 0.9, "seq_len": 512}
    made = [
        prepare(configure(*corpora, root=str(tmp_path / str(use_ray)), **settings), use_ray=use_ray).dataset_url
        for use_ray in (False, True)
    ]
    assert files_of(made[0]) == files_of(made[1])
    statistics = statistics_of(made[0])
    of_first, of_second = statistics["corpora"]
    assert of_first["dropped"] == {"leaked": 1, "near_duplicate": 1}
    assert of_first["drop_examples"]["near_duplicate"] == f"{first}:2: as {second}:2"
    assert of_second["dropped"] == {"duplicate": 1}
    assert of_second["drop_examples"]["duplicate"] == f"{second}:1: as {first}:1"
    assert statistics["leakage"] == [{"url": str(benchmark), "items": 2, "too_short": 1, "conversations": 1}]
    documents = [ids for split in ("train", "validation") for ids, _ in documents_of(made[0], split)]
    assert len(documents) == of_first["kept"] + of_second["kept"] == len(ANIMALS) - 2 + 2
    assert len({tuple(ids) for ids in documents}) == len(documents)


def test_a_mix_is_counted_and_the_same_with_ray(
    configure: Configure, many_formats: tuple[dict[str, Any], ...], tmp_path: Path, local_ray: None
) -> None:
    """Kept + repeated = what the splits hold; what the mix leaves out is dropped; validation is not mixed."""
    messages, chitchat, *others = many_formats
    mixed = ({**messages, "epochs": 0.5}, {**chitchat, "epochs": 2.5}, *others)
    made = [
        prepare(configure(*mixed, root=str(tmp_path / str(use_ray)), validation=0.1), use_ray=use_ray).dataset_url
        for use_ray in (False, True)
    ]
    natural = statistics_of(
        prepare(configure(*many_formats, root=str(tmp_path / "natural"), validation=0.1), use_ray=False).dataset_url
    )
    assert files_of(made[0]) == files_of(made[1])
    statistics = statistics_of(made[0])
    corpora, splits = statistics["corpora"], statistics["splits"]
    assert 30 < corpora[0]["dropped"]["not_sampled"] < 80
    assert corpora[1]["repeated"] > corpora[1]["kept"] > 0 == corpora[2]["repeated"]
    assert all(each["read"] == each["kept"] + sum(each["dropped"].values()) for each in corpora)
    copies = sum(each["kept"] + each["repeated"] for each in corpora)
    assert sum(each["conversations"] for each in splits.values()) == copies
    assert splits["validation"] == natural["splits"]["validation"]
    assert check_dataset(made[0]).problems == []


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


def test_too_many_bad_rows_stop_with_file_and_line(configure: Configure, tmp_path: Path, local_ray: None) -> None:
    """Up to data.max_bad_rows are skipped; one more is an error, the same with Ray and without."""
    path = write_jsonl(tmp_path / "a.jsonl", [exchange("a", "b"), "oops", exchange("c", "d"), '{"x": 1}'])
    corpus = {"format": "messages", "source": str(path)}
    url = prepare(configure(corpus, max_bad_rows=2), use_ray=False).dataset_url
    assert statistics_of(url)["corpora"][0]["bad_rows"] == 2
    model = {"init": "pretrained", "source": str(next((tmp_path / "bucket" / "models").iterdir())), "size": None}
    strict = Config.model_validate({**configure(corpus, max_bad_rows=1, seq_len=64).model_dump(), "model": model})
    for use_ray in (False, True):
        with pytest.raises(DataError, match=r"more than data\.max_bad_rows=1 rows.*\n.*a\.jsonl:2: not JSON.*\n.*:4: "):
            prepare(strict, use_ray=use_ray)


def test_an_error_in_a_task_comes_back_as_it_is(
    configure: Configure, talk: dict[str, Any], tmp_path: Path, local_ray: None
) -> None:
    """With Ray too, the user gets the DataError or ConfigError, not a page of Ray's tracebacks."""
    (tmp_path / "broken.json").write_text("{")
    broken = {"format": "chitchat", "source": str(tmp_path / "broken.json")}
    model = {"init": "pretrained", "source": prepare(configure(talk), use_ray=False).model_url, "size": None}
    config = Config.model_validate({**configure(talk, broken).model_dump(), "model": model})
    with pytest.raises(DataError, match=r"^/.*broken\.json:1: not JSON"):
        prepare(config)


@pytest.mark.parametrize(
    ("rows", "settings", "problem"),
    [
        ([], {}, "no text to train a tokenizer on"),
        ([exchange("Hi", "Ho")], {"min_chars": 1000}, "no text"),
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


@pytest.mark.parametrize("use_ray", [False, True])
@pytest.mark.parametrize(
    ("rows", "settings", "problem"),
    [
        ([], {}, r"messages: no conversation in 1 file\(s\); check the source"),
        ([""], {}, "no conversation"),
        ([exchange("Hi", "Ho")], {"min_chars": 50}, r"none of its 1 conversations.*\n  1 too_short, as .*a\.jsonl:1"),
    ],
)
def test_an_empty_corpus_beside_a_full_one_is_an_error(
    configure: Configure,
    talk: dict[str, Any],
    tmp_path: Path,
    local_ray: None,
    rows: list[object],
    settings: dict[str, Any],
    problem: str,
    use_ray: bool,
) -> None:
    """A corpus that gives nothing is a mistake, even where another gives enough."""
    empty = {"format": "messages", "source": str(write_jsonl(tmp_path / "a.jsonl", rows))}
    config = configure({**talk, "name": "talk"}, empty, **settings)
    with pytest.raises(DataError, match=problem):
        prepare(config, use_ray=use_ray)


def test_wrong_names_are_refused_before_any_work(configure: Configure, talk: dict[str, Any], tmp_path: Path) -> None:
    """A misspelt step or format, and a source that is not there, leave no model behind."""
    with pytest.raises(ValidationError, match="did you mean merge_turns"):
        configure(talk, cleaning=["merge_turn"])
    with pytest.raises(ConfigError, match="did you mean messages"):
        prepare(configure({**talk, "format": "message"}), use_ray=False)
    with pytest.raises((DataError, NotFoundError), match="nowhere"):
        prepare(configure({**talk, "source": str(tmp_path / "nowhere.jsonl")}), use_ray=False)
    assert not (tmp_path / "bucket").exists()


def test_tasks_that_find_no_machine_for_long_end_the_preparation(
    configure: Configure, talk: dict[str, Any], local_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Something else has taken every CPU, as where machines were lost in the middle; nobody waits for ever."""
    import ray
    from ray.util import placement_group, remove_placement_group

    monkeypatch.setattr("scaletrain.data.tokenise._STALLED_AFTER_S", 2.0)
    everything = placement_group([{"CPU": ray.cluster_resources()["CPU"]}])
    try:
        assert everything.wait(30)
        with pytest.raises(ClusterError, match="made no progress"):
            prepare(configure(talk))
    finally:
        remove_placement_group(everything)


def test_a_bucket_is_read_and_written_by_tasks(
    configure: Configure, talk: dict[str, Any], s3_bucket: str, s3_server: str, local_ray: None
) -> None:
    """Corpora and dataset on S3: the storage options reach Ray's workers."""
    options = {"endpoint_url": s3_server}
    storage.configure(s3_bucket, options)
    try:
        storage.upload_file(Path(talk["source"]), f"{s3_bucket}/raw/talk.jsonl")
        config = configure({**talk, "source": f"{s3_bucket}/raw/*.jsonl"}, root=f"{s3_bucket}/root", options=options)
        url = prepare(config).dataset_url
        assert url.startswith(f"{s3_bucket}/root/data/")
        assert set(files_of(url)) == FILES
    finally:
        storage.configure(s3_bucket, {})


def test_committing_again_never_takes_the_index_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two preparations at once the second finds what the first has committed: only what is no part of it goes."""
    url = tmp_path / "dataset"
    index = write_dataset(url, rows=3)
    (url / "of-an-interrupted-one.parquet").write_bytes(b"x")
    removed: list[str] = []
    monkeypatch.setattr(storage, "remove", removed.append)
    _commit(str(url), index)
    assert [each.rpartition("/")[2] for each in removed] == ["of-an-interrupted-one.parquet"]
