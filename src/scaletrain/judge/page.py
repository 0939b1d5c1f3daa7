"""A result as one HTML page that needs nothing else: no network, no script; pictures as SVG, light and dark."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from scaletrain.judge.result import Result, Score
from scaletrain.judge.summary import Table, remarks, tables
from scaletrain.page import page, section, table, tiles

_WIDTH, _LABEL, _ROW, _FOOT = 900.0, 190.0, 46.0, 34.0
_LONGEST_LABEL = 24


@dataclass(frozen=True)
class _Axis:
    """Scores to places on the page; low and high are what it shows."""

    low: float
    high: float

    def x(self, score: float) -> float:
        return _LABEL + (score - self.low) / (self.high - self.low) * (_WIDTH - _LABEL - 20)

    @property
    def ticks(self) -> list[int]:
        step = next(step for step in (10, 20, 50, 100, 200, 500, 1000, 5000) if (self.high - self.low) / step <= 10)
        return [tick for tick in range(int(self.low // step) * step, int(self.high) + 1, step) if tick >= self.low]


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
    sections = [_card(each, scores_picture(result.scores) if each.title == "Scores" else "") for each in tables(result)]
    footer = "Written by <code>scaletrain judge result</code>; <code>--json</code> gives the same numbers."
    return page(title, [head, *sections], footer=footer)


def scores_picture(scores: Sequence[Score]) -> str:
    """Each model's score as a dot on its interval; the thin line is the interval with other judges."""
    if not scores:
        return ""
    intervals = [each for score in scores for each in (score.score, score.judges_anew) if each is not None]
    low, high = min(each.low for each in intervals), max(each.high for each in intervals)
    margin = max((high - low) * 0.05, 5.0)
    axis = _Axis(low - margin, high + margin)
    height = _ROW * len(scores) + _FOOT
    bottom = height - _FOOT + 6
    parts = []
    for tick in axis.ticks:
        x = axis.x(tick)
        parts.append(f'<line class="axis" x1="{x:.1f}" y1="0" x2="{x:.1f}" y2="{bottom:.1f}"/>')
        parts.append(f'<text class="dim" x="{x:.1f}" y="{height - 8:.1f}" text-anchor="middle">{tick}</text>')
    for place, each in enumerate(scores):
        y = _ROW * (place + 0.5)
        name = each.model if len(each.model) <= _LONGEST_LABEL else f"{each.model[: _LONGEST_LABEL - 1]}…"
        title = f"<title>{escape(each.model)}</title>"
        parts.append(
            f'<text class="label" x="{_LABEL - 14}" y="{y:.1f}" dy=".35em" text-anchor="end">'
            f"{escape(name)}{title}</text>"
        )
        for kind, interval in (("wide", each.judges_anew), ("narrow", each.score)):
            if interval is not None:
                x1, x2 = axis.x(interval.low), axis.x(interval.high)
                parts.append(f'<line class="{kind}" x1="{x1:.1f}" y1="{y:.1f}" x2="{x2:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<circle class="dot" cx="{axis.x(each.score.value):.1f}" cy="{y:.1f}" r="6"/>')
    return (
        f'<div class="scroll"><svg class="scores" viewBox="0 0 {_WIDTH:.0f} {height:.0f}" role="img" '
        f'aria-label="scores with intervals">'
        f"{''.join(parts)}</svg></div>"
    )


def _card(shown: Table, picture: str) -> str:
    last = len(shown.heads) - 1
    texts = (0, last) if shown.title == "Judges" else (0,)
    rows = [[escape(cell) for cell in row] for row in shown.rows]
    note = f'<p class="dim small">{escape(shown.note)}</p>' if shown.note else ""
    return section(escape(shown.title), "", picture + table(shown.heads, rows, texts=texts) + note)
