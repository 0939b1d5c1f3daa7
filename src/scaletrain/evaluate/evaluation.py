"""An evaluation: a run's model before training (or another model), after it, or both; as plain data for scripts."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property

from scaletrain.evaluate.answers import Kind
from scaletrain.evaluate.curve import Curve
from scaletrain.evaluate.judging import Judgement
from scaletrain.evaluate.measurement import Measurement
from scaletrain.evaluate.perplexity import Change, changes
from scaletrain.evaluate.tasks import TaskScore


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
    """`before` is the model that training starts from, or the one that was named to compare with.

    `trained` says what led to `after`; `tasks` are the scores of both, by "before" and "after".
    """

    run: str
    dataset_id: str
    before: Measurement | None
    after: Measurement | None
    trained: Trained | None
    curve: Curve | None = None
    tasks: tuple[tuple[str, TaskScore], ...] = ()
    judgement: Judgement | None = None

    @cached_property
    def measured(self) -> tuple[tuple[str, Measurement], ...]:
        """What was measured, by the name that tables give it."""
        return tuple((name, each) for name, each in (("before", self.before), ("after", self.after)) if each)

    @property
    def against(self) -> str:
        """The run and step that `before` is of, where it is not what this run started from."""
        if self.before is None or not (self.before.subject.run or self.before.subject.step):
            return ""
        subject = self.before.subject
        return f"{subject.run or self.run}@{subject.step}"

    @cached_property
    def changes(self) -> dict[tuple[Kind, str], Change]:
        return changes(self.before.answers, self.after.answers) if self.before and self.after else {}

    def answers(self) -> Iterator[tuple[str, list[tuple[str, str]]]]:
        """Each prompt with the answers to it."""
        for position, sample in enumerate(self.measured[0][1].samples):
            yield sample.prompt, [(name, each.samples[position].reply) for name, each in self.measured]

    def record(self) -> dict[str, object]:
        """The figures and answers, without the losses of single answers."""
        return {
            "run": self.run,
            "dataset_id": self.dataset_id,
            "against": self.against or None,
            "trained": None if self.trained is None else asdict(self.trained),
            "before": None if self.before is None else _record(self.before),
            "after": None if self.after is None else _record(self.after),
            "change": self._changes_of("corpus"),
            "change_by_language": self._changes_of("language"),
            "change_by_depth": self._changes_of("depth"),
            "curve": None if self.curve is None else asdict(self.curve),
            "tasks": [{"model": name, **asdict(score)} for name, score in self.tasks],
            "judgement": None if self.judgement is None else self.judgement.record(),
        }

    def _changes_of(self, kind: Kind) -> dict[str, object]:
        return {name: asdict(change) for (of, name), change in self.changes.items() if of == kind}


def _record(measurement: Measurement) -> dict[str, object]:
    subject = measurement.subject
    about = {"run": subject.run, "step": subject.step, "model": subject.model, "precision": subject.precision}
    return {**about, "device": measurement.device, "seconds": measurement.seconds, **measurement.record()}
