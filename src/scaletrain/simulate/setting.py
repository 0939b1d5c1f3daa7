"""What is simulated: a run, the machines it may have, and how long each thing takes; with where each default is from.

Times were measured on this project's own benchmarks (benchmarks/results/), with small models on two CPU cores, where no
better figure is known; a run that has trained a while gives its own (calibration). What is assumed says so.
"""

import math
from dataclasses import dataclass, fields

from scaletrain.simulate.series import Series

# recovery.md: a kill until the loss is noticed and the old group gone; the same until its machine's (cluster.md) is.
LOSS_SEEN_S = 3.7
# recovery.md: placement and processes 5.3 s, imports 0.1 s, model and engine 1.7 s, first batch 0.1 s.
START_S = 7.2
# checkpoint.md: 354 MB of state are copied in 40.3 ms, which is what a save keeps the step from.
COPY_BYTES_PER_S = 354e6 / 0.0403
# upload.md: one rank's part to a bucket of 100 MB/s a connection.
UPLOAD_BYTES_PER_S = 411e6
# recovery.md has the restore of a tiny model only; assumed to read as fast as it was written.
RESTORE_BYTES_PER_S = UPLOAD_BYTES_PER_S
# cluster.md: a worker launched until it has joined is 17 s on an emulated cloud, whose machines boot at once; that a
# real one takes three minutes is assumed.
LAUNCH_S = 180.0
# notices.py: the sentinel asks every 2 s, so that a notice is seen after 1 s on the mean.
NOTICE_SEEN_S = 1.0
# EC2 says so two minutes before, Google 30 s (the pages that notices.py names).
NOTICE_S = {"aws": 120.0, "gcp": 30.0}
# That someone types the command again so long after it gave up is assumed.
BY_HAND_S = 600.0
# Grattafiori et al. 2024 (arXiv:2407.21783), section 3.3.4: 419 unexpected interruptions of 16,384 GPUs in 54 days.
GPU_LOSSES_PER_HOUR = 419 / (16_384 * 54 * 24)


@dataclass(frozen=True)
class Pool:
    """Machines of one kind in one place; prices are per machine and hour, times of a trace begin at 0.

    `losses_per_hour`: how often a spot machine is taken, `capacity`: how many can be had at most, both of one machine
    type in one zone. `speed` is how fast a worker there is, of one of the kind that the run's times are of.
    """

    machine_type: str
    zone: str
    usd_per_hour: Series
    losses_per_hour: Series
    capacity: Series
    on_demand_usd_per_hour: float | None = None
    workers_per_machine: int = 1
    speed: float = 1.0

    @property
    def name(self) -> str:
        return f"{self.machine_type} in {self.zone}" if self.zone else self.machine_type


@dataclass(frozen=True)
class Setting:
    """One run to simulate; times in seconds, `stall_s`, `upload_s` and `restore_s` those with the most workers.

    A step deals `micro_batches` of `micro_batch_s` each to the workers and takes `fixed_s` more, however many they are.
    With fewer workers, each saves and reads a larger part of the state. `on_demand_share` of the machines, rounded up,
    are never taken; all of them break `hardware_losses_per_hour` times, without a word. `start_s`: from a group's
    placement until its state can be read, and its first batch.
    """

    steps: int
    micro_batches: int
    micro_batch_s: float
    least: int
    most: int
    every_steps: int
    fixed_s: float = 0.0
    stall_s: float = 0.0
    upload_s: float = 0.0
    restore_s: float = 0.0
    start_s: float = START_S
    loss_seen_s: float = LOSS_SEEN_S
    launch_s: float = LAUNCH_S
    notice_s: float = 0.0
    notice_seen_s: float = NOTICE_SEEN_S
    wait_s: float = 1200.0
    by_hand_s: float = BY_HAND_S
    on_demand_share: float = 0.0
    hardware_losses_per_hour: float = 0.0
    head_usd_per_hour: float = 0.0

    def step_s(self, workers: int, *, speed: float = 1.0) -> float:
        """What a step takes with so many workers; the last round of micro batches may not have one for each."""
        return self.fixed_s + math.ceil(self.micro_batches / workers) * self.micro_batch_s / speed

    def part_of(self, workers: int) -> float:
        """How much more of the state each of so many workers holds than each of the most."""
        return self.most / workers

    def on_demand_of(self, machines: int) -> int:
        """How many of so many machines are on demand."""
        return math.ceil(self.on_demand_share * machines - 1e-9)

    @property
    def undisturbed_s(self) -> float:
        """What the steps alone take, on the most workers from the first one on."""
        return self.steps * self.step_s(self.most)


@dataclass(frozen=True, slots=True)
class Parts:
    """Where the wall time went, in seconds.

    As `scaletrain show` has it, without waiting for data; `waiting_s` is for machines, and part of recovery or start-up
    there.
    """

    start_up_s: float = 0.0
    productive_s: float = 0.0
    checkpoint_stall_s: float = 0.0
    lost_work_s: float = 0.0
    recovery_s: float = 0.0
    waiting_s: float = 0.0
    shut_down_s: float = 0.0
    idle_s: float = 0.0

    @property
    def total_s(self) -> float:
        return float(sum(getattr(self, part.name) for part in fields(self)))


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt of a simulated run: from the commit of a step to what it committed itself; it made `steps_done`."""

    began_s: float
    workers: int
    resumed_from: int
    steps_done: int
    committed: int
    ended_s: float
    why: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one simulated run; `usd` without what is unknown, `commands` counts how often it was started.

    `losses`: machines that went without a word or before a save could be made; `saved_in_time`: after a notice.
    """

    finished: bool
    wall_s: float
    usd: float
    parts: Parts
    attempts: tuple[Attempt, ...]
    losses: int
    saved_in_time: int
    growths: int
    commands: int
    lost_steps: int

    @property
    def goodput(self) -> float:
        """The share of the wall time that went into steps that count."""
        return self.parts.productive_s / self.wall_s if self.wall_s else 0.0
