"""The settings of the cleaning steps that annotate conversations or judge by annotations, and what these are called."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from scaletrain.config_section import Float, Int, Positive, Section, Share, Text

_SHARES = r"content_words|parts_[A-Z]+|entities(_[A-Z_]+)?"
CountName = Annotated[
    str, Field(pattern=rf"^(words|{_SHARES})$", description="what annotate counts, as entities_PERSON")
]
ShareName = Annotated[str, Field(pattern=rf"^({_SHARES})$", description="what annotate counts, as parts_NOUN")]


class Annotate(Section):
    """Words, parts of speech and entities are counted, for check_annotations and the report; nothing is changed."""

    parts_of_speech: bool = Field(
        False, description="parts_NOUN and so on, and content_words; needs spaCy but in Chinese"
    )
    entities: bool = Field(False, description="entities, entities_PERSON and so on; needs spaCy")
    models: tuple[Text, ...] = Field(
        ("en_core_web_sm",), description="spaCy models, each for its language's conversations"
    )

    def rules(self) -> Iterator[tuple[str, str]]:
        if self.entities and not self.models:
            yield "models", "is empty, and entities need one; name a model, as en_core_web_sm"

    def counted(self) -> Iterator[str]:
        """What it counts in every conversation, though it be 0 times."""
        yield "words"
        if self.parts_of_speech:
            yield "content_words"
        if self.entities:
            yield "entities"


class CheckAnnotations(Section):
    """Conversations with too little or too much of what `annotate` counted before are dropped."""

    min: dict[CountName, Float] = Field(default_factory=dict, description="the least of each, as {words: 3}")
    max: dict[CountName, Float] = Field(default_factory=dict, description="the most of each, as {entities_PERSON: 5}")
    min_share: dict[ShareName, Share] = Field(
        {}, description="the least as a share of the words, as {content_words: 0.2}"
    )
    max_share: dict[ShareName, Share] = Field(
        default_factory=dict, description="the most as a share of the words, as {parts_NUM: 0.5}"
    )

    def rules(self) -> Iterator[tuple[str, str]]:
        if not self.named():
            yield "min", "missing, and so are max, min_share and max_share; give one of them"
        for lowest, highest, name in ((self.min, self.max, "min"), (self.min_share, self.max_share, "min_share")):
            for each in sorted(lowest.keys() & highest.keys()):
                if lowest[each] > highest[each]:
                    yield name, f"{each}: got {lowest[each]:g}, which is above the most, {highest[each]:g}; swap them"

    def named(self) -> list[str]:
        """The annotations that it looks at."""
        return sorted({*self.min, *self.max, *self.min_share, *self.max_share})


class CheckPerplexity(Section):
    """The perplexity of a small language model is noted, and conversations that it finds odd or trite are dropped."""

    model: Text = Field(description="a folder, URL, GGUF file, package:NAME/FILE or hub id, as model.source")
    lowest: Positive | None = Field(None, description="what is below is too_likely: said by everybody, or repeated")
    highest: Positive | None = Field(None, description="what is above is unlikely: garbled, or in another language")
    max_tokens: Annotated[Int, Field(ge=2, le=2**20)] = Field(512, description="so many from the beginning are read")

    def rules(self) -> Iterator[tuple[str, str]]:
        if self.lowest is not None and self.highest is not None and self.lowest > self.highest:
            yield "lowest", f"got {self.lowest:g}, which is above highest={self.highest:g}; swap them"


def counted_with(annotation: str) -> str:
    """Return the annotation that is there wherever this one was looked for, itself or the sum that it is a part of."""
    if annotation.startswith("entities_"):
        return "entities"
    return "content_words" if annotation.startswith("parts_") else annotation
