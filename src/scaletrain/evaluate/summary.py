"""An evaluation as a person reads it (tables, answers side by side): in the terminal, and as Markdown."""

from collections.abc import Iterator
from dataclasses import fields
from typing import TYPE_CHECKING

from scaletrain.evaluate.answers import ALL, UNKNOWN, Kind
from scaletrain.evaluate.evaluation import Evaluation
from scaletrain.evaluate.perplexity import Change, Perplexity
from scaletrain.evaluate.sample_statistics import SampleStatistics
from scaletrain.log import visible

if TYPE_CHECKING:
    from rich.console import RenderableType

Rows = list[list[str]]

_HEADS = {"corpus": "corpus", "language": "language", "depth": "answer"}
_FEW = 10
_SHARES = {"repeated_4grams", "distinct_1", "distinct_2", "distinct_3", "refused", "ended", "empty"}


def markdown(evaluation: Evaluation) -> str:
    """The tables and the answers as a page."""
    lines = [f"# Evaluation of {evaluation.run}", "", *notes(evaluation)]
    for table in tables(evaluation):
        lines += ["", *markdown_table(table)]
    for prompt, answers in evaluation.answers():
        lines += ["", f"> {_one_line(prompt)}", "", *(f"- **{name}**: {_one_line(reply)}" for name, reply in answers)]
    return "\n".join(lines) + "\n"


