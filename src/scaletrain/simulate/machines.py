"""The machines that a simulated run holds: they come, are paid for, break, and are taken away.

Failures of many machines are one process: the next loss of n machines with a constant rate each comes after an
exponential time with n times the rate, whichever they are. So ten thousand machines cost as much to simulate as one.
"""

import math
from dataclasses import dataclass
from random import Random

from scaletrain.simulate.setting import Pool, Setting

_HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Loss:
    """So many machines go: the cloud says at `time_s` that it takes them, or they break then, which nobody says."""

    time_s: float
    spot: int
    on_demand: int
    is_taken: bool

    @property
    def machines(self) -> int:
        return self.spot + self.on_demand


class Machines:
    """What a run has and has asked for; `now_s` is its clock, `usd` what it has cost so far.

    `up` is (spot, on demand), those in `group` train, the others have come and wait to be taken in. `offset_s` is where
    in the trace the run begins.
    """

    def __init__(self, setting: Setting, pool: Pool, random: Random, *, offset_s: float) -> None:
        self._setting, self._random, self._offset_s = setting, random, offset_s
        self.now_s, self.usd, self.changed_s = 0.0, 0.0, 0.0
        self.pool = pool
        self.spot = self.on_demand = self.group = 0
        self.coming: list[tuple[float, int, int]] = []  # when, spot, on demand
        self._short, self._retry_s = 0, math.inf  # spot machines that nobody can give yet
        self.usd_per_second_fixed = setting.head_usd_per_hour / _HOUR_S

    @property
    def up(self) -> int:
        return self.spot + self.on_demand

    @property
    def is_coming(self) -> bool:
        return bool(self.coming) or self._short > 0

    def move(self, pool: Pool) -> None:
        """Let all machines go, those on their way too, and ask this pool from now on."""
        self.pool, self.spot, self.on_demand, self.group = pool, 0, 0, 0
        self.coming = []
        self.ask_no_more()

    def workers(self, machines: int) -> int:
        return min(self._setting.most, machines * self.pool.workers_per_machine)

    def needed(self, workers: int) -> int:
        """Machines for so many workers."""
        return math.ceil(workers / self.pool.workers_per_machine)

    def ask(self, machines: int) -> None:
        """Ask for machines until that many are up: first those on demand that are lacking, the rest on spot."""
        wanted_on_demand = self._setting.on_demand_of(self.needed(self._setting.most))
        coming = sum(each[2] for each in self.coming)
        missing = machines - self.up - sum(each[1] for each in self.coming) - coming
        on_demand = min(missing, max(0, wanted_on_demand - self.on_demand - coming))
        if on_demand > 0:
            self.coming.append((self.now_s + self._setting.launch_s, 0, on_demand))
        self._short = missing - on_demand
        self._order()

    def ask_no_more(self) -> None:
        """Ask for no more; machines on their way come all the same."""
        self._short, self._retry_s = 0, math.inf

    def notice_of(self, loss: Loss) -> float:
        """How long before their end the machines are told of it."""
        return self._setting.notice_s if loss.is_taken else 0.0

    def advance(self, until_s: float) -> Loss | None:
        """Go on until machines are lost, come, or the time is over; those that come are there then."""
        spot_loss_s = self._next_taken()
        broken_s = math.inf
        if self._setting.hardware_losses_per_hour and self.up:
            rate = self._setting.hardware_losses_per_hour * self.up / _HOUR_S
            broken_s = self.now_s + self._random.expovariate(rate)
        fallen_s = self._next_fall()
        coming_s = min((each[0] for each in self.coming), default=math.inf)
        first_s = min(until_s, spot_loss_s, broken_s, fallen_s, coming_s, self._retry_s)
        self.go_to(first_s)
        if first_s == until_s:
            return None
        if first_s == fallen_s:
            too_many = self.spot - int(self.pool.capacity.at(self._offset_s + first_s))
            return Loss(first_s, too_many, 0, is_taken=True)
        if first_s == spot_loss_s:
            return Loss(first_s, 1, 0, is_taken=True)
        if first_s == broken_s:
            spot = int(self._random.random() * self.up < self.spot)
            return Loss(first_s, spot, 1 - spot, is_taken=False)
        if first_s == coming_s:
            self._take_in()
        else:
            self._order()
        return None

    def go_to(self, time_s: float) -> None:
        """Let time pass, and pay for it."""
        passed_s = time_s - self.now_s
        if passed_s <= 0:
            return
        self.usd += passed_s * self.usd_per_second_fixed
        if self.on_demand:
            self.usd += passed_s * self.on_demand * (self.pool.on_demand_usd_per_hour or 0.0) / _HOUR_S
        if self.spot:
            price = self.pool.usd_per_hour
            start_s = self._offset_s + self.now_s
            self.usd += self.spot * (price.integral(start_s + passed_s) - price.integral(start_s)) / _HOUR_S
        self.now_s = time_s

    def lose(self, loss: Loss) -> int:
        """Take lost machines away, whichever they are; returns how many of them were in the group."""
        spares, hit = self.up - self.group, 0
        for _ in range(loss.machines):
            if self._random.random() * (self.group - hit + spares) < self.group - hit:
                hit += 1
            else:
                spares -= 1
        self.spot -= loss.spot
        self.on_demand -= loss.on_demand
        self.group -= hit
        self.changed_s = self.now_s
        return hit

    def _next_taken(self) -> float:
        """When the next spot machine is taken, as long as all of them are there."""
        rates = self.pool.losses_per_hour
        if not self.spot or rates.mean == 0:
            return math.inf
        start_s = self._offset_s + self.now_s
        waits = self._random.expovariate(1.0) * _HOUR_S / self.spot
        return max(self.now_s, rates.when(rates.integral(start_s) + waits) - self._offset_s)

    def _next_fall(self) -> float:
        """When there is no capacity any more for all spot machines that are up."""
        if self.pool.capacity.is_constant or not self.spot:
            return math.inf
        return self.pool.capacity.next_below(self._offset_s + self.now_s, self.spot) - self._offset_s

    def _order(self) -> None:
        """Order of the missing spot machines what can be had now, and know when to ask again."""
        self._retry_s = math.inf
        if self._short <= 0:
            return
        taken = self.spot + sum(spot for _, spot, _ in self.coming)
        there_s = self._offset_s + self.now_s
        free = self.pool.capacity.at(there_s) - taken
        count = int(min(self._short, max(0.0, free)))
        if count:
            self.coming.append((self.now_s + self._setting.launch_s, count, 0))
            self._short -= count
        if self._short and not self.pool.capacity.is_constant:
            again_s = self.pool.capacity.next_from(there_s, taken + count + 1) - self._offset_s
            self._retry_s = again_s if again_s > self.now_s else math.inf

    def _take_in(self) -> None:
        due = [each for each in self.coming if each[0] <= self.now_s]
        self.coming = [each for each in self.coming if each[0] > self.now_s]
        room = self.pool.capacity.at(self._offset_s + self.now_s) - self.spot
        for _, spot, on_demand in due:
            got = int(min(spot, max(0.0, room)))  # capacity may have gone while they started
            self.spot, self.on_demand, room = self.spot + got, self.on_demand + on_demand, room - got
            self._short += spot - got
        self.changed_s = self.now_s
        self._order()
