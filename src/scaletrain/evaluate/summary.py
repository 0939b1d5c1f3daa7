"""An evaluation as a person reads it (a table, answers side by side), as Markdown, and as plain data for scripts."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from scaletrain.evaluate.measurement import Measurement
from scaletrain.evaluate.perplexity import ALL, Change, changes
from scaletrain.evaluate.samples import Sample

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True)
class Trained:
    """What the training behind a checkpoint came to; `seconds` is the sum of its steps."""

    steps: int
    samples: int
    tokens: int
    supervised_tokens: int
    seconds: float


@dataclass(frozen=True)
class Evaluation:
    """A run's model before training, after it, or both; `trained` says what lies between them."""

    run: str
    dataset_id: str
    before: Measurement | None
    after: Measurement | None
    trained: Trained | None

    def record(self) -> dict[str, object]:
        """The figures and answers, without the losses of single documents."""
        return {
            "run": self.run,
            "dataset_id": self.dataset_id,
            "trained": None if self.trained is None else asdict(self.trained),
            "before": None if self.before is None else _measurement_record(self.before),
            "after": None if self.after is None else _measurement_record(self.after),
            "change": {name: asdict(change) for name, change in self._changes().items()},
        }

    def markdown(self) -> str:
        """The table and the answers as a page."""
        header, *rows = self._table()
        lines = [
            f"# Evaluation of {self.run}",
            "",
            *self._notes(),
            "",
            _markdown_row(header),
            _markdown_row(["---"] * len(header)),
            *(_markdown_row(row) for row in rows),
        ]
        for prompt, answers in self._answers():
            lines += ["", f"> {prompt}", "", *(f"- **{label}**: {answer}" for label, answer in answers)]
        return "\n".join(lines) + "\n"

    def display(self) -> "RenderableType":
        """The same for the terminal."""
        from rich.console import Group
        from rich.padding import Padding
        from rich.table import Table
        from rich.text import Text

        header, *rows = self._table()
        table = Table(title=f"{self.run}: perplexity on held-out conversations", title_justify="left")
        for name in header:
            table.add_column(name, justify="left" if name == "corpus" else "right")
        for row in rows:
            table.add_row(*row)
        parts: list[RenderableType] = [table, *(Text(note, style="dim") for note in self._notes())]
        for prompt, answers in self._answers():
            parts += [Text(), Text.assemble(("you     ", "bold"), prompt)]
            for label, answer in answers:
                grid = Table.grid(padding=(0, 0))
                grid.add_row(Text(f"{label:<8}", style="bold cyan" if label == "after" else "bold"), Text(answer))
                parts.append(Padding(grid, 0))
        return Group(*parts)

    def _changes(self) -> dict[str, Change]:
        return changes(self.before.losses, self.after.losses) if self.before and self.after else {}

    def _table(self) -> Iterator[list[str]]:
        """The header and the rows; the row of all corpora is left out where there is only one."""
        before = {} if self.before is None else {each.corpus: each for each in self.before.perplexities}
        after = {} if self.after is None else {each.corpus: each for each in self.after.perplexities}
        change = self._changes()
        columns = [name for name, figures in (("before", before), ("after", after), ("change", change)) if figures]
        yield ["corpus", *columns, "95% interval", "tokens", "documents"]
        some = before or after
        for name in [name for name in some if name != ALL or len(some) > 2]:
            yield [
                name,
                *(f"{figures[name].value:.2f}" for figures in (before, after) if figures),
                *([_percent(change[name].value)] if change else []),
                _interval(change[name]) if change else f"{some[name].low:.2f} to {some[name].high:.2f}",
                f"{some[name].tokens:,}",
                f"{some[name].documents:,}",
            ]

    def _notes(self) -> list[str]:
        interval_of = "change" if self._changes() else "perplexity"
        notes = [f"The interval is that of the {interval_of}, over documents; tokens are supervised ones."]
        if self.trained is not None:
            trained = self.trained
            notes.append(
                f"Trained for {trained.steps:,} steps on {trained.tokens:,} tokens ({trained.supervised_tokens:,} "
                f"supervised) in {_duration(trained.seconds)}."
            )
        return notes

    def _answers(self) -> Iterator[tuple[str, list[tuple[str, str]]]]:
        """Each prompt with the answers to it."""
        measured = [(label, each) for label, each in (("before", self.before), ("after", self.after)) if each]
        for position, sample in enumerate(measured[0][1].samples):
            yield sample.prompt, [(label, _one_line(each.samples[position])) for label, each in measured]


def _measurement_record(measurement: Measurement) -> dict[str, object]:
    return {
        "step": measurement.subject.step,
        "model": measurement.subject.model,
        "precision": measurement.subject.precision,
        "device": measurement.device,
        "seconds": measurement.seconds,
        "perplexities": [perplexity.record() for perplexity in measurement.perplexities],
        "samples": [asdict(sample) for sample in measurement.samples],
    }


def _markdown_row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _percent(share: float) -> str:
    return f"{100 * share:+.1f}%"


def _interval(change: Change) -> str:
    return f"{_percent(change.low)} to {_percent(change.high)}"


def _one_line(sample: Sample) -> str:
    return " ".join(sample.reply.split()) or "(nothing)"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
