"""What an attempt that nothing disturbs would do, at what time: its steps, saves and commits, in closed form.

So an attempt of a million steps costs as much to simulate as one of ten. A save keeps training from going on for its
stall; its upload goes on beside the steps, and the next save waits for it.
"""

import math
from dataclasses import dataclass

from scaletrain import policy


@dataclass(frozen=True, slots=True)
class Timeline:
    """From `start_s`, when the attempt goes on from the commit of `first_step` and makes steps of `step_s` each.

    `stall_s` is what a save keeps the steps from, `upload_s` what follows until its commit.
    """

    start_s: float
    first_step: int
    every_steps: int
    step_s: float
    stall_s: float
    upload_s: float

    @property
    def first_save_s(self) -> float:
        """When the first save begins."""
        first = policy.next_save_step(self.first_step, every_steps=self.every_steps)
        return self.start_s + (first - self.first_step) * self.step_s

    @property
    def cycle_s(self) -> float:
        """From the beginning of a save to that of the next one."""
        return self.stall_s + max(self.every_steps * self.step_s, self.upload_s)

    def end_of_step(self, step: int) -> float:
        """When a step is done, before it is saved; of `first_step` itself, when the attempt goes on from it."""
        save = self._saves_before(step)
        if save == 0:
            return self.start_s + (step - self.first_step) * self.step_s
        saved = (step - 1) // self.every_steps * self.every_steps
        return self._begin_of_save(save) + self.stall_s + (step - saved) * self.step_s

    def steps_at(self, time_s: float) -> int:
        """The newest step that is done at a time."""
        since_s = time_s - self.first_save_s
        if since_s < 0:
            step = self.first_step + int((time_s - self.start_s) / self.step_s)
        else:
            save = int(since_s / self.cycle_s) + 1
            own_s = max(0.0, time_s - self._begin_of_save(save) - self.stall_s)
            step = self._saved_step(save) + min(int(own_s / self.step_s), self.every_steps)
        while self.end_of_step(step + 1) <= time_s:  # what rounding has cut off
            step += 1
        while step > self.first_step and self.end_of_step(step) > time_s:
            step -= 1
        return step

    def committed_at(self, time_s: float, *, before_step: float = math.inf) -> int:
        """The newest step that is committed at a time, by a save of a step before `before_step`."""
        save = int((time_s - self.first_save_s - self.stall_s - self.upload_s) / self.cycle_s + 1 + 1e-12)
        if before_step < math.inf:
            save = min(save, self._saves_before(int(before_step)))
        return self._saved_step(save) if save > 0 else self.first_step

    def under_way_until(self, step: int) -> tuple[float, float]:
        """Of the last save before `step` ends: when its stall was over and when it commits; long ago without any."""
        save = self._saves_before(step)
        if save == 0:
            return -math.inf, -math.inf
        stored_s = self._begin_of_save(save) + self.stall_s
        return stored_s, stored_s + self.upload_s

    def _saves_before(self, step: int) -> int:
        """How many steps of this attempt before `step` are saved."""
        return max(0, (step - 1) // self.every_steps - self.first_step // self.every_steps)

    def _saved_step(self, save: int) -> int:
        return (self.first_step // self.every_steps + save) * self.every_steps

    def _begin_of_save(self, save: int) -> float:
        return self.first_save_s + (save - 1) * self.cycle_s
