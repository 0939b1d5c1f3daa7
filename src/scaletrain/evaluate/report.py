"""runs/<name>/evaluation/report.html and summary.md: an evaluation for people to look at, and to paste somewhere.

The page is one file that needs nothing else (see scaletrain.page). What models and strangers wrote is escaped.
"""

from collections.abc import Iterator, Sequence
from html import escape

from scaletrain import storage
from scaletrain.evaluate import charts
from scaletrain.evaluate.answers import ALL, Kind
from scaletrain.evaluate.charts import Lane, Mark
from scaletrain.evaluate.evaluation import Evaluation
from scaletrain.evaluate.judging import Judgement
from scaletrain.evaluate.summary import (
    Rows,
    duration,
    interval,
    judgement_note,
    markdown,
    p_value,
    percent,
    perplexity_table,
    statistics_table,
    tasks_table,
    texts_table,
)
from scaletrain.layout import RunLayout
from scaletrain.page import page, section, table, tiles
from scaletrain.page.bars import Bar, shares

REPORT, SUMMARY = "report.html", "summary.md"
_TITLES: dict[Kind, tuple[str, str]] = {
    "corpus": (
        "By corpus",
        "Perplexity per token of the assistant's answers in held-out conversations, with the 95% interval over "
        "conversations. Lower is better.",
    ),
    "language": ("By language", "As the dump says or as cleaning identified it."),
    "depth": (
        "By turn",
        "By which answer of its conversation it is, as far as the model sees it: do later ones use what was said?",
    ),
}
_KINDS = {"before": "node", "after": "kept"}


def publish(evaluation: Evaluation, *, root: str) -> None:
    """Write the page and the Markdown of an evaluation into the run's folder; raises StorageError."""
    folder = RunLayout(root, evaluation.run).evaluation
    storage.write_bytes(storage.join(folder, REPORT), report_html(evaluation))
    storage.write_text(storage.join(folder, SUMMARY), markdown(evaluation))


def report_html(evaluation: Evaluation) -> bytes:
    """The page."""
    sections = (
        _head(evaluation),
        *(_perplexities(evaluation, kind) for kind in _TITLES),
        _curve(evaluation),
        _calibration(evaluation),
        _plain("Running text", "Bits per byte compare models of any tokenizer.", texts_table(evaluation)),
        _plain("Benchmark tasks", "As lm-eval counts them, with the standard error.", tasks_table(evaluation), texts=2),
        _judgement(evaluation),
        _answers(evaluation),
    )
    footer = (
        "Written by <code>scaletrain evaluate</code>. The same numbers are in the JSON files beside this page. "
        f"Dataset <code>{escape(evaluation.dataset_id)}</code>."
    )
    return page(f"evaluation of {evaluation.run}", sections, footer=footer)


# ---- sections ------------------------------------------------------------------------------------------------------


def _head(evaluation: Evaluation) -> str:
    everything = {name: each.perplexities[0] for name, each in evaluation.measured}
    last = everything[evaluation.measured[-1][0]]
    arrow = " → ".join
    shown = [
        (arrow(f"{each.value:.2f}" for each in everything.values()), "perplexity of all held-out answers"),
        (arrow(f"{each.bits_per_byte:.3f}" for each in everything.values()), "bits per byte of what is said"),
    ]
    if change := evaluation.changes.get(("corpus", ALL)):
        shown.append((percent(change.value), f"change ({interval(change)}; paired test p {p_value(change.p)})"))
    shown.append((f"{last.conversations:,}", f"conversations, {last.answers:,} answers, {last.tokens:,} tokens"))
    told = []
    if evaluation.trained is not None:
        trained = evaluation.trained
        told.append(f"Trained for {trained.steps:,} steps on {trained.tokens:,} tokens in {duration(trained.seconds)}.")
    for name, each in evaluation.measured:
        subject = each.subject
        of = f"{subject.run} " if subject.run else ""
        what = f"step {subject.step:,}" if subject.checkpoint else f"the model {subject.model}, untrained"
        told.append(f"{name}: {of}{what}, in {subject.precision} on {each.device}.")
    return (
        f"<h1>Evaluation of <code>{escape(evaluation.run)}</code></h1>"
        f'<p class="dim">{escape(" ".join(told))}</p><div class="tiles">{tiles(shown)}</div>'
    )


