"""Load spaCy models, each with no more components than are wanted: spaCy and its models are for the user to install."""

import functools
from typing import TYPE_CHECKING

from scaletrain.errors import ConfigError

if TYPE_CHECKING:
    from spacy.language import Language

TAGGERS = ("tagger", "morphologizer", "attribute_ruler")
ENTITIES = ("ner",)
_COMPONENTS = (*TAGGERS, *ENTITIES, "parser", "senter", "lemmatizer", "trainable_lemmatizer")


@functools.cache
def load_spacy_model(model: str, *, wanted: tuple[str, ...], setting: str, name_setting: str, extra: str) -> "Language":
    """Return a model with its vectors and the components `wanted`, as far as it has them; it stays in this process.

    Raises ConfigError that begins with `setting` where spaCy (of our `extra`) or the model (named in `name_setting`) is
    not installed.
    """
    try:
        import spacy
    except ImportError as exc:
        raise ConfigError(f"{setting}: spaCy is not installed; `pip install scaletrain[{extra}]`, and a model") from exc
    try:
        return spacy.load(model, exclude=[name for name in _COMPONENTS if name not in wanted])
    except OSError as exc:
        raise ConfigError(
            f"{setting}: spaCy has no model {model}; `python -m spacy download {model}`, or name another in "
            f"{name_setting}"
        ) from exc
