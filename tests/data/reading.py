"""Read a dump as a corpus, and say what came of it."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from scaletrain.config_data import Corpus
from scaletrain.data.conversation import Conversation
from scaletrain.data.formats import Rejected, check_settings, list_files, read_files, reads_together

Items = Sequence[Conversation | Rejected]


def read(source: str | Path, format: str = "messages", **settings: object) -> list[Conversation | Rejected]:
    corpus = Corpus(format=format, source=str(source), **settings)  # type: ignore[arg-type]
    check_settings([corpus])
    files = list_files(corpus)
    units = [files] if reads_together(corpus) else [[file] for file in files]
    return [item for unit in units for item in read_files(unit, corpus=corpus)]


def conversations(items: Items) -> list[Conversation]:
    return [item for item in items if isinstance(item, Conversation)]


def texts(items: Items) -> list[list[str]]:
    return [[turn.content for turn in item.turns] for item in conversations(items)]


def roles(item: Conversation | Rejected) -> str:
    assert isinstance(item, Conversation)
    return " ".join(turn.role for turn in item.turns)


def rejects(items: Items) -> dict[str, int]:
    """How many rows were rejected, by reason."""
    counts: Counter[str] = Counter()
    for item in items:
        if isinstance(item, Rejected):
            counts[item.reason] += item.count
    return dict(sorted(counts.items()))
