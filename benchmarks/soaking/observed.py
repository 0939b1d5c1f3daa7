"""What an arm left behind, read from its bucket and its logs: the same records for scaletrain and for its peer."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Line:
    """One step that was trained, done at `time` (seconds since 1970); `step_s` is without saving.

    `samples` are those that are known of it: for the peer its rank 0's, for scaletrain none (its ledger has them all).
    """

    time: float
    attempt: int
    step: int
    step_s: float
    workers: int
    samples: tuple[int, ...] = ()


@dataclass(frozen=True)
class Commit:
    """A checkpoint that was seen to be committed."""

    time: float
    attempt: int
    step: int


@dataclass(frozen=True)
class Resume:
    """A start of the loop from the commit of `step` (0: from nothing).

    What was committed before `decided` had to be found; `whole` is whether every byte of the checkpoint fitted its
    checksums, None where it has none.
    """

    time: float
    decided: float
    attempt: int
    step: int
    whole: bool | None


@dataclass(frozen=True)
class Flip:
    """A bit of a committed checkpoint that was flipped."""

    time: float
    step: int


@dataclass(frozen=True)
class End:
    """A command that ended by itself, and had to be started again: with what code, and what it said last."""

    time: float
    exit_code: int
    said: str


@dataclass
class Observed:
    """Everything of one arm in one part of a sitting, in the order of time."""

    lines: list[Line] = field(default_factory=list)
    commits: list[Commit] = field(default_factory=list)
    resumes: list[Resume] = field(default_factory=list)
    flips: list[Flip] = field(default_factory=list)
    ends: list[End] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def observed_of(record: Mapping[str, Any]) -> Observed:
    """Read what `record` wrote."""
    return Observed(
        lines=[Line(**{**each, "samples": tuple(each["samples"])}) for each in record["lines"]],
        commits=[Commit(**each) for each in record["commits"]],
        resumes=[Resume(**each) for each in record["resumes"]],
        flips=[Flip(**each) for each in record["flips"]],
        ends=[End(**each) for each in record["ends"]],
    )
