"""The settings of cleaning steps, and the rule of how `data.cleaning` names them.

An entry is a step's name, or a map of one name to the step's settings: `[fix_unicode, {replace_urls: {placeholder:
"<url>"}}]`. The fields of a section here are the keyword arguments of the function of that name in data.cleaning.
"""

import difflib
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    ValidationError,
    model_serializer,
)

from scaletrain.config_annotations import Annotate, CheckAnnotations, CheckPerplexity, counted_with
from scaletrain.config_section import Count, Float, Fraction, Number, Positive, Section, Share, Text

LanguageCode = Annotated[str, Field(pattern=r"^[a-z]{2,3}$", description="an ISO 639 code, as en")]
PersonalKind = Literal[
    "email", "phone", "card", "iban", "ip_address", "us_ssn", "chinese_id", "api_key", "name"
]  # fmt: skip
# The steps that have no settings of their own; check_length takes data.min_turns, min_chars and max_chars.
PLAIN_STEPS = ("fix_unicode", "tidy_spaces", "strip_html", "drop_empty_turns", "merge_turns", "check_length")


class FoldWidth(Section):
    """Full-width forms of ASCII become ASCII, and half-width kana full-width."""

    letters: bool = Field(True, description="ＡＢＣ１２３ become ABC123")
    punctuation: bool = Field(False, description="！（）： become !(): too, which Chinese and Japanese do not want")
    kana: bool = Field(True, description="ｶﾞｷﾞ become ガギ")


class StripMarkup(Section):
    """Markdown becomes plain text; what is inside code stays."""

    links: Literal["text", "keep"] = Field("text", description="text: a link becomes its words")
    quotes: Literal["remove", "keep"] = Field("remove", description="lines that begin with >, as Reddit's quotes do")
    emphasis: Literal["strip", "keep"] = Field("keep", description="strip: **words** and # Title lose their marks")


class ReplaceUrls(Section):
    """URLs go, or make place for a placeholder; what is inside code stays."""

    placeholder: str = Field("", description="put where a URL was, as <url>; empty: nothing")


class ReplaceHandles(Section):
    """Handles (@name, u/name) go, or make place for a placeholder; what is inside code stays."""

    placeholder: str = Field("", description="put where a handle was, as <user>; empty: nothing")


class RemovePhrases(Section):
    """Boilerplate is cut out of turns."""

    phrases: tuple[Text, ...] = Field(min_length=1, description="a list of texts; case and white space do not matter")


class DropBots(Section):
    """Conversations that a bot takes part in are dropped."""

    authors: tuple[Text, ...] = Field(
        ("AutoModerator", "*Bot", "*_bot", "*-bot"), description="names of authors, with * for any characters"
    )
    phrases: tuple[Text, ...] = Field(
        ("I am a bot, and this action was performed automatically", "this comment was posted by a bot"),
        description="what only bots say; case and white space do not matter",
    )


class CheckRepetition(Section):
    """Conversations that repeat themselves are dropped (after Rae et al. 2021, arXiv:2112.11446, table A1)."""

    max_repeated_turns: Share = Field(0.5, description="characters in turns said before, as a share")
    max_repeated_lines: Share = Field(0.3, description="lines of a turn that stood before in it, as a share")
    max_repeated_words: Share = Field(0.2, description="words of a turn that are in 5 words said before, as a share")
    min_words: Count = Field(50, description="shorter turns are not judged by their words")


class CheckCharacters(Section):
    """Conversations that are not made of letters are dropped."""

    max_symbols: Share = Field(0.1, description="symbols as a share of the characters, emoji aside")
    min_letters: Share = Field(0.5, description="letters as a share of the characters, white space aside")
    max_upper: Share = Field(0.7, description="capitals as a share of the letters that have them")
    min_chars: Count = Field(30, description="shorter conversations are not judged")


class CheckWords(Section):
    """Conversations whose words are unlikely short or long are dropped; for scripts with spaces between words."""

    min_mean_length: Positive = Field(2.0, description="characters a word")
    max_mean_length: Positive = Field(10.0, description="characters a word")
    min_words: Count = Field(20, description="shorter conversations are not judged")

    def rules(self) -> Iterator[tuple[str, str]]:
        if self.min_mean_length > self.max_mean_length:
            got = f"got {self.min_mean_length:g}, which is above max_mean_length={self.max_mean_length:g}"
            yield "min_mean_length", f"{got}; swap them"


class CheckBalance(Section):
    """Conversations in which one side says much more than the other are dropped."""

    max_ratio: Annotated[Float, Field(ge=1)] = Field(
        50.0, description="characters of the one that says more, to each of the other's"
    )


class IdentifyLanguage(Section):
    """A conversation's language is found where it is not known, and conversations in others are dropped."""

    keep: tuple[LanguageCode, ...] = Field((), description="ISO 639 codes, as [en, zh]; empty: all")
    min_confidence: Fraction = Field(0.5, description="below it the language counts as unknown")
    unknown: Literal["keep", "drop"] = Field("keep", description="what becomes of conversations of unknown language")


class MaskPersonalData(Section):
    """Personal data is replaced by <email>, <phone> and so on, or the conversation is dropped."""

    replace: tuple[PersonalKind, ...] = Field(
        ("email", "phone", "card", "iban", "ip_address", "us_ssn", "chinese_id", "api_key"),
        description="kinds to replace; name needs spaCy",
    )
    drop: tuple[PersonalKind, ...] = Field((), description="kinds that cost the conversation")
    name_model: Text = Field("en_core_web_sm", description="the spaCy model that finds names, for kind name")

    def rules(self) -> Iterator[tuple[str, str]]:
        if both := set(self.replace) & set(self.drop):
            yield "drop", f"{', '.join(sorted(both))} is in replace too; keep it in one of the two"
        if not self.replace and not self.drop:
            yield "replace", "is empty, and so is drop; name a kind, or leave the step out"


