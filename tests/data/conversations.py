"""Conversations for the tests of cleaning, and the steps of a configuration by their names alone."""

from scaletrain.config_data import Corpus, DataSection
from scaletrain.data.cleaning import Step, load_steps
from scaletrain.data.conversation import Conversation, Turn


def section(**settings: object) -> DataSection:
    """A data section with these settings."""
    return DataSection(corpora=(Corpus(format="messages", source="x.jsonl"),), **settings)  # type: ignore[arg-type]


def step(name: str, **settings: object) -> Step:
    """One step with its settings, as data.cleaning names it."""
    (loaded,) = load_steps(section(cleaning=({name: settings} if settings else name,)))
    return loaded


def talk(*contents: str, language: str = "", authors: tuple[str, ...] = ()) -> Conversation:
    """User and assistant in turn."""
    turns = tuple(Turn("assistant" if i % 2 else "user", text) for i, text in enumerate(contents))
    return Conversation(turns, language=language, authors=authors)


def contents(conversation: Conversation) -> list[str]:
    """What is said, turn by turn."""
    return [turn.content for turn in conversation.turns]


def apply(step: Step, text: str) -> str:
    """What a step makes of a text that somebody says."""
    return contents(step(talk(text, "Yes")))[0]
