"""The purse: what an attempt costs as it goes on, what the whole run will, and when its budget is spent.

All workers of an attempt agree on its machines once, at its start; rank 0 then counts.
"""

import math
import statistics
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

import torch.distributed as dist

from scaletrain.config_budget import BudgetSection
from scaletrain.cost import (
    History,
    Rate,
    Spent,
    check_budget,
    note_rate,
    old_prices,
    rate_of,
    read_history,
)
from scaletrain.errors import BudgetError, ScaletrainError
from scaletrain.log import get_logger
from scaletrain.this_machine import Machine, find_this_machine
from scaletrain.train.job import Job
from scaletrain.train.worker import Worker

_FORECAST_AFTER = 5  # steps of the attempt: the first ones are slower than the rest
_MEASURED = 20  # steps whose time tells of the next ones

log = get_logger(__name__)


class PurseBeingOpened:
    """What is asked of the cloud and of the bucket while the engine starts; `open` waits for it on every rank."""

    def __init__(self, job: Job, worker: Worker, *, warn: Callable[[str], object]) -> None:
        self._job, self._worker, self._warn = job, worker, warn
        self._machine: Future[Machine] | None = None
        self._history: Future[History] | None = None
        pool = ThreadPoolExecutor(thread_name_prefix="purse")
        if job.accounting is not None and worker.local_rank == 0:
            self._machine = pool.submit(find_this_machine, ask=job.accounting.asks_cloud)
        if job.accounting is not None and worker.rank == 0:
            self._history = pool.submit(read_history, job.run, job.attempt, job.accounting.prices)
        pool.shutdown(wait=False)

    def open(self) -> "Purse":
        """Agree on the attempt's machines; all ranks call it. Raises BudgetError (nothing is left) and StorageError."""
        accounting = self._job.accounting
        if accounting is None:
            return Purse(BudgetSection.model_validate({}), None, Spent(None, 0.0), total_steps=self._job.total_steps)
        rate = rate_of([accounting.driver, *self._gathered()], accounting.prices)
        told: list[tuple[Spent, float] | ScaletrainError] = []
        if self._history is not None:
            try:
                history = self._history.result()
                note_rate(self._job.run, self._job.attempt, rate)
                if old := old_prices(rate, accounting.prices, datetime.now(UTC).date()):
                    self._warn(old)
                told = [(history.spent(rate.usd_per_hour), history.claimed)]
            except ScaletrainError as error:
                told = [error]
        told = told or [ScaletrainError()]
        if self._worker.world_size > 1:
            dist.broadcast_object_list(told, src=0)
        if isinstance(told[0], ScaletrainError):
            raise told[0]
        spent, claimed = told[0]
        budget = self._job.config.budget
        check_budget(budget, spent, rate)
        # Of an attempt that was claimed some seconds ago, by the driver's clock.
        held_s = max(0.0, time.time() - claimed)
        return Purse(budget, rate, spent, total_steps=self._job.total_steps, held_s=held_s, warn=self._warn)

    def _gathered(self) -> list[Machine]:
        own = self._machine.result() if self._machine is not None else None
        found: list[Machine | None] = [own]
        if self._worker.world_size > 1:
            found = [None] * self._worker.world_size
            dist.all_gather_object(found, own)
        return [machine for machine in found if machine is not None]


@dataclass(frozen=True)
class Forecast:
    """What the whole run will have cost and taken at its last step; `usd` is None where a price is not known."""

    usd: float | None
    hours: float


class Purse:
    """Counts for rank 0; `clock` is in seconds. Without a rate (no accounting) nothing is known and nothing stops."""

    def __init__(
        self,
        budget: BudgetSection,
        rate: Rate | None,
        before: Spent,
        *,
        total_steps: int,
        held_s: float = 0.0,
        warn: Callable[[str], object] = log.warning,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._budget = budget
        self._before = before
        self._total_steps = total_steps
        self._warn = warn
        self._clock = clock
        self._began = clock() - held_s
        self._steps_s: deque[float] = deque(maxlen=_MEASURED)
        self._steps = 0
        self._warned = self._stops = False
        self.usd_per_hour = rate.usd_per_hour if rate is not None else None

    def spent(self) -> Spent:
        """What the whole run has used up until now."""
        held_s = self._clock() - self._began
        usd = None
        if self._before.usd is not None and self.usd_per_hour is not None:
            usd = self._before.usd + held_s * self.usd_per_hour / 3600
        return Spent(usd, self._before.seconds + held_s)

    def step_ended(self, step: int, step_s: float) -> Forecast | None:
        """Take in a step; once enough were measured, return the forecast, and warn once where it is over the budget."""
        self._steps += 1
        if self._steps > 1:  # the first one has the start in it
            self._steps_s.append(step_s)
        if self._steps < _FORECAST_AFTER:
            return None
        found = self._forecast(step)
        over = [
            f"{unit.format(value)} (budget.{name}={limit:g})"
            for name, limit, value, unit in (
                ("usd", self._budget.usd, found.usd, "{:.2f} USD"),
                ("hours", self._budget.hours, found.hours, "{:.2f} h"),
            )
            if limit is not None and value is not None and value > limit
        ]
        if over and not self._warned:
            self._warned = True
            self._warn(
                f"at this pace the run needs {' and '.join(over)} until step {self._total_steps}; it saves and stops "
                "before it passes the budget"
            )
        return found

    def must_stop(self, fits: Callable[[float], bool]) -> bool:
        """Whether the budget would be passed before a later save could be made.

        `fits` says whether a save would be done in so many seconds. The step under way and another one come first.
        """
        left_s = self._left_s() - 2 * self._step_s()
        self._stops = self._stops or left_s <= 0 or not fits(left_s)
        return self._stops

    def check_spent(self, step: int) -> None:
        """Raise BudgetError where the run ends at this step for its budget; its state is saved by then."""
        if not self._stops:
            return
        spent = self.spent()
        used = f"{spent.seconds / 3600:.2f} h" + (f" and {spent.usd:.2f} USD" if spent.usd is not None else "")
        limits = [f"budget.{name}={value:g}" for name in ("usd", "hours") if (value := getattr(self._budget, name))]
        raise BudgetError(
            f"stopped at step {step} of {self._total_steps}, saved: the run has used {used} of {', '.join(limits)}; "
            "the same command with a higher budget goes on from there"
        )

    def _left_s(self) -> float:
        """Seconds until the budget is spent; infinite without one."""
        spent, left_s = self.spent(), math.inf
        if self._budget.usd is not None and spent.usd is not None and self.usd_per_hour:
            left_s = (self._budget.usd - spent.usd) / self.usd_per_hour * 3600
        if self._budget.hours is not None:
            left_s = min(left_s, 3600 * self._budget.hours - spent.seconds)
        return left_s

    def _forecast(self, step: int) -> Forecast:
        spent, left_s = self.spent(), (self._total_steps - step) * self._step_s()
        usd = spent.usd + left_s * (self.usd_per_hour or 0.0) / 3600 if spent.usd is not None else None
        return Forecast(usd, (spent.seconds + left_s) / 3600)

    def _step_s(self) -> float:
        """How long a step takes, saves and validation among them."""
        return statistics.fmean(self._steps_s) if self._steps_s else 0.0
