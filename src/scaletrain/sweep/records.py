"""What a sweep leaves in the bucket: its configuration, a record of each trial, the best configuration, a report.

    sweeps/<name>/sweep.yaml            the configuration that it was begun with
    sweeps/<name>/trials/0003.json      a trial: its values, its state, its curve, the runs it is made of
    sweeps/<name>/attempts/             the commands that have worked on it, as a run's attempts
    sweeps/<name>/machines/             what machines each command saw, where an autoscaler brings them (see machines)
    sweeps/<name>/best.yaml             the best trial's configuration, as `train` takes it
    sweeps/<name>/report.html           for people; results.json and results.md have the same numbers

These files are all that a sweep knows. Which values come next and who is stopped are functions of them, so the same
command goes on after the loss of any machine, from another one too. Only the sweep's own process writes them.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import orjson

from scaletrain import storage
from scaletrain.attempts import read_attempts, read_signs
from scaletrain.layout import RunLayout
from scaletrain.storage.parallel import in_parallel

State = Literal["waiting", "running", "finished", "stopped", "failed"]
Order = Literal["", "stop", "leave", "clone"]
_READERS = 16
_OVER: tuple[State, ...] = ("finished", "stopped", "failed")


@dataclass(frozen=True)
class Stretch:
    """One run of a trial: the first from nothing, each later one a clone of another run's committed step.

    `manifest_hash` is the donor's manifest's own hash, which covers the checksums of every file that was cloned.
    """

    run: str
    parameters: Mapping[str, Any]
    donor: str = ""
    step: int = 0
    manifest_hash: str = ""


@dataclass(frozen=True)
class Facts:
    """What the newest line of metrics said of a trial's run; `cost_usd` is None where prices are not known."""

    step: int = 0
    total_steps: int = 0
    step_s: float = 0.0
    tokens_per_s: float = 0.0
    world_size: int = 0
    cost_usd: float | None = None


@dataclass(frozen=True)
class TrialRecord:
    """One trial as the bucket has it.

    `curve` has the metric by step, and belongs to the newest of `stretches`, with what its donor did before. `order` is
    what the trial's process is asked to do: stop for good, leave (to go on another time), or go on as the clone `next`.
    `compared` is the step at which pbt has compared it last; `reason` says why it was stopped or failed; `seconds`
    counts the time in which it trained, or waited for workers. `cost_before_usd` is what the runs before this one cost,
    less what of the newest one's cost is its donor's. `most_workers` is how many workers it may have while it is at
    work, None where the trials do not share any.
    """

    number: int
    stretches: tuple[Stretch, ...]
    state: State = "waiting"
    order: Order = ""
    next: Stretch | None = None
    curve: tuple[tuple[int, float], ...] = ()
    facts: Facts = Facts()
    reason: str = ""
    failures: int = 0
    compared: int = 0
    seconds: float = 0.0
    cost_before_usd: float = 0.0
    most_workers: int | None = None

    @property
    def run(self) -> str:
        """The name of the run that it is now."""
        return self.stretches[-1].run

    @property
    def parameters(self) -> Mapping[str, Any]:
        return self.stretches[-1].parameters

    @property
    def is_over(self) -> bool:
        return self.state in _OVER

    @property
    def has_begun(self) -> bool:
        """Whether any step of it is known."""
        return bool(self.curve or self.facts.step)

    @property
    def value(self) -> float | None:
        """The metric at the end of the curve."""
        return self.curve[-1][1] if self.curve else None

    @property
    def cost_usd(self) -> float | None:
        """What the trial cost so far; None where prices are not known."""
        return None if self.facts.cost_usd is None else self.cost_before_usd + self.facts.cost_usd

    def with_points(self, points: Mapping[int, float]) -> "TrialRecord":
        """The record with points added; a step that was done again counts as it was last."""
        return replace(self, curve=tuple(sorted({**dict(self.curve), **points}.items())))


@dataclass(frozen=True)
class SweepLayout(RunLayout):
    """The URLs of one sweep. Commands take turns at it by `attempts`, as they do at a run."""

    @property
    def url(self) -> str:
        return storage.join(self.root, "sweeps", self.name)

    @property
    def config(self) -> str:
        return storage.join(self.url, "sweep.yaml")

    @property
    def trials(self) -> str:
        return storage.join(self.url, "trials")

    @property
    def machines_folder(self) -> str:
        return storage.join(self.url, "machines")

    def machines(self, attempt: int) -> str:
        return storage.join(self.machines_folder, f"attempt-{attempt:04d}.jsonl")

    @property
    def best(self) -> str:
        return storage.join(self.url, "best.yaml")

    @property
    def report(self) -> str:
        return storage.join(self.url, "report.html")

    def results(self, kind: Literal["json", "md"]) -> str:
        return storage.join(self.url, f"results.{kind}")

    def trial(self, number: int) -> str:
        return storage.join(self.trials, f"{number:04d}.json")


def run_name(sweep: str, number: int, stretch: int = 0) -> str:
    """The name of a trial's run; each clone is a run of its own."""
    return f"{sweep}.{number:04d}" + (f".clone-{stretch}" if stretch else "")


def write_trial(layout: SweepLayout, record: TrialRecord) -> None:
    """Write a trial's record in place of the one before."""
    storage.write_bytes(layout.trial(record.number), orjson.dumps(asdict(record), option=orjson.OPT_INDENT_2))


def read_trial(layout: SweepLayout, number: int) -> TrialRecord:
    """Read a trial's record; raises NotFoundError."""
    return _parsed(storage.read_bytes(layout.trial(number)))


def read_trials(layout: SweepLayout) -> dict[int, TrialRecord]:
    """Every trial of a sweep, by number."""
    urls = [info.url for info in storage.list_objects(layout.trials) if info.url.endswith(".json")]
    found = [_parsed(content) for content in in_parallel(storage.read_bytes, urls, max_workers=_READERS)]
    return {record.number: record for record in sorted(found, key=lambda each: each.number)}


def read_seconds(layout: SweepLayout) -> float:
    """How long commands have worked on a sweep, by their signs of life."""
    signs = read_signs(layout, read_attempts(layout)).values()
    ends = [max(filter(None, (each.claimed, each.heartbeat, each.ended)), default=0.0) for each in signs]
    return sum(end - (each.claimed or end) for each, end in zip(signs, ends, strict=True))


def _parsed(content: bytes) -> TrialRecord:
    raw: dict[str, Any] = orjson.loads(content)
    return TrialRecord(
        **{
            **raw,
            "stretches": tuple(Stretch(**each) for each in raw["stretches"]),
            "next": Stretch(**raw["next"]) if raw["next"] else None,
            "curve": tuple((int(step), float(value)) for step, value in raw["curve"]),
            "facts": Facts(**raw["facts"]),
        }
    )
