"""A result as one HTML page that needs nothing else; pictures as SVG, light and dark."""

from collections.abc import Sequence
from html import escape

from scaletrain.judge.result import Result, Score
from scaletrain.judge.summary import Table, remarks, tables
from scaletrain.page import page, section, table, tiles
from scaletrain.page.ranges import Ranged, ranges


def result_page(result: Result) -> bytes:
    """The page; what people and models are called is escaped."""
    numbers = (
        (f"{result.votes:,}", "votes"),
        (f"{result.pairs_judged:,}", f"of {result.pairs:,} pairs of answers judged"),
        (f"{len(result.judges):,}", "judges" if len(result.judges) != 1 else "judge"),
        ("–" if result.alpha_ordinal is None else f"{result.alpha_ordinal.value:.2f}", "agreement (alpha, ordinal)"),
    )
    verdicts = "".join(f'<p class="decision">{escape(verdict)}</p>' for verdict in result.verdicts)
    title = " or ".join(result.models)
    warnings = "".join(f'<div class="warning">{escape(remark)}</div>' for remark in remarks(result)[1:])
    head = f'<h1>{escape(title)}</h1>{verdicts}<div class="tiles">{tiles(numbers)}</div>{warnings}'
    sections = [_card(each, _scores(result.scores) if each.title == "Scores" else "") for each in tables(result)]
    footer = "Written by <code>scaletrain judge result</code>; <code>--json</code> gives the same numbers."
    return page(title, [head, *sections], footer=footer, charts=True)


def _scores(scores: Sequence[Score]) -> str:
    """Each model's score as a dot on its interval; the thin line is the interval with other judges."""
    return ranges([_ranged(each) for each in scores], name="scores with intervals")


def _ranged(score: Score) -> Ranged:
    own, anew = score.score, score.judges_anew
    told = f"{score.model}: {own.value:.0f}\n95% interval: {own.low:.0f} to {own.high:.0f}"
    wide = None
    if anew is not None:
        told, wide = f"{told}\nhad other judges voted: {anew.low:.0f} to {anew.high:.0f}", (anew.low, anew.high)
    return Ranged(score.model, own.value, (own.low, own.high), wide, told)


def _card(shown: Table, picture: str) -> str:
    last = len(shown.heads) - 1
    texts = (0, last) if shown.title == "Judges" else (0,)
    rows = [[escape(cell) for cell in row] for row in shown.rows]
    note = f'<p class="dim small">{escape(shown.note)}</p>' if shown.note else ""
    return section(escape(shown.title), "", picture + table(shown.heads, rows, texts=texts) + note)