def _perplexities(evaluation: Evaluation, kind: Kind) -> str:
    rows = perplexity_table(evaluation, kind)
    if len(rows) == 1:
        return ""
    figures = {
        name: {each.name: each for each in measurement.perplexities if each.kind == kind}
        for name, measurement in evaluation.measured
    }
    drawn = []
    for group, *_ in rows[1:]:
        found = [(name, of[group]) for name, of in figures.items()]
        marks = [Mark(each.value, each.low, each.high, _KINDS[name]) for name, each in found]
        change = evaluation.changes.get((kind, group))
        told = percent(change.value) if change else f"{found[-1][1].value:.2f}"
        drawn.append(Lane(group, marks, told))
    title, note = _TITLES[kind]
    return section(title, note, charts.lanes(drawn, name=f"perplexity {title}") + _legend(evaluation) + _table(rows))


def _curve(evaluation: Evaluation) -> str:
    if evaluation.curve is None:
        return ""
    picture = charts.curve(evaluation.curve.points, name="perplexity by step")
    if not picture:
        return ""
    return section("Over training", "Perplexity of every checkpoint that was measured, with its 95% interval.", picture)


def _calibration(evaluation: Evaluation) -> str:
    note = (
        "The likeliest next token: how likely the model said it was, against how often it came. Bars below the "
        "diagonal are of a model too sure of itself; pale bars rest on few tokens."
    )
    parts = []
    for name, each in evaluation.measured:
        found = each.calibration
        told = f"expected calibration error {found.error:.3f}, right {found.accuracy:.1%} of the time"
        picture = charts.reliability(found, name=f"reliability of {name}", kind=_KINDS[name])
        rows = [
            (
                f"{row['from']:.0%} to {row['to']:.0%}",
                f"{row['tokens']:,}",
                f"{row['confidence']:.1%}",
                f"{row['accuracy']:.1%}",
            )
            for row in found.table()
        ]
        heads = ("said", "tokens", "mean said", "came")
        parts.append(
            f'<div><h3>{name}</h3><p class="dim">{told}</p>{picture}'
            f"<details><summary>the table</summary>{table(heads, rows)}</details></div>"
        )
    return section("Calibration", note, f'<div class="pair">{"".join(parts)}</div>')


def _judgement(evaluation: Evaluation) -> str:
    found = evaluation.judgement
    if found is None:
        return ""
    note = (
        f"{escape(judgement_note(evaluation))} Each pair was judged in both orders; a model that is preferred in one "
        "order only has not won."
    )
    bars = [
        Bar("after is better", found.count("after"), "kept"),
        Bar("tie, or the judge contradicts itself", found.count("tie") + found.count("contradiction"), "third"),
        Bar("before is better", found.count("before"), "node"),
    ]
    return section("Judged by a model", note, shares(bars, name="verdicts") + _verdicts(found))


def _verdicts(found: Judgement) -> str:
    rows = [
        (escape(verdict.prompt), verdict.first or "–", verdict.second or "–", verdict.outcome, escape(verdict.problem))
        for verdict in found.verdicts
    ]
    heads = ("prompt", "before shown first", "after shown first", "outcome", "problem")
    return f"<details><summary>all verdicts</summary>{table(heads, rows, texts=(0, 1, 2, 3, 4))}</details>"


def _answers(evaluation: Evaluation) -> str:
    rows = statistics_table(evaluation)
    if not rows:
        return ""
    note = (
        "Always the most likely token. Lengths and n-grams are counted in words; refused looks for listed phrases, and "
        "is a heuristic; ended is the share that the model ended itself."
    )
    return section("Sample answers", note, _table(rows) + "".join(_side_by_side(evaluation)))


def _side_by_side(evaluation: Evaluation) -> Iterator[str]:
    for prompt, answers in evaluation.answers():
        columns = "".join(
            f'<div class="said" dir="auto" tabindex="0"><b>{name}</b>\n{escape(reply) or "(nothing)"}</div>'
            for name, reply in answers
        )
        head = f'<header dir="auto">{escape(prompt)}</header>'
        yield f'<article class="sample">{head}<div class="pair">{columns}</div></article>'


# ---- parts ---------------------------------------------------------------------------------------------------------


def _plain(title: str, note: str, rows: Rows, *, texts: int = 1) -> str:
    return section(title, note, _table(rows, texts=texts)) if rows else ""


def _table(rows: Rows, *, texts: int = 1) -> str:
    """A table of text; the first `texts` columns are names, the others numbers."""
    header, *others = rows
    return table(header, [[escape(cell) for cell in row] for row in others], texts=_first(texts))


def _first(count: int) -> Sequence[int]:
    return tuple(range(count))


def _legend(evaluation: Evaluation) -> str:
    named = "".join(f'<li><i class="{_KINDS[name]}"></i>{name}</li>' for name, _ in evaluation.measured)
    return f'<ul class="legend">{named}</ul>'
