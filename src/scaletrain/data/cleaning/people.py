"""Names of people in a text, found by a spaCy model: spaCy and the model are for the user to install."""

from typing import TYPE_CHECKING

from scaletrain.data.cleaning.spacy_models import ENTITIES, load_spacy_model
from scaletrain.errors import ConfigError

if TYPE_CHECKING:
    from spacy.language import Language

_PEOPLE = ("PERSON", "PER")  # as English and Chinese models call them, and those of other languages
_SETTING = "data.cleaning: mask_personal_data: kind name"


def find_names(text: str, *, model: str, language: str) -> list[tuple[int, int]]:
    """Return where people are named, in order; none where the text is known to be in another language than the model.

    Raises ConfigError where spaCy or the model is not installed.
    """
    pipeline = load_names_model(model)
    if language and language != pipeline.lang:
        return []
    people = [entity for entity in pipeline(text).ents if entity.label_ in _PEOPLE]
    # What another step or an earlier pass has put there is no name.
    return [
        (each.start_char, each.end_char)
        for each in people
        if not set("<>") & set(text[max(0, each.start_char - 1) : each.end_char + 1])
    ]


def load_names_model(model: str) -> "Language":
    """Load a spaCy model for its entities; ConfigError where it is not installed, or knows no people."""
    pipeline = load_spacy_model(model, wanted=ENTITIES, setting=_SETTING, name_setting="name_model", extra="names")
    if "ner" not in pipeline.pipe_names:
        raise ConfigError(f"{_SETTING}: the model {model} finds no names; use one with entities, as en_core_web_sm")
    return pipeline
