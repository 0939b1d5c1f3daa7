"""Growing: while a run trains with fewer workers than it may have, the missing ones are asked for.

The cluster's autoscaler sees the demand and brings machines; when some have come, the run is told to save and goes on
with more workers. That costs it another start. So a group first trains for as long as its own start took: where
machines come and go faster than that, the run still spends half of its time on steps. A run that is nearly over is left
alone.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence

import orjson

from scaletrain import policy
from scaletrain.log import get_logger
from scaletrain.ray_waiting import Reservation
from scaletrain.train.waiting import WorkerGroup

_LOOK_S = 2.0

log = get_logger(__name__)


class Growth:
    """Asks for the workers that a group lacks, from its first step on, and says when some are there.

    Not before: until Ray has placed the group itself, its machines must not be given to anything else. `release` gives
    back what was asked for. It is made when the attempt begins; `clock` is in seconds.
    """

    def __init__(self, group: WorkerGroup, *, last_step: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._group = group
        self._missing = group.most - group.num_workers
        self._last_step = last_step
        self._clock = clock
        self._began, self._worth_it_at = clock(), math.inf
        self._places: Reservation | None = None
        self._looked_at = 0.0
        self._there, self._changed_at = 0, 0.0

    def show(self, lines: Sequence[bytes]) -> None:
        """Take in the lines of metrics of the steps that were made since the last call."""
        if not lines or self._missing == 0:
            return
        worth_it = policy.growth_is_worth_it(self._left_s(orjson.loads(lines[-1])))
        if worth_it and self._places is None:
            self._places = Reservation(self._group.resources, self._missing)
            self._worth_it_at = policy.growth_from_s(began_s=self._began, first_step_s=self._clock())
        elif not worth_it:
            self.release()
            self._missing = 0

    def has_come(self) -> bool:
        """Whether more workers could be had now, no more are just coming, and another start is worth it."""
        now = self._clock()
        if self._places is None or now - self._looked_at < _LOOK_S:
            return False
        self._looked_at = now
        there = self._places.count()
        if there != self._there:
            self._there, self._changed_at = there, now
        grows = policy.should_grow(
            there=there,
            missing=self._missing,
            now_s=now,
            from_s=self._worth_it_at,
            unchanged_s=now - self._changed_at,
        )
        if grows:
            log.info("%d more workers could be had: saving, and going on with them", there)
        return grows

    def release(self) -> None:
        """Give back what was asked for."""
        if self._places is not None:
            self._places.release()
            self._places = None

    def _left_s(self, metrics: Mapping[str, float]) -> float:
        return (self._last_step - metrics["step"]) * metrics["step_s"]
