"""Python's collection of cyclic garbage, out of the way of training steps.

A collection looks at every object there is, 660,000 after torch, transformers and DeepSpeed are imported: tens of
milliseconds at an arbitrary moment of a step, on an arbitrary rank, while all others wait for that one. So modules are
set aside before an attempt starts, what its start made before the first step, and steps collect when all ranks do.
"""

import gc
from types import TracebackType

_EVERY_STEPS = 50


class Garbage:
    """Within this context what was there before is never looked at, and once steps begin, they are not interrupted.

    Until `steps_begin` Python collects by itself; from then on at the ends of every fiftieth step alone.
    """

    def __init__(self) -> None:
        self._steps = 0

    def __enter__(self) -> "Garbage":
        gc.freeze()
        gc.enable()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        gc.unfreeze()
        gc.enable()

    def steps_begin(self) -> None:
        """Collect what the start has left, and set the rest aside."""
        gc.collect()
        gc.freeze()
        gc.disable()

    def step_ended(self) -> None:
        """Count a step, and collect if it is time to."""
        self._steps += 1
        if self._steps % _EVERY_STEPS == 0:
            gc.collect()
