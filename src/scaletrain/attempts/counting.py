"""Which attempts there were, and up to which step each one counts: what one listing of small files tells."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from scaletrain import storage
from scaletrain.layout import RunLayout

_FILE = re.compile(r"attempt-(\d+)\.(?:json|ended|from-(\d+)|after-(\d+))$")


@dataclass(frozen=True)
class Attempts:
    """What one listing tells; `resumed_from` has the step of each attempt whose workers have begun.

    `resumed_after` has the attempt that made the commit of that step; those that an older version wrote have none.
    """

    claimed: tuple[int, ...]
    ended: tuple[int, ...]
    resumed_from: Mapping[int, int]
    resumed_after: Mapping[int, int] = field(default_factory=dict)

    @property
    def newest(self) -> int:
        """The newest attempt's number; 0 where there is none."""
        return max(self.claimed, default=0)

    def last_step_of(self, attempt: int) -> int | None:
        """The last step of an attempt that counts; None where no later attempt has gone on without the rest."""
        line = self._line()
        steps = [self.resumed_from[number] for number in line if number > attempt]
        if steps and attempt not in line and attempt in self.resumed_from:  # nothing of its own does
            steps.append(self.resumed_from[attempt])
        return min(steps, default=None)

    def counts(self, attempt: int, step: int) -> bool:
        """Whether what an attempt did up to a step is part of the run."""
        last = self.last_step_of(attempt)
        return last is None or step <= last

    def _line(self) -> list[int]:
        """The attempts that have begun and that the newest one descends from, the newest first.

        One that is left out may have begun late: after a newer one had gone on from a commit that it did not see. If
        its word counted, what that commit rests on would not.
        """
        line: list[int] = []
        newest_before = max(self.resumed_from, default=0)
        for number in sorted(self.resumed_from, reverse=True):
            if number <= newest_before:
                line.append(number)
                newest_before = self.resumed_after.get(number, number - 1)
        return line


def read_attempts(run: RunLayout) -> Attempts:
    """List the attempts of a run."""
    claimed, ended = [], []
    resumed_from, resumed_after = {}, {}
    for info in storage.list_objects(run.attempts):
        match = _FILE.search(info.url)
        if match is None:
            continue
        number = int(match[1])
        if match[2] is not None:
            resumed_from[number] = int(match[2])
        elif match[3] is not None:
            resumed_after[number] = int(match[3])
        elif info.url.endswith(".json"):
            claimed.append(number)
        else:
            ended.append(number)
    return Attempts(tuple(sorted(claimed)), tuple(sorted(ended)), resumed_from, resumed_after)
