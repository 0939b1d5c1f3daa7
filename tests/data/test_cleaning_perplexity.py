"""check_perplexity: what a small language model makes of a conversation, and what is dropped for it."""

from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from conversations import section, step, talk

from scaletrain import storage
from scaletrain.data.cleaning import clean, determined_by
from scaletrain.data.conversation import Conversation, Drop, Turn
from scaletrain.data.prepare import prepare
from scaletrain.data.provenance import explain
from scaletrain.errors import ConfigError
from tiny import tiny_model, tiny_model_folder, tiny_tokenizer
from varied import varied_config

SAID = ("Hello! How are you today?", "I am fine, thank you. What do you like to do?")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A cache of models of these tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny random model in a folder."""
    return str(tiny_model_folder(tmp_path_factory.mktemp("judge") / "model"))


def score(conversation: Conversation, model: str, **settings: Any) -> float | None:
    """The perplexity that the step notes."""
    after = step("check_perplexity", model=model, **settings)(conversation)
    assert after.turns == conversation.turns
    return dict(after.annotations).get("perplexity")


def test_it_is_the_perplexity_of_what_is_said(model: str) -> None:
    """exp of the mean loss of a token, as transformers itself has it; the system turn is not read."""
    ids = torch.tensor([tiny_tokenizer()("\n".join(SAID), add_special_tokens=False)["input_ids"]])
    expected = tiny_model()(input_ids=ids, labels=ids).loss.exp().item()
    assert score(talk(*SAID), model) == pytest.approx(expected, abs=0.01)
    prompted = Conversation((Turn("system", "Be kind."), *talk(*SAID).turns))
    assert score(prompted, model) == score(talk(*SAID), model)
    assert score(talk("a"), model) is None
    assert score(talk("a\ud800", "b"), model) == score(talk("a", "b"), model)


def test_only_the_first_tokens_are_read(model: str) -> None:
    """What a conversation costs is bounded, and what is behind the bound does not count."""
    assert score(talk(*SAID, "!" * 100_000), model, max_tokens=16) == score(talk(*SAID), model, max_tokens=16)
    assert score(talk(*SAID), model, max_tokens=16) != score(talk(*SAID), model)


def test_a_score_depends_on_nothing_else(model: str) -> None:
    """The same bits whatever came before, on one thread and on two, which stay as they were."""
    check = step("check_perplexity", model=model)
    talks = [talk(f"Number {n}", "Yes, " * n + SAID[1]) for n in range(1, 5)]
    forwards = [check(each).annotations for each in talks]
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            assert [check(each).annotations for each in reversed(talks)] == forwards[::-1]
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)


def test_what_is_out_of_bounds_is_dropped_with_its_score(model: str) -> None:
    """Above the highest and below the lowest, each for its reason; on the bounds it stays."""
    found = score(talk(*SAID), model)
    assert found is not None and score(talk(*SAID), model, lowest=found, highest=found) == found
    for settings, reason in (({"highest": found - 0.01}, "unlikely"), ({"lowest": found + 0.01}, "too_likely")):
        with pytest.raises(Drop, match=f"perplexity {found:g}, at ") as drop:
            clean(talk(*SAID), [step("check_perplexity", model=model, **settings)])
        assert (drop.value.reason, drop.value.step) == (reason, "check_perplexity")
        assert drop.value.conversation is not None
        assert dict(drop.value.conversation.annotations) == {"perplexity": found}


def test_a_model_that_cannot_judge_is_refused_before_any_work(model: str, tmp_path: Path) -> None:
    """One that is not there, and one that cannot read as much."""
    with pytest.raises(ConfigError, match=r"check_perplexity: model: .*there is no such model folder"):
        step("check_perplexity", model=f"{tmp_path}/none")
    with pytest.raises(ConfigError, match=r"max_tokens=513 is more than the 512 positions .* use 512 or less"):
        step("check_perplexity", model=model, max_tokens=513)


def test_the_models_bytes_determine_the_dataset(tmp_path: Path) -> None:
    """Another model at the same place makes another dataset."""
    folders = [tiny_model_folder(tmp_path / f"{seed}" / "model", seed=seed) for seed in range(2)]
    hashes = [
        determined_by(section(cleaning=({"check_perplexity": {"model": str(each)}},)))["judges"]
        for each in (*folders, folders[0])
    ]
    assert hashes[0] == hashes[2] != hashes[1]


def test_scores_are_told(model: str, tmp_path: Path) -> None:
    """In stats.json as a mean by corpus and language, and in the life of a conversation."""
    cleaning = ["drop_empty_turns", {"check_perplexity": {"model": model, "max_tokens": 64}}]
    url = prepare(varied_config(tmp_path, cleaning=cleaning, min_chars=1), use_ray=False).dataset_url
    statistics = orjson.loads(storage.read_bytes(storage.join(url, "stats.json")))
    assert {each["name"] for each in statistics["annotations"]} == {"perplexity"}
    assert all(each["mean"] > 1 for each in statistics["annotations"])
    assert "  counted   perplexity " in "\n".join(explain(url, "long")[0].lines(url))
    assert "perplexity" in storage.read_text(storage.join(url, "report.html"))
