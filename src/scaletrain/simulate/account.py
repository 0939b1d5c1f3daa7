"""What a simulated run has come to: its newest commit, its attempts, and where its time went.

As in goodput, time is one line that is cut wherever something else begins, so that its parts add up to the whole.
"""

from scaletrain.simulate.machines import Machines
from scaletrain.simulate.setting import Attempt, Outcome, Parts


class Account:
    """`step` is the newest commit; the rest is what Outcome tells."""

    def __init__(self, machines: Machines) -> None:
        self._machines = machines
        self._parts: dict[str, float] = {}
        self._accounted_s = 0.0
        self._attempts: list[Attempt] = []
        self._losses = self._saved_in_time = self._growths = self._lost_steps = 0
        self.step, self.commands = 0, 1

    def spend(self, part: str, until_s: float | None = None) -> None:
        """Put the time since the last call, up to now or `until_s`, down to a part."""
        until_s = self._machines.now_s if until_s is None else max(self._accounted_s, until_s)
        self._parts[part] = self._parts.get(part, 0.0) + until_s - self._accounted_s
        self._accounted_s = until_s

    def end(
        self, *, began_s: float, workers: int, resumed_from: int, steps_done: int, committed: int, why: str
    ) -> None:
        """Note the end of an attempt."""
        self.step = committed
        self._attempts.append(Attempt(began_s, workers, resumed_from, steps_done, committed, self._machines.now_s, why))
        self._growths += why == "grew"
        self._saved_in_time += why == "left"
        self._losses += why.startswith("lost")
        self._lost_steps += resumed_from + steps_done - committed

    def outcome(self, *, steps: int) -> Outcome:
        """The whole."""
        return Outcome(
            finished=self.step >= steps,
            wall_s=self._machines.now_s,
            usd=self._machines.usd,
            parts=Parts(**{f"{name}_s": seconds for name, seconds in self._parts.items()}),
            attempts=tuple(self._attempts),
            losses=self._losses,
            saved_in_time=self._saved_in_time,
            growths=self._growths,
            commands=self.commands,
            lost_steps=self._lost_steps,
        )
