"""Growing: while a run trains with fewer workers than it may have, the missing ones are asked for.

The cluster's autoscaler sees the demand and brings machines; when some have come, the run is told to save and goes on
with more workers. That costs it another start. So a group first trains for as long as its own start took: where
machines come and go faster than that, the run still spends half of its time on steps. A run that shares machines with
others gives workers back in the same way, as soon as it may have fewer. A run that is nearly over is left alone.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence

import orjson

from scaletrain import policy
from scaletrain.log import get_logger
from scaletrain.ray_waiting import Reservation
from scaletrain.train.waiting import WorkerGroup, unshared, whole_groups

_LOOK_S = 2.0

log = get_logger(__name__)


class Growth:
    """Asks for the workers that a group lacks, from its first step on, and says when to go on with others.

    Not before: until Ray has placed the group itself, its machines must not be given to anything else. `release` gives
    back what was asked for. It is made when the attempt begins; `clock` is in seconds. `most_workers` says how many the
    run may have now (None: as many as the group ever could), and is asked at every look.
    """

    def __init__(
        self,
        group: WorkerGroup,
        *,
        last_step: int,
        most_workers: Callable[[], int | None] = unshared,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._group = group
        self._last_step = last_step
        self._most_workers = most_workers
        self._clock = clock
        self._began, self._worth_it_at = clock(), math.inf
        self._has_begun = self._is_nearly_over = False
        self._places: Reservation | None = None
        self._asked_for = 0
        self._looked_at = 0.0
        self._there, self._changed_at = 0, 0.0

    def show(self, lines: Sequence[bytes]) -> None:
        """Take in the lines of metrics of the steps that were made since the last call."""
        if lines:
            if not self._has_begun:
                self._has_begun = True
                self._worth_it_at = policy.growth_from_s(began_s=self._began, first_step_s=self._clock())
            if not policy.growth_is_worth_it(self._left_s(orjson.loads(lines[-1]))):
                self._is_nearly_over = True
        if self._has_begun:
            self._ask_for(0 if self._is_nearly_over else max(0, self._allowed() - self._group.num_workers))

    def must_regroup(self) -> bool:
        """Whether the run has to save now, and to go on with more or fewer workers."""
        return self._must_give_back() or self.has_come()

    def has_come(self) -> bool:
        """Whether more workers could be had now, no more are just coming, and another start is worth it."""
        now = self._clock()
        if self._places is None or now - self._looked_at < _LOOK_S:
            return False
        self._looked_at = now
        there = whole_groups(self._places.count(), self._group.together)
        if there != self._there:
            self._there, self._changed_at = there, now
        grows = policy.should_grow(
            there=there,
            missing=self._asked_for,
            now_s=now,
            from_s=self._worth_it_at,
            unchanged_s=now - self._changed_at,
        )
        if grows:
            log.info("%d more workers could be had: saving, and going on with them", there)
        return grows

    def release(self) -> None:
        """Give back what was asked for."""
        self._ask_for(0)

    def _allowed(self) -> int:
        """How many workers the run may have now."""
        share = self._most_workers()
        most = self._group.most if share is None else min(share, self._group.most)
        return whole_groups(most, self._group.together)

    def _must_give_back(self) -> bool:
        surplus = self._group.num_workers - self._allowed()
        if surplus <= 0 or not self._has_begun or self._is_nearly_over:
            return False
        log.info("%d workers are wanted by another run: saving, and going on without them", surplus)
        return True

    def _ask_for(self, count: int) -> None:
        """Have so many places asked for, and no more."""
        if count == self._asked_for:
            return
        if self._places is not None:
            self._places.release()
        self._places = Reservation(self._group.resources, count) if count else None
        self._asked_for, self._there = count, 0

    def _left_s(self, metrics: Mapping[str, float]) -> float:
        return (self._last_step - metrics["step"]) * metrics["step_s"]
