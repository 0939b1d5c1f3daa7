"""Python's collection of cyclic garbage, out of the way of training steps.

A collection looks at every object there is, hundreds of thousands after torch, transformers and DeepSpeed are imported:
tens of milliseconds at an arbitrary moment of a step, on an arbitrary rank, while all others wait for that one.
"""

import gc
from types import TracebackType

_EVERY_STEPS = 50


class Garbage:
    """Within this context, garbage is collected at the ends of every fiftieth step alone, on all ranks at once."""

    def __init__(self) -> None:
        self._steps = 0
        self._was_enabled = gc.isenabled()

    def __enter__(self) -> "Garbage":
        gc.collect()
        gc.freeze()  # what is there now stays: later collections need not look at it
        gc.disable()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        gc.unfreeze()
        if self._was_enabled:
            gc.enable()

    def step_ended(self) -> None:
        """Count a step, and collect if it is time to."""
        self._steps += 1
        if self._steps % _EVERY_STEPS == 0:
            gc.collect()
