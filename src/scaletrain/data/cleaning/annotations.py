"""Steps that count words, parts of speech and entities, and that judge by the counts.

The annotations of a conversation are counts by name: `words`; `content_words` (nouns, names, verbs, adjectives and
adverbs); `parts_NOUN` and so on, by the tags of Universal Dependencies (de Marneffe et al. 2021, Computational
Linguistics 47:2); `entities`, and `entities_PERSON` and so on by the labels of the spaCy model. A label that is not
there was counted 0 times; a kind of annotation that is not there was not counted at all.

Who segments: the spaCy model of the conversation's language, where it is one of `models` and tags are asked for; else
rjieba where it is in Chinese; else the rules of ngrams.py, by which a word stands between spaces, and of scripts
without spaces two characters count as a word. A conversation of unknown language is in Chinese if most of its letters
are, and is given no tags otherwise.
"""

import functools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from scaletrain.config_annotations import counted_with
from scaletrain.data.cleaning.contents import spoken, without_code
from scaletrain.data.cleaning.language import is_chinese
from scaletrain.data.cleaning.spacy_models import ENTITIES, TAGGERS, load_spacy_model
from scaletrain.data.conversation import Conversation, Drop
from scaletrain.data.ngrams import count_unspaced, units
from scaletrain.errors import ConfigError, Problems

if TYPE_CHECKING:
    from spacy.language import Language

_SETTING = "data.cleaning: annotate"
_CONTENT = ("NOUN", "PROPN", "VERB", "ADJ", "ADV")
# What rjieba's tags (ICTCLAS's) are in Universal Dependencies, by a tag's first letters: two where they are here.
_CHINESE_TAGS = {
    **dict.fromkeys(("nr", "ns", "nt", "nz"), "PROPN"),
    **dict.fromkeys(("n", "t", "s", "f", "q", "j"), "NOUN"),
    **dict.fromkeys(("v", "i", "l"), "VERB"),  # idioms are predicates mostly
    **dict.fromkeys(("a", "b", "z"), "ADJ"),
    "d": "ADV",
    "m": "NUM",
    "r": "PRON",
    "p": "ADP",
    "c": "CCONJ",
    **dict.fromkeys(("u", "y"), "PART"),
    **dict.fromkeys(("e", "o"), "INTJ"),
    "en": "X",  # eng: words in Latin letters
}
_CHARACTERS_A_WORD = 2  # in scripts without spaces
_HAS_LETTER = re.compile(r"[^\W_]")
_PIECE_CHARS = 50_000  # spaCy takes some 1 kB of memory a character, and refuses a million


def annotate(
    conversation: Conversation, *, parts_of_speech: bool, entities: bool, models: tuple[str, ...]
) -> Conversation:
    """Count words, and parts of speech and entities where they are asked for; what is said stays as it is."""
    texts = [without_code(text).encode("utf-8", "ignore").decode() for text in spoken(conversation)]
    language = re.split("[-_]", conversation.language.lower())[0]
    pipelines = load_pipelines(models, parts_of_speech, entities) if parts_of_speech or entities else {}
    if pipeline := pipelines.get(language):
        counts = _count_with_spacy(texts, pipeline, parts_of_speech=parts_of_speech, entities=entities)
    elif language == "zh" or (not language and is_chinese("\n".join(texts))):
        counts = _count_chinese(texts, parts_of_speech=parts_of_speech)
    else:
        counts = _count_words(texts)
    return conversation.annotated({name: float(count) for name, count in counts.items()})


def check_annotations(
    conversation: Conversation,
    *,
    min: Mapping[str, float],
    max: Mapping[str, float],
    min_share: Mapping[str, float],
    max_share: Mapping[str, float],
) -> Conversation:
    """Drop what has less or more of something than it may, in numbers or as a share of its words.

    What was not counted, as entities in a language that no model is for, is not judged; nor is a share of no words.
    """
    known = dict(conversation.annotations)
    words = known.get("words", 0.0)
    for name in sorted({*min, *max, *min_share, *max_share}):
        value = _value(known, name)
        if value is None:
            continue
        _check(name, value, min.get(name), max.get(name))
        if words:
            _check(f"{name} of the words", value / words, min_share.get(name), max_share.get(name))
    return conversation


