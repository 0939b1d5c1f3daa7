"""diff: what is not the same in two datasets, and which conversations came and went."""

from pathlib import Path
from typing import Any

import pytest
from dumps import exchange, write_jsonl
from rich.console import Console

from scaletrain.config import Config
from scaletrain.data.diff import NOT_READ, SAYS_OTHERWISE, Difference, diff_datasets, difference_display
from scaletrain.data.prepare import prepare
from varied import prepare_varied, varied_config


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the datasets of these tests lie."""
    return tmp_path_factory.mktemp("varied")


@pytest.fixture(scope="module")
def dataset(folder: Path) -> str:
    """The URL of the varied dataset."""
    return prepare_varied(folder).dataset_url


def changed(found: Difference, name: str) -> tuple[object, object]:
    return next((change.before, change.after) for change in (*found.settings, *found.counts) if change.name == name)


def test_a_dataset_does_not_differ_from_itself(dataset: str) -> None:
    """Nothing came, nothing went."""
    found = diff_datasets(dataset, dataset)
    assert (found.settings, found.counts, found.changed_split) == ([], [], 0)
    assert (found.came.conversations, found.went.conversations) == (0, 0)
    assert found.in_both == 55


def test_a_stricter_step_shows_what_it_took_and_why(dataset: str, folder: Path) -> None:
    """The setting, the counts it changed, and the reason on the other side for each that went."""
    stricter = prepare_varied(folder, min_chars=60).dataset_url
    found = diff_datasets(dataset, stricter)
    assert changed(found, "min_chars") == (15, 60)
    before, after = (int(str(each)) for each in changed(found, "dump: dropped: too_short"))
    assert before == 3 < after
    assert found.came.conversations == 0
    assert found.went.reasons == {"too_short": found.went.conversations}
    assert found.in_both + found.went.conversations == 55
    assert 0 < len(found.went.examples) <= 5 and "dump.jsonl:" in found.went.examples[0]
    back = diff_datasets(stricter, dataset)
    assert back.came.reasons == found.went.reasons


def test_another_recipe_shows(dataset: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same settings, and yet another dataset: scaletrain itself makes other rows of them."""
    monkeypatch.setattr("scaletrain.data.identity._DOCUMENTS_VERSION", 98)
    monkeypatch.setattr("scaletrain.data.identity._RECIPE_VERSION", 99)
    found = diff_datasets(dataset, prepare_varied(folder).dataset_url)
    assert [(change.name, change.after) for change in found.settings] == [("recipe_version", "98.99")]


def test_a_new_corpus_and_a_changed_text(dataset: str, folder: Path) -> None:
    """What is new was not read before; a conversation whose text changed came and went under its source."""
    more = write_jsonl(folder / "more.jsonl", [exchange(f"New {number}, really?", "Yes, new.") for number in range(7)])
    settings = varied_config(folder, system_prompt="Be kind.").model_dump()
    settings["data"]["corpora"] += ({"format": "messages", "name": "more", "source": str(more)},)
    settings["model"] = {"init": "pretrained", "source": str(next((folder / "bucket" / "models").iterdir()))}
    grown = prepare(Config.model_validate(settings), use_ray=False).dataset_url
    found = diff_datasets(dataset, grown)
    assert found.in_both == 0
    assert found.came.reasons == {SAYS_OTHERWISE: 55, NOT_READ: 7}
    assert found.went.reasons == {SAYS_OTHERWISE: 55}
    assert changed(found, "more: kept") == (None, 7)
    assert changed(found, "corpora.more.format") == (None, "messages")


def test_a_difference_is_shown(dataset: str, folder: Path) -> None:
    """As tables and sentences, and as plain data."""
    found = diff_datasets(dataset, prepare_varied(folder, validation=0.5).dataset_url)
    assert found.changed_split > 0
    terminal = Console(width=160)
    with terminal.capture() as shown:
        terminal.print(difference_display(found))
    for part in ("validation", "0.2", "0.5", f"{found.changed_split} of them in another split", "0 went with B"):
        assert part in shown.get()
    record: dict[str, Any] = found.record()
    assert record["in_both"] == 55 and record["came"]["conversations"] == 0
