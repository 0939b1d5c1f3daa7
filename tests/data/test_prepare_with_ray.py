"""prepare with Ray: the same bytes, counts and errors as in one process, and what only a cluster can do wrong."""

from pathlib import Path
from typing import Any

import pytest
from dumps import exchange, write_jsonl
from prepared import FILES, Configure, documents_of, files_of, statistics_of

from scaletrain import storage
from scaletrain.config import Config
from scaletrain.data.check import check_dataset
from scaletrain.data.prepare import prepare
from scaletrain.errors import ClusterError, DataError

ANIMALS = ("apes", "bears", "cats", "dogs", "eagles", "foxes", "geese", "hares", "ibises", "jackals", "koalas", "lions")


def test_ray_and_this_process_give_the_same_bytes(
    configure: Configure, many_formats: tuple[dict[str, Any], ...], tmp_path: Path, local_ray: None
) -> None:
    """Shards, statistics and index do not depend on tasks, their number, or the order in which they end."""
    with_ray = prepare(configure(*many_formats, root=str(tmp_path / "a"), validation=0.1)).dataset_url
    without = prepare(configure(*many_formats, root=str(tmp_path / "b"), validation=0.1), use_ray=False).dataset_url
    assert files_of(with_ray) == files_of(without)
    assert set(files_of(without)) == FILES
    assert check_dataset(without).problems == []


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
    # A model that is there already: for the tokenizer of a new one the corpora would be read before.
    model = {"init": "pretrained", "source": prepare(configure(talk), use_ray=False).model_url, "size": None}
    both = configure({**talk, "name": "talk"}, empty, **settings)
    with pytest.raises(DataError, match=problem):
        prepare(Config.model_validate({**both.model_dump(), "model": model}), use_ray=use_ray)


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
