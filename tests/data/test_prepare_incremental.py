"""A preparation makes only what no earlier one kept, and what comes out is what comes out of nothing."""

import logging
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dumps import exchange, write_jsonl

from scaletrain import layout, storage
from scaletrain.config import Config
from scaletrain.data.check import check_dataset
from scaletrain.data.prepare import prepare
from scaletrain.errors import DataError
from scaletrain.model import build

Files = dict[str, bytes]
TALK = [exchange(f"How are you, number {i}?", "Fine! " * (i % 7 + 1), "Bye", f"See you, {i}") for i in range(30)]
NO_CHANGES: dict[str, Any] = {
    "seq_len": 64,
    "validation": 0.3,
    "hold_out": "conversation",
    "temperature": 2.0,
    "max_epochs": 2.0,
    "max_bad_rows": 7,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model whose tokenizer does not depend on the corpora."""
    folder = tmp_path_factory.mktemp("model")
    size = {"vocab_size": 300, "hidden_size": 16, "num_heads": 2}
    data = {"corpora": [{"format": "text", "source": "x"}]}
    config = {"name": "m", "model": {"init": "random", "size": size}, "data": data, "train": {"steps": 1}}
    section = Config.model_validate(config).model
    return build.materialise(section, root=str(folder), seed=0, corpus_texts=lambda: ["How are you? Fine, and you?"])


@pytest.fixture
def configure(tmp_path: Path, model: str) -> Callable[..., Config]:
    """Make a configuration of these corpora, in a bucket of this test's."""

    def make(*corpora: dict[str, Any], root: str = "bucket", **data: Any) -> Config:
        return Config.model_validate(
            {
                "name": "test",
                "storage": {"root": str(tmp_path / root)},
                "model": {"source": model},
                "data": {"corpora": corpora, "seq_len": 128, "validation": 0.1, **data},
                "train": {"steps": 1},
            }
        )

    return make


def corpus(folder: Path, name: str, *files: list[object]) -> dict[str, Any]:
    """A corpus of JSON lines; each file is read for itself."""
    for number, rows in enumerate(files):
        write_jsonl(folder / name / f"{number}.jsonl", rows)
    return {"format": "messages", "name": name, "source": str(folder / name)}


def files_of(config: Config) -> Files:
    """The files of the dataset of a configuration, prepared here."""
    url = prepare(config, use_ray=False).dataset_url
    return {each.url.removeprefix(url): storage.read_bytes(each.url) for each in storage.list_objects(url)}


def kept_at(config: Config) -> Files:
    """What is kept of documents."""
    objects = storage.list_objects(layout.documents_url(config.storage.root))
    return {each.url: storage.read_bytes(each.url) for each in objects}


def reused(log: pytest.LogCaptureFixture) -> tuple[int, int, int]:
    """How many parts the user was told were reused since the last question, of how many, and how many conversations."""
    found = re.findall(r"reused ([\d,]+) of ([\d,]+) parts of the corpora \(([\d,]+) conversations\)", log.text)
    log.clear()
    return tuple(int(each.replace(",", "")) for each in found[-1]) if found else (0, 0, 0)  # type: ignore[return-value]


def test_an_added_corpus_leaves_the_others_as_they_are(
    tmp_path: Path, configure: Callable[..., Config], caplog: pytest.LogCaptureFixture
) -> None:
    """Put between two others it is all that is made, and the dataset is that of a preparation from nothing."""
    caplog.set_level(logging.INFO)
    first, last = corpus(tmp_path, "first", TALK[:10], ["oops", *TALK[5:15]]), corpus(tmp_path, "last", TALK[15:])
    files_of(configure(first, last))
    before = kept_at(configure(first))
    assert reused(caplog) == (0, 0, 0)
    more = corpus(tmp_path, "more", [exchange(f"More of {i}?", "No") for i in range(9)])
    added = configure(first, more, last)
    files = files_of(added)
    assert reused(caplog) == (len(before), len(before) + 1, 36)
    assert files == files_of(configure(first, more, last, root="other", reuse=False))
    assert kept_at(configure(root="other", reuse=False, **added.data.model_dump(include={"corpora"}))) == {}
    assert before.items() < kept_at(added).items()


def test_what_is_done_with_documents_makes_none_anew(
    tmp_path: Path, configure: Callable[..., Config], caplog: pytest.LogCaptureFixture
) -> None:
    """Another row length, validation set or mix reads no corpus, and gives what it gives from nothing."""
    caplog.set_level(logging.INFO)
    corpora = corpus(tmp_path, "a", TALK[:20]), corpus(tmp_path, "b", TALK[20:])
    files_of(configure(*corpora))
    changed = {**corpora[0], "epochs": 2.0, "name": "c"}, corpora[1]
    files = files_of(configure(*changed, **NO_CHANGES))
    assert reused(caplog) == (2, 2, 30)
    assert files == files_of(configure(*changed, root="other", reuse=False, **NO_CHANGES))


def test_a_changed_file_is_read_again(
    tmp_path: Path, configure: Callable[..., Config], caplog: pytest.LogCaptureFixture
) -> None:
    """And with it those that share its part, but no other corpus."""
    caplog.set_level(logging.INFO)
    changed, other = corpus(tmp_path, "a", TALK[:20]), corpus(tmp_path, "b", TALK[20:])
    files_of(configure(changed, other))
    write_jsonl(tmp_path / "a" / "0.jsonl", TALK[:19])
    files = files_of(configure(changed, other))
    assert reused(caplog) == (1, 2, 10)
    assert files == files_of(configure(changed, other, root="other", reuse=False))


@pytest.mark.parametrize("damage", [b"ARROW1", None])
def test_what_is_damaged_or_gone_is_made_again(
    damage: bytes | None, tmp_path: Path, configure: Callable[..., Config], caplog: pytest.LogCaptureFixture
) -> None:
    """With the same bytes, in the dataset and in what is kept."""
    caplog.set_level(logging.INFO)
    corpora = [corpus(tmp_path, name, TALK[start : start + 10]) for start, name in ((0, "a"), (10, "b"), (20, "c"))]
    config = configure(*corpora)
    files, kept = files_of(config), kept_at(config)
    url = sorted(kept)[1]
    storage.remove(url) if damage is None else storage.write_bytes(url, damage)
    storage.remove(prepare(config, use_ray=False).dataset_url)
    assert files_of(config) == files
    assert ("is damaged" in caplog.text) == (damage is not None)
    assert reused(caplog) == (2, 3, 20)
    assert kept_at(config) == kept


def test_a_file_of_too_many_bad_rows_is_not_kept(
    tmp_path: Path, configure: Callable[..., Config], caplog: pytest.LogCaptureFixture
) -> None:
    """It was not read to its end; with the limit raised, it alone is read again."""
    caplog.set_level(logging.INFO)
    corpora = corpus(tmp_path, "bad", ["oops", "oops", *TALK[:10]]), corpus(tmp_path, "good", TALK[10:])
    with pytest.raises(DataError, match=r"data\.max_bad_rows=1 rows"):
        files_of(configure(*corpora, max_bad_rows=1))
    files = files_of(configure(*corpora, max_bad_rows=2))
    assert reused(caplog) == (1, 2, 20)
    assert files == files_of(configure(*corpora, max_bad_rows=2, root="other", reuse=False))
    with pytest.raises(DataError, match=r"data\.max_bad_rows=1 rows"):
        files_of(configure(*corpora, max_bad_rows=1, seq_len=64))


def test_reusing_is_no_setting_of_the_dataset(tmp_path: Path, configure: Callable[..., Config]) -> None:
    """Without it there is the same dataset, and nothing is kept."""
    talk = corpus(tmp_path, "a", TALK)
    config = configure(talk, reuse=False)
    url = prepare(config, use_ray=False).dataset_url
    assert kept_at(config) == {}
    assert prepare(configure(talk), use_ray=False).dataset_url == url
    assert check_dataset(url).problems == []


def test_what_a_killed_preparation_left_half_written_goes(tmp_path: Path, configure: Callable[..., Config]) -> None:
    """Where nobody has written to it for ten minutes; what is being written now is left alone."""
    config = configure(corpus(tmp_path, "a", TALK))
    dataset, documents = Path(prepare(config, use_ray=False).dataset_url), tmp_path / "bucket" / "documents"
    (dataset / "index.json").unlink()
    an_hour_ago = time.time() - 3600
    for folder in (dataset, documents):
        for name in (".old.partial", ".new.partial"):
            (folder / name).write_bytes(b"x")
        os.utime(folder / ".old.partial", (an_hour_ago, an_hour_ago))
    prepare(config, use_ray=False)
    left = {path for folder in (dataset, documents) for path in folder.glob(".*")}
    assert left == {dataset / ".new.partial", documents / ".new.partial"}