@functools.cache
def load_pipelines(models: tuple[str, ...], parts_of_speech: bool, entities: bool) -> dict[str, "Language"]:
    """Return spaCy's models by their languages; ConfigError with all that is wrong with them."""
    wanted = (*(TAGGERS if parts_of_speech else ()), *(ENTITIES if entities else ()))
    pipelines: dict[str, Language] = {}
    problems = Problems()
    for model in models:
        with problems.collecting():
            pipeline = load_spacy_model(
                model, wanted=wanted, setting=_SETTING, name_setting="models", extra="annotations"
            )
            if parts_of_speech and not {"tagger", "morphologizer"} & set(pipeline.pipe_names):
                problems.append(f"{_SETTING}: the model {model} tags no parts of speech; use one that does")
            if entities and "ner" not in pipeline.pipe_names:
                problems.append(f"{_SETTING}: the model {model} finds no entities; use one that does")
            language = str(pipeline.lang)
            if language in pipelines:
                problems.append(f"{_SETTING}: models has two for {language}; keep one")
            pipelines[language] = pipeline
    problems.raise_any()
    return pipelines


def check_chinese_segmenter() -> None:
    """Raise ConfigError where rjieba is not installed: counts must not depend on what a machine happens to have."""
    try:
        version("rjieba")
    except PackageNotFoundError as exc:
        raise ConfigError(
            f"{_SETTING}: rjieba, which segments Chinese, is not installed; `pip install scaletrain[annotations]`"
        ) from exc


def annotators(models: tuple[str, ...], parts_of_speech: bool, entities: bool) -> list[str]:
    """Return what the counts depend on, each with its version: rjieba, spaCy and its models where there are tags."""
    found = [f"rjieba {version('rjieba')}"]
    if parts_of_speech or entities:
        found.append(f"spacy {version('spacy')}")
        found += [
            f"{name} {pipeline.meta['version']}"
            for name, pipeline in zip(models, load_pipelines(models, parts_of_speech, entities).values(), strict=True)
        ]
    return found


def _count_with_spacy(
    texts: Iterable[str], pipeline: "Language", *, parts_of_speech: bool, entities: bool
) -> Counter[str]:
    counts = _nothing_counted(parts_of_speech, entities)
    # The turns of one conversation at a time, so that what comes out does not depend on its neighbours.
    for document in pipeline.pipe(piece for text in texts for piece in _pieces(text)):
        for token in document:
            if _HAS_LETTER.search(token.text):
                _count_word(counts, token.pos_ if parts_of_speech else "")
        if entities:
            counts["entities"] += len(document.ents)
            counts.update(f"entities_{entity.label_}" for entity in document.ents)
    return counts


def _count_chinese(texts: Iterable[str], *, parts_of_speech: bool) -> Counter[str]:
    import rjieba

    counts = _nothing_counted(parts_of_speech, entities=False)
    for text in texts:
        tagged = rjieba.tag(text) if parts_of_speech else [(word, "") for word in rjieba.cut(text)]
        for word, tag in tagged:
            if _HAS_LETTER.search(word):
                _count_word(counts, _universal(tag) if parts_of_speech else "")
    return counts


def _count_words(texts: Iterable[str]) -> Counter[str]:
    words = [word for text in texts for word in units(text)]
    unspaced = count_unspaced(words)
    return Counter({"words": len(words) - unspaced + -(-unspaced // _CHARACTERS_A_WORD)})


def _nothing_counted(parts_of_speech: bool, entities: bool) -> Counter[str]:
    names = ("words", *(("content_words",) if parts_of_speech else ()), *(("entities",) if entities else ()))
    return Counter(dict.fromkeys(names, 0))


def _count_word(counts: Counter[str], part: str) -> None:
    """Count a word and its part of speech; "" where parts of speech are not counted."""
    counts["words"] += 1
    if part:
        counts[f"parts_{part}"] += 1
        counts["content_words"] += part in _CONTENT


def _universal(tag: str) -> str:
    return next((found for length in (2, 1) if (found := _CHINESE_TAGS.get(tag[:length]))), "X")


def _pieces(text: str) -> Iterator[str]:
    """Cut a long text before white space, where there is some."""
    start = 0
    while len(text) - start > _PIECE_CHARS:
        stop = max(text.rfind(space, start + 1, start + _PIECE_CHARS) for space in " \n")
        stop = stop if stop > start else start + _PIECE_CHARS
        yield text[start:stop]
        start = stop
    yield text[start:]


def _value(known: Mapping[str, float], name: str) -> float | None:
    """An annotation; 0 for what was looked for and not found, None for what was not looked for."""
    return known.get(name, 0.0 if counted_with(name) in known else None)


def _check(name: str, value: float, lowest: float | None, highest: float | None) -> None:
    if lowest is not None and value < lowest:
        raise Drop("annotation_below_min", f"{name}: {value:.4g}, at least {lowest:g}")
    if highest is not None and value > highest:
        raise Drop("annotation_above_max", f"{name}: {value:.4g}, at most {highest:g}")
