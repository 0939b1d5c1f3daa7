"""What the report says of annotations: words, parts of speech and entities by corpus and language, as a table."""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from itertools import groupby

from scaletrain.data.statistics import AnnotationStatistics
from scaletrain.page import meter, section, share, table

_ROWS_SHOWN = 40
_LABELS_SHOWN = 4
_NOT_COUNTED = "–"
_NOTE = (
    "Of what was kept. Shares are of all words; content words are nouns, names, verbs, adjectives and adverbs. "
    "Entities are counted for each hundred conversations; the perplexity is the mean of theirs."
)


def annotations_section(annotations: Sequence[AnnotationStatistics]) -> str:
    """Return the section; "" where nothing was counted."""
    by_place = groupby(annotations, key=lambda each: (each.corpus, each.language))
    places = [(place, {each.name: each for each in group}) for place, group in by_place]
    places.sort(key=lambda each: (-max(found.conversations for found in each[1].values()), each[0]))
    if not places:
        return ""
    rows = [(*map(escape, place), *_cells(found)) for place, found in places[:_ROWS_SHOWN]]
    heads = ("corpus", "language", "conversations", "words", "each", "content words", "parts of speech", "entities")
    hidden = len(places) - _ROWS_SHOWN
    more = f'<p class="dim">{hidden} more in stats.json.</p>' if hidden > 0 else ""
    return section("Annotations", _NOTE, table((*heads, "perplexity"), rows, texts=(0, 1, 6, 7)) + more)


def _cells(found: Mapping[str, AnnotationStatistics]) -> tuple[str, ...]:
    """What is told of one corpus and language, as HTML."""
    words, content, perplexity = (found.get(name) for name in ("words", "content_words", "perplexity"))
    total = words.total if words else 0.0
    return (
        f"{max(each.conversations for each in found.values()):,}",
        f"{words.total:,.0f}" if words else _NOT_COUNTED,
        f"{words.mean:,.1f}" if words else _NOT_COUNTED,
        meter(content.total, total) if content else _NOT_COUNTED,
        _largest(found, "parts_", lambda each: share(each.total, total)) if content else _NOT_COUNTED,
        _largest(found, "entities_", lambda each: f"{100 * each.mean:.3g}") if "entities" in found else _NOT_COUNTED,
        f"{perplexity.mean:,.1f}" if perplexity else _NOT_COUNTED,
    )


def _largest(
    found: Mapping[str, AnnotationStatistics], prefix: str, told: Callable[[AnnotationStatistics], str]
) -> str:
    """The most frequent labels of a kind, each with its number."""
    labels = [each for name, each in found.items() if name.startswith(prefix)]
    labels.sort(key=lambda each: (-each.total, each.name))
    shown = [f"{escape(each.name.removeprefix(prefix))} {told(each)}" for each in labels[:_LABELS_SHOWN]]
    return ", ".join(shown) or "none"
