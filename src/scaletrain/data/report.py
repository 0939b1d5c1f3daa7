"""report.html: what came in, what stayed, and why the rest did not, for people to look at.

One file that needs nothing else: no network, no script (its own policy forbids both), pictures as SVG, light and dark.
Whatever strangers wrote is escaped. Equal input gives equal bytes; the same numbers are in stats.json.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from html import escape

import orjson

from scaletrain.data.formats import BAD_ROW
from scaletrain.data.report_annotations import annotations_section
from scaletrain.data.report_charts import Stream, histogram, sankey
from scaletrain.data.report_samples import Sample, sample_html
from scaletrain.data.statistics import KEPT, UNKNOWN, Flow, Statistics
from scaletrain.page import meter, page, section, share, table, tiles
from scaletrain.page.bars import Bar, shares

REPORT = "report.html"
_NODES = 12  # of a column of the picture; the smaller ones are drawn together
_REASONS_SHOWN = 40
_CORPORA_NAMED = 3


def report_html(statistics: Statistics, samples: Mapping[str, Sequence[Sample]]) -> bytes:
    """Return the page; `samples` has some conversations for each outcome (KEPT, or a reason)."""
    sections = (
        _head(statistics),
        _flow(statistics.flows),
        _corpora(statistics),
        _languages(statistics.flows),
        _lengths(statistics),
        _reasons(statistics, samples),
        _steps(statistics),
        annotations_section(statistics.annotations),
        _packing(statistics),
        _leakage(statistics),
        _licences(statistics),
        _kept(samples.get(KEPT, ())),
        _settings(statistics),
    )
    footer = (
        "Written by <code>scaletrain prepare</code>. The same numbers are in <code>stats.json</code>, "
        "and what became of each single row in <code>provenance-*.parquet</code>: "
        "<code>scaletrain prepare CONFIG --explain ID</code>."
    )
    return page(f"dataset {statistics.dataset_id}", sections, footer=footer)


# ---- sections ------------------------------------------------------------------------------------------------------


def _head(statistics: Statistics) -> str:
    corpora, splits = statistics.corpora, statistics.splits.values()
    read, kept = sum(each.read for each in corpora), sum(each.kept for each in corpora)
    tokens, supervised = sum(each.tokens for each in splits), sum(each.supervised_tokens for each in splits)
    rows = sum(each.rows for each in splits)
    shown = (
        (f"{kept:,}", f"of {read:,} conversations kept ({share(kept, read)})"),
        (f"{tokens:,}", "tokens in rows"),
        (f"{supervised:,}", f"tokens learned from ({share(supervised, tokens)})"),
        (f"{rows:,}", f"rows of {statistics.seq_len:,} tokens, {share(tokens, rows * statistics.seq_len)} full"),
    )
    unlicensed = [
        f"{escape(each.name)} ({count:,})" for each in corpora if (count := each.licences.get(UNKNOWN)) is not None
    ]
    warnings = []
    if unlicensed:
        warnings.append(
            f"No licence is known for conversations of {', '.join(unlicensed)}. Set <code>licence</code> of the corpus."
        )
    bad_rows = sum(each.bad_rows for each in corpora)
    if bad_rows:
        warnings.append(f"Rows that could not be read: {bad_rows:,}. Some are named under {BAD_ROW}, below.")
    told = "".join(f'<div class="warning">{line}</div>' for line in warnings)
    return (
        f'<h1>Dataset <code>{escape(statistics.dataset_id)}</code></h1><p class="dim">What came in, what stayed, and '
        f'why the rest did not.</p><div class="tiles">{tiles(shown)}</div>{told}'
    )


def _flow(flows: Sequence[Flow]) -> str:
    name = {
        "corpus": _largest(flows, lambda flow: flow.corpus, "corpora"),
        "language": _largest(flows, lambda flow: flow.language, "languages"),
        "outcome": _largest(flows, lambda flow: flow.outcome, "reasons", first=KEPT),
    }
    columns = (
        ["corpus", "language", "outcome"] if {flow.language for flow in flows} != {UNKNOWN} else ["corpus", "outcome"]
    )

    def is_rest(flow: Flow) -> bool:  # nodes stand in the order of the streams: what is drawn together comes last
        return name["corpus"](flow.corpus) != flow.corpus or name["outcome"](flow.outcome) != flow.outcome

    streams = [
        Stream(tuple(name[column](getattr(flow, column)) for column in columns), flow.rows, flow.outcome == KEPT)
        for flow in sorted(
            flows, key=lambda flow: (flow.outcome != KEPT, is_rest(flow), -flow.rows, flow.corpus, flow.language)
        )
    ]
    picture = sankey(streams, headings=[column.upper() for column in columns], name="rows by what became of them")
    return section("From corpora to rows", "Every row that was read, by corpus and what became of it.", picture)


def _corpora(statistics: Statistics) -> str:
    rows = [
        (
            escape(each.name),
            f"{each.files:,}",
            f"{each.read:,}",
            f"{each.kept:,}{meter(each.kept, each.read)}",
            f"{each.turns:,}",
            f"{each.tokens:,}",
            share(each.supervised_tokens, each.tokens),
            f"{each.bad_rows:,}",
            f"{each.repeated:,}",
        )
        for each in statistics.corpora
    ]
    heads = ("corpus", "files", "conversations", "kept", "turns", "tokens", "learned from", "unreadable", "repeated")
    return section("Corpora", "Turns and tokens are those of what was kept.", table(heads, rows))


def _languages(flows: Sequence[Flow]) -> str:
    languages = {flow.language for flow in flows}
    if languages == {UNKNOWN}:
        return ""
    rows = []
    for language in languages:
        own = [flow for flow in flows if flow.language == language and flow.outcome != BAD_ROW]
        kept = [flow for flow in own if flow.outcome == KEPT]
        read, left = sum(flow.rows for flow in own), sum(flow.rows for flow in kept)
        turns, tokens = sum(flow.turns for flow in kept), sum(flow.tokens for flow in kept)
        cells = (
            escape(language),
            f"{read:,}",
            f"{left:,}{meter(left, read)}",
            f"{turns:,}",
            f"{tokens:,}",
            f"{tokens / turns:.1f}" if turns else "–",
        )
        rows.append((-left, language, cells))
    heads = ("language", "conversations", "kept", "turns", "tokens", "tokens a turn")
    note = "As the dump says or as cleaning identified it."
    return section("Languages", note, table(heads, [cells for *_, cells in sorted(rows)]))


def _lengths(statistics: Statistics) -> str:
    tokens, turns = Counter[str](), Counter[str]()
    for split in statistics.splits.values():
        tokens.update(split.conversation_tokens)
        turns.update(split.conversation_turns)
    pictures = (
        f"<div><h3>Tokens of a conversation</h3>{histogram(tokens, name='conversations by tokens')}</div>"
        f"<div><h3>Turns of a conversation</h3>{histogram(turns, name='conversations by turns')}</div>"
    )
    return section("Lengths", "Conversations that were kept, by length.", f'<div class="pair">{pictures}</div>')


def _reasons(statistics: Statistics, samples: Mapping[str, Sequence[Sample]]) -> str:
    counts: Counter[str] = Counter()
    for flow in statistics.flows:
        if flow.outcome != KEPT:
            counts[flow.outcome] += flow.rows
    total = sum(flow.rows for flow in statistics.flows)
    parts = []
    for reason, count in sorted(counts.items(), key=lambda each: (-each[1], each[0]))[:_REASONS_SHOWN]:
        where = _by_corpus(statistics.flows, reason)
        told = ", ".join(f"{escape(name)} {rows:,}" for name, rows in where[:_CORPORA_NAMED])
        told += f" and {len(where) - _CORPORA_NAMED} more" if len(where) > _CORPORA_NAMED else ""
        shown = "".join(map(sample_html, samples.get(reason, ()))) or '<p class="dim">no sample</p>'
        head = (
            f'<b>{escape(reason)}</b> <span class="count">{count:,}</span> {meter(count, total, kind="lost")} '
            f'<span class="dim">{told}</span>'
        )
        parts.append(f"<details><summary>{head}</summary>{shown}</details>")
    if not parts:
        return ""
    note = "Open a reason to see some of what it left out: judge whether the rule is right. Personal data is masked."
    return section("Left out, and why", note, "".join(parts))


def _steps(statistics: Statistics) -> str:
    rows = [
        (
            escape(step.name),
            f"{step.changed:,}",
            f"{sum(step.dropped.values()):,}",
            escape(", ".join(f"{reason} {count:,}" for reason, count in step.dropped.items())),
        )
        for step in statistics.steps
    ]
    if not rows:
        return ""
    heads = ("step", "changed", "left out", "for")
    return section(
        "Cleaning", "How many conversations each step changed and left out.", table(heads, rows, texts=(0, 3))
    )


def _packing(statistics: Statistics) -> str:
    rows, bars = [], []
    for name, split in statistics.splits.items():
        lost = ", ".join(f"{split.dropped_tokens[reason]:,} tokens {escape(reason)}" for reason in split.dropped_pieces)
        rows.append(
            (
                escape(name),
                f"{split.conversations:,}",
                f"{split.rows:,}",
                f"{split.pieces / split.rows:.1f}" if split.rows else "–",
                f"{split.tokens:,}",
                f"{split.packing_efficiency:.1%}",
                lost or "nothing",
            )
        )
        if split.rows:
            parts = (
                Bar("learned from", split.supervised_tokens, "first"),
                Bar("read only", split.tokens - split.supervised_tokens, "second"),
                Bar("padding", split.rows * statistics.seq_len - split.tokens, "third"),
            )
            bars.append(f"<h3>{escape(name)}</h3>{shares(parts, name=f'tokens of the {name} rows')}")
    heads = ("split", "conversations", "rows", "pieces a row", "tokens", "full", "left out by packing")
    return section("Splits and packing", "", table(heads, rows, texts=(0, 6)) + "".join(bars))


def _leakage(statistics: Statistics) -> str:
    rows = [
        (escape(each.url), f"{each.items:,}", f"{each.too_short:,}", f"{each.conversations:,}")
        for each in statistics.leakage
    ]
    if not rows:
        return ""
    note = "Conversations that quote an item of a benchmark were left out; items that are too short are not looked for."
    return section("Leakage", note, table(("benchmark", "items", "too short", "conversations"), rows))


def _licences(statistics: Statistics) -> str:
    rows = []
    for corpus in statistics.corpora:
        for licence, count in corpus.licences.items():
            shown = '<span class="flag">not known</span>' if licence == UNKNOWN else escape(licence)
            rows.append((escape(corpus.name), shown, f"{count:,}"))
    note = "Of what was kept. Whether a model may be trained on it, and passed on, is yours to find out."
    return section("Licences", note, table(("corpus", "licence", "conversations"), rows, texts=(0, 1)))


def _kept(samples: Sequence[Sample]) -> str:
    if not samples:
        return ""
    note = (
        "As training sees them, template and all. <mark>Marked</mark> is what is learned from. Personal data is masked."
    )
    return section("Some that were kept", note, "".join(map(sample_html, samples)))


def _settings(statistics: Statistics) -> str:
    if not statistics.settings:
        return ""
    text = orjson.dumps(statistics.settings, option=orjson.OPT_INDENT_2).decode()
    return section("Settings", "", f"<details><summary>the data section</summary><pre>{escape(text)}</pre></details>")


# ---- what flows are summed up to -----------------------------------------------------------------------------------


def _by_corpus(flows: Sequence[Flow], reason: str) -> list[tuple[str, int]]:
    counts: Counter[str] = Counter()
    for flow in flows:
        if flow.outcome == reason:
            counts[flow.corpus] += flow.rows
    return sorted(counts.items(), key=lambda each: (-each[1], each[0]))


def _largest(
    flows: Sequence[Flow], value_of: Callable[[Flow], str], noun: str, *, first: str | None = None
) -> Callable[[str], str]:
    """A function that names a value's node: itself where it is one of the largest, else the rest's."""
    counts: Counter[str] = Counter()
    for flow in flows:
        counts[value_of(flow)] += flow.rows
    ranked = sorted(counts, key=lambda value: (value != first, -counts[value], value))
    if len(ranked) <= _NODES:
        return str
    shown = set(ranked[: _NODES - 1])
    return lambda value: value if value in shown else f"{len(ranked) - len(shown)} other {noun}"
