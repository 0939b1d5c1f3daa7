"""A result as a person reads it: tables in the terminal and in Markdown."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scaletrain.judge.bradley_terry import Interval
from scaletrain.judge.result import Result, about
from scaletrain.judge.suspicion import ERROR as FLAG_ERROR
from scaletrain.judge.suspicion import JudgeReport

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True)
class Table:
    """A table with what it says above and below it; the first column is text, the others numbers."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str


def tables(result: Result) -> list[Table]:
    """Everything that is a table, those with nothing in them left out."""
    found = (
        _win_rates(result), _scores(result), _decisions(result), _agreement(result), _judges(result), _reasons(result),
        _thumbs(result),
    )  # fmt: skip
    return [table for table in found if table.rows]


def remarks(result: Result) -> list[str]:
    """What has to be known to read the tables, one sentence each."""
    found = [f"{result.votes:,} votes on {result.pairs_judged:,} of {result.pairs:,} pairs of answers."]
    if result.equal_answers:
        found.append(
            f"{result.equal_answers:,} pairs are not judged since both answers are the same; they count nowhere."
        )
    if result.votes_elsewhere:
        found.append(f"{result.votes_elsewhere:,} votes in the database are on other answers and left out.")
    if result.left_out_judges:
        found.append(f"The votes of {', '.join(result.left_out_judges)} are left out, as was asked.")
    if suspicious := [report.judge for report in result.judges if report.flags]:
        found.append(f"Look at {', '.join(suspicious)} below; --leave-out NAME shows the result without them.")
    return found


def markdown(result: Result) -> str:
    """The whole result as Markdown."""
    lines = [
        f"# {' or '.join(result.models)}",
        "",
        *_spaced(f"**{verdict}**" for verdict in result.verdicts),
        *_spaced(remarks(result)),
    ]
    for table in tables(result):
        lines += [f"## {table.title}", "", _row(table.heads), _row(["---", *["---:"] * (len(table.heads) - 1)])]
        lines += [*map(_row, table.rows), "", table.note, ""]
    return "\n".join(lines).rstrip() + "\n"


def display(result: Result) -> "RenderableType":
    """The same for the terminal."""
    from rich.console import Group
    from rich.table import Table as RichTable
    from rich.text import Text

    from scaletrain.log import visible

    parts: list[RenderableType] = [Text(visible(verdict), style="bold") for verdict in result.verdicts]
    parts += [Text(visible(remark), style="dim") for remark in remarks(result)]
    for table in tables(result):
        shown = RichTable(title=table.title, title_justify="left", title_style="bold")
        for place, head in enumerate(table.heads):
            shown.add_column(head, justify="right" if place else "left", overflow="fold")
        for row in table.rows:
            shown.add_row(*(Text(visible(cell)) for cell in row))
        parts += [Text(), shown, *([Text(table.note, style="dim")] if table.note else [])]
    return Group(*parts)


def percent(interval: Interval) -> str:
    """A share with its interval."""
    return f"{interval.value:.1%} ({interval.low:.1%} to {interval.high:.1%})"


def judge_note(report: JudgeReport) -> str:
    """What is suspicious about a judge, or a dash."""
    return "; ".join(report.flags) or "–"


def _win_rates(result: Result) -> Table:
    rows = tuple(
        (
            f"{each.first} over {each.second}",
            percent(each.rate),
            f"{each.wins:,}",
            f"{each.ties:,}",
            f"{each.losses:,}",
            f"{each.both_bad:,}",
            f"{each.pairs:,}",
        )
        for each in result.win_rates
    )
    heads = ("Win rate", "95% interval", "better", "tie", "worse", "both bad", "pairs")
    note = (
        "Ties and both bad are half a win. Each pair of answers counts once, however many judged it; the interval is "
        "Wilson's."
    )
    return Table("Who is preferred", heads, rows, note)


def _scores(result: Result) -> Table:
    def shown(interval: Interval | None) -> str:
        return "–" if interval is None else f"{interval.low:,.0f} to {interval.high:,.0f}"

    rows = tuple(
        (each.model, f"{each.score.value:,.0f}", shown(each.score), shown(each.judges_anew)) for each in result.scores
    )
    note = (
        "Bradley-Terry on Elo's scale: the average is 1000, and 400 points more are preferred ten to one. The first "
        "interval is for other prompts and the same judges, the second for other judges too (from five judges on)."
    )
    return Table("Scores", ("Model", "score", "95% interval", "with other judges"), rows, note)


def _decisions(result: Result) -> Table:
    rows = []
    for each in result.decisions:
        state = f"{each.winner} is better" if each.winner else "not yet"
        more = "more than 5,000" if each.more_votes is None else f"about {about(each.more_votes)}"
        interval = f"{each.low:.1%} to {each.high:.1%}"
        evidence = f"{each.evidence:,.2g}" if each.evidence < 1000 else "over 1,000"
        rows.append(
            (
                f"{each.first} or {each.second}",
                state,
                f"{evidence} of {each.needed:,.0f}",
                interval,
                "–" if each.winner else more,
            )
        )
    note = (
        f"You may look as often as you like and stop when it is decided: where the models are equally good, the chance "
        f"of ever deciding is at most {result.error:.0%} for all of these together. The interval is the first model's "
        "share of the votes that prefer one, and holds at every look; of each pair the earliest vote counts."
    )
    return Table(
        "Is it decided", ("Models", "decided", "evidence", "share, at any time", "more votes"), tuple(rows), note
    )


def _agreement(result: Result) -> Table:
    measured = (("as four answers (nominal)", result.alpha_nominal), ("as an order (ordinal)", result.alpha_ordinal))
    rows = tuple(
        (name, f"{each.value:.2f}", f"{each.low:.2f} to {each.high:.2f}") for name, each in measured if each is not None
    )
    note = (
        "Krippendorff's alpha: 1 is agreement, 0 what chance gives. In the order, both bad is a tie. "
        "With fewer than ten pairs judged twice the interval is too narrow."
    )
    return Table("Do the judges agree", ("Votes", "alpha", "95% interval"), rows, note)


def _judges(result: Result) -> Table:
    rows = tuple(
        (
            each.judge,
            f"{each.votes:,}",
            f"{each.left} of {each.preferring}",
            f"{each.agreed} of {each.shared}",
            f"{each.seconds:.0f} s",
            judge_note(each),
        )
        for each in result.judges
    )
    left = result.left_share
    note = (
        f"All judges together took the left answer in {percent(left)} of the votes that prefer one (chance alone: "
        f"p = {result.left_probability:.2g}). A judge who is honest is marked with a probability of at most "
        f"{FLAG_ERROR:.0%}, all judges together."
    )
    return Table("Judges", ("Judge", "votes", "left", "with most others", "median", "to look at"), rows, note)


def _reasons(result: Result) -> Table:
    names = sorted({reason for counts in result.reasons.values() for reason in counts})
    rows = tuple((model, *(f"{counts.get(name, 0):,}" for name in names)) for model, counts in result.reasons.items())
    return Table("Reasons", ("Preferred model", *names), rows, "How often each reason was given.")


def _thumbs(result: Result) -> Table:
    rows = tuple((each.model, f"{each.up:,}", f"{each.down:,}", percent(each.share_up)) for each in result.thumbs)
    note = "Given by users of the served models, who knew what they used: not blind, and not part of the above."
    return Table("Thumbs", ("Model", "up", "down", "share of up, 95% interval"), rows, note)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _spaced(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        yield line
        yield ""