def display(evaluation: Evaluation) -> "RenderableType":
    """The same for the terminal."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    parts: list[RenderableType] = []
    for number, (header, *rows) in enumerate(tables(evaluation, narrow=True)):
        title = f"{evaluation.run}: perplexity on held-out conversations" if number == 0 else None
        table = Table(title=title, title_justify="left")
        for column, name in enumerate(header):
            table.add_column(name, justify="right" if column else "left")
        for row in rows:
            table.add_row(*map(visible, row))
        parts.append(table)
    parts += [Text(note, style="dim") for note in notes(evaluation)]
    for prompt, answers in evaluation.answers():
        parts += [Text(), Text.assemble(("you     ", "bold"), visible(prompt))]
        for name, reply in answers:
            grid = Table.grid(padding=(0, 0))
            style = "bold cyan" if name == "after" else "bold"
            grid.add_row(Text(f"{name:<8}", style=style), Text(visible(_one_line(reply))))
            parts.append(grid)
    return Group(*parts)


def tables(evaluation: Evaluation, *, narrow: bool = False) -> Iterator[Rows]:
    """Every table that there is something for: a header, then rows; `narrow` fits a terminal of 80 columns."""
    for kind in ("corpus", "language", "depth"):
        rows = perplexity_table(evaluation, kind, narrow=narrow)
        if len(rows) > 1:
            yield rows
    for rows in (texts_table(evaluation), tasks_table(evaluation), statistics_table(evaluation)):
        if rows:
            yield rows


def perplexity_table(evaluation: Evaluation, kind: Kind, *, narrow: bool = False) -> Rows:
    """Figures by corpus, language or depth; what says no more than the first table is left out."""
    figures = {
        name: {each.name: each for each in measurement.perplexities if each.kind == kind}
        for name, measurement in evaluation.measured
    }
    last = figures[evaluation.measured[-1][0]]
    has_change = bool(evaluation.changes)
    header = [_HEADS[kind], *figures, *(["change"] if has_change else []), "95% interval"]
    header += ["bits/byte", "conv."] if narrow else [*(["p"] if has_change else []), "bits/byte", "tokens"]
    header += [] if narrow else ["answers", "conversations"]
    rows = [header]
    for name in _names(kind, last):
        change = evaluation.changes.get((kind, name))
        each = last[name]
        rows.append(
            [
                name,
                *(f"{of[name].value:.2f}" for of in figures.values()),
                *([percent(change.value)] if change else []),
                interval(change) if change else f"{each.low:.2f} to {each.high:.2f}",
                *([p_value(change.p)] if change and not narrow else []),
                f"{each.bits_per_byte:.3f}",
                *([] if narrow else [f"{each.tokens:,}", f"{each.answers:,}"]),
                f"{each.conversations:,}",
            ]
        )
    return rows


def texts_table(evaluation: Evaluation) -> Rows:
    """Bits per byte and perplexity of running texts."""
    if not evaluation.measured[0][1].texts:
        return []
    rows = [["text", *(f"bits/byte {name}" for name, _ in evaluation.measured), "perplexity", "tokens"]]
    for place, text in enumerate(evaluation.measured[0][1].texts):
        records = [each.texts[place].record() for _, each in evaluation.measured]
        bits = [f"{record['bits_per_byte']:.3f}" for record in records]
        rows.append([text.url, *bits, f"{records[-1]['perplexity']:.2f}", f"{records[-1]['tokens']:,}"])
    return rows


def tasks_table(evaluation: Evaluation) -> Rows:
    """Scores of benchmark tasks."""
    if not evaluation.tasks:
        return []
    names = list(dict.fromkeys(name for name, _ in evaluation.tasks))
    rows = [["task", "metric", *names, "examples"]]
    scores = {(name, score.task, score.metric): score for name, score in evaluation.tasks}
    for task, metric in dict.fromkeys((score.task, score.metric) for _, score in evaluation.tasks):
        of_models = [scores.get((name, task, metric)) for name in names]
        cells = ["–" if each is None else _with_error(each.value, each.standard_error) for each in of_models]
        rows.append([task, metric, *cells, str(max(each.examples for each in of_models if each))])
    return rows


def statistics_table(evaluation: Evaluation) -> Rows:
    """What the sample answers are like."""
    found = [(name, each.sample_statistics) for name, each in evaluation.measured]
    counted = [(name, each) for name, each in found if each is not None]
    if not counted:
        return []
    rows = [["sample answers", *(name for name, _ in counted)]]
    for field in fields(SampleStatistics):
        values = [getattr(each, field.name) for _, each in counted]
        shown = [f"{value:.0%}" if field.name in _SHARES else f"{value:g}" for value in (round(v, 3) for v in values)]
        rows.append([field.name.replace("_", " "), *shown])
    return rows


def notes(evaluation: Evaluation) -> list[str]:
    """What the tables rest on, in sentences."""
    interval_of = "change" if evaluation.changes else "perplexity"
    last = evaluation.measured[-1][1]
    everything = last.perplexities[0]
    told = [
        f"The interval is that of the {interval_of}, over {everything.conversations:,} conversations (or parts of long "
        "ones that were cut); perplexity is per token of the assistant's answers "
        f"({everything.tokens:,} of them), and bits/byte is that of "
        f"{evaluation.measured[-1][0]}."
    ]
    if any(each.conversations < _FEW for each in last.perplexities):
        told.append(f"Intervals of fewer than {_FEW} conversations are too narrow.")
    if evaluation.against:
        told.append(f"before is {evaluation.against}.")
    if change := evaluation.changes.get(("corpus", ALL)):
        told.append(f"Paired test of the change over all conversations: {p_value(change.p, prefix='p ')}.")
    errors = ", ".join(f"{each.calibration.error:.3f} {name}" for name, each in evaluation.measured)
    told.append(f"Expected calibration error of the next token: {errors}.")
    if last.texts:
        told.append(
            f"Texts are read in windows of {last.subject.context} tokens, each adding {last.subject.stride} to what "
            "was scored."
        )
    if evaluation.judgement is not None:
        told.append(judgement_note(evaluation))
    if evaluation.trained is not None:
        trained = evaluation.trained
        told.append(
            f"Trained for {trained.steps:,} steps on {trained.tokens:,} tokens ({trained.supervised_tokens:,} "
            f"supervised) in {duration(trained.seconds)}."
        )
    return told


def judgement_note(evaluation: Evaluation) -> str:
    """What the judge said, in a sentence."""
    assert evaluation.judgement is not None
    record = evaluation.judgement.record()
    counted = ", ".join(
        f"{record[name]} {name}" for name in ("wins", "losses", "ties", "contradictions", "failures") if record[name]
    )
    if record["win_rate"] is None:
        return f"{record['judge_model']} gave no verdict that counts ({counted})."
    return (
        f"{record['judge_model']} as the judge: after wins {record['win_rate']:.0%} "
        f"(95% interval {record['low']:.0%} to {record['high']:.0%}; {counted})."
    )


def markdown_table(rows: Rows) -> list[str]:
    """The lines of a table; what strangers wrote ends no cell."""
    header, *others = rows
    return [_markdown_row(header), _markdown_row(["---"] * len(header)), *map(_markdown_row, others)]


def percent(share: float) -> str:
    return f"{100 * share:+.1f}%"


def interval(change: Change) -> str:
    return f"{percent(change.low)} to {percent(change.high)}"


def p_value(p: float, *, prefix: str = "") -> str:
    """A chance in three digits; `prefix` is put before it with the sign."""
    if p < 0.001:
        return f"{prefix}< 0.001"
    return f"{prefix}= {p:.3f}" if prefix else f"{p:.3f}"


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _names(kind: Kind, figures: dict[str, Perplexity]) -> list[str]:
    """The rows of a table: no row of all corpora where there is one, no languages where none is known."""
    if kind == "corpus":
        return [name for name in figures if name != ALL or len(figures) > 2]
    return [] if len(figures) == 1 or set(figures) == {UNKNOWN} else list(figures)


def _with_error(value: float, error: float | None) -> str:
    return f"{value:.4f}" if error is None else f"{value:.4f} ± {error:.4f}"


def _markdown_row(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("\n", " ").replace("|", "\\|") for cell in cells) + " |"


def _one_line(reply: str) -> str:
    return " ".join(reply.split()) or "(nothing)"