class CheckProfanity(Section):
    """Conversations with words of a list are dropped, or the words masked."""

    words: tuple[Text, ...] = Field((), description="words or phrases; case does not matter")
    lists: tuple[Text, ...] = Field((), description="files or URLs of lists, a word or phrase a line, # for comments")
    action: Literal["drop", "mask"] = Field("drop", description="mask: every letter becomes *")
    max_words: Number = Field(0, description="with action: drop, as many are let pass")

    def rules(self) -> Iterator[tuple[str, str]]:
        if not self.words and not self.lists:
            yield "words", "missing, and so is lists; give one of the two"
        if self.action == "mask" and self.max_words:
            yield "max_words", "goes with action: drop; remove it"


class ConvertChinese(Section):
    """Chinese is brought to one script by OpenCC; conversations in Japanese are left alone."""

    to: Literal["simplified", "traditional", "taiwan", "hong_kong"] = Field("simplified", description="the script")


class StepSettings(Section):
    """A step with settings: one of these, as an entry of the list `data.cleaning`."""

    fold_width: FoldWidth | None = Field(None, description="full-width and half-width forms")
    strip_markup: StripMarkup | None = Field(None, description="Markdown")
    replace_urls: ReplaceUrls | None = Field(None, description="URLs")
    replace_handles: ReplaceHandles | None = Field(None, description="names as @name and u/name")
    remove_phrases: RemovePhrases | None = Field(None, description="boilerplate")
    drop_bots: DropBots | None = Field(None, description="bots")
    check_repetition: CheckRepetition | None = Field(None, description="repetition")
    check_characters: CheckCharacters | None = Field(None, description="symbols, letters, capitals")
    check_words: CheckWords | None = Field(None, description="mean length of words")
    check_balance: CheckBalance | None = Field(None, description="the two sides' lengths")
    identify_language: IdentifyLanguage | None = Field(None, description="language")
    mask_personal_data: MaskPersonalData | None = Field(None, description="personal data")
    check_profanity: CheckProfanity | None = Field(None, description="lists of words")
    convert_chinese: ConvertChinese | None = Field(None, description="simplified and traditional characters")
    annotate: Annotate | None = Field(None, description="words, parts of speech and entities")
    check_annotations: CheckAnnotations | None = Field(None, description="what annotate counted")
    check_perplexity: CheckPerplexity | None = Field(None, description="how likely a language model finds it")

    def chosen(self) -> tuple[str, Section]:
        """Return the step's name and its settings."""
        return next((name, settings) for name in type(self).model_fields if (settings := getattr(self, name)))

    @model_serializer(mode="wrap")
    def _as_written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: settings for name, settings in handler(self).items() if settings is not None}


def settings_of(step: str) -> type[Section] | None:
    """Return the section of a step's settings; None where it has none."""
    info = StepSettings.model_fields.get(step)
    return get_args(info.annotation)[0] if info else None


def chosen_settings(entry: "str | StepSettings") -> Section | None:
    """Return the settings of an entry, the default ones where it is a name alone; None where its step has none."""
    if isinstance(entry, StepSettings):
        return entry.chosen()[1]
    section = settings_of(entry)
    return section() if section else None


def uncounted(steps: "Sequence[str | StepSettings]") -> Iterator[tuple[int, str]]:
    """Yield (position, what to do) for each annotation that is checked and not counted before."""
    counted: set[str] = set()
    for position, step in enumerate(steps):
        settings = chosen_settings(step)
        if isinstance(settings, Annotate):
            counted |= set(settings.counted())
        if not isinstance(settings, CheckAnnotations):
            continue
        for each in settings.named():
            if (kind := counted_with(each)) not in counted:
                setting = {"entities": ", with entities: true", "content_words": ", with parts_of_speech: true"}
                yield (
                    position,
                    f"check_annotations: {each} is not counted before it; put annotate there{setting.get(kind, '')}",
                )


def _check_name(name: object) -> object:
    """Refuse what is no step's name alone."""
    if not isinstance(name, str):
        raise ValueError("give a step's name, or {name: {setting: value}}")
    if ":" in name or name in PLAIN_STEPS:
        return name
    section = settings_of(name)
    if section is None:
        known = [*PLAIN_STEPS, *StepSettings.model_fields]
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
        raise ValueError(f"{hint} (your own: my_package.module:function)")
    try:
        section()
    except ValidationError as exc:
        error = exc.errors()[0]
        missing = error["loc"][0] if error["loc"] else error["ctx"]["error"].broken[0][0]
        raise ValueError(f"needs settings; write {{{name}: {{{missing}: [...]}}}}") from None
    return name


def _check_map(value: object) -> object:
    """Refuse a map that is not of one step."""
    if not isinstance(value, dict):
        return value
    if len(value) != 1:
        raise ValueError("one step an entry: write its name, or {name: {setting: value}}")
    (name,) = value
    if name in PLAIN_STEPS:
        raise ValueError(f"{name} has no settings here; write its name alone")
    if value[name] is None:
        raise ValueError(f"{name}: has no settings behind its colon; write its name alone")
    return value


def _kind(value: object) -> str:
    return "<settings>" if isinstance(value, (dict, StepSettings)) else "<name>"


CleaningStep = Annotated[
    Annotated[str, BeforeValidator(_check_name), Tag("<name>")]
    | Annotated[StepSettings, BeforeValidator(_check_map), Tag("<settings>")],
    Discriminator(_kind),
]
