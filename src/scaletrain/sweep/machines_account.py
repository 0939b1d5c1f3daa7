"""What an autoscaler made of a sweep's demand: how long machines took to come and to go, and what stood idle."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from scaletrain.sweep.machines import Sample, Watched


@dataclass(frozen=True)
class MachineAccount:
    """Machines while commands worked on a sweep; the head counts only in `usd`.

    `busy_s`, `idle_s` and `coming_s` are seconds summed over machines: something ran on it, nothing did, it was
    launched or set up, which is paid for too. `waits_s` has for each machine that was wanted and not there how long it
    took to join; `idle_before_s` for each that the autoscaler took away how long nothing had run on it. `lost` is how
    many went while they were wanted, `left_idle` how many were up and idle when the last command ended. The costs are
    None where a price is not known.
    """

    seconds: float
    most: int
    busy_s: float
    idle_s: float
    coming_s: float
    waits_s: tuple[float, ...]
    idle_before_s: tuple[float, ...]
    lost: int
    left_idle: int
    usd: float | None
    unused_usd: float | None

    @property
    def unused(self) -> float:
        """The share of the machines' time in which nothing ran on them."""
        whole = self.busy_s + self.idle_s + self.coming_s
        return (self.idle_s + self.coming_s) / whole if whole else 0.0

    def record(self) -> dict[str, Any]:
        """As plain data."""
        return {**asdict(self), "unused": self.unused}


def account_of(watched: Sequence[Watched]) -> MachineAccount | None:
    """Add up what the commands have seen; None where there is nothing, as without an autoscaler."""
    seen = [each for each in watched if len(each.samples) > 1]
    if not seen:
        return None
    spans = [(each, before, after.at - before.at) for each in seen for before, after in pairwise(each.samples)]
    costs = [_usd(each, before, seconds) for each, before, seconds in spans]
    known = [cost for cost in costs if cost is not None]
    is_known = len(known) == len(costs)
    gone = [idle_s for each in seen for _, idle_s in _gone(each.samples)]
    last = seen[-1].samples[-1]
    return MachineAccount(
        seconds=sum(seconds for _, _, seconds in spans),
        most=max(len(sample.machines) for each in seen for sample in each.samples),
        busy_s=sum(before.busy * seconds for _, before, seconds in spans),
        idle_s=sum((len(before.machines) - before.busy) * seconds for _, before, seconds in spans),
        coming_s=sum(sum(before.coming.values()) * seconds for _, before, seconds in spans),
        waits_s=tuple(wait for each in seen for wait in _waits(each.samples)),
        idle_before_s=tuple(idle_s for idle_s in gone if idle_s is not None),
        lost=sum(idle_s is None for idle_s in gone),
        left_idle=len(last.machines) - last.busy,
        usd=sum(whole for whole, _ in known) if is_known else None,
        unused_usd=sum(unused for _, unused in known) if is_known else None,
    )


def spent(watched: Watched) -> list[tuple[float, float, float]]:
    """For each sample its time, and what all machines and what the unused ones had cost until then, in US dollars.

    Empty where a price is not known.
    """
    found, whole, unused = [(watched.samples[0].at, 0.0, 0.0)] if watched.samples else [], 0.0, 0.0
    for before, after in pairwise(watched.samples):
        cost = _usd(watched, before, after.at - before.at)
        if cost is None:
            return []
        whole, unused = whole + cost[0], unused + cost[1]
        found.append((after.at, whole, unused))
    return found


def _usd(watched: Watched, sample: Sample, seconds: float) -> tuple[float, float] | None:
    """What all machines, the head among them, and what the unused ones cost in this time."""
    prices: Mapping[str, float | None] = watched.usd_per_hour
    unused = [kind for kind, is_busy in sample.machines.values() if not is_busy]
    unused += [kind for kind, count in sample.coming.items() for _ in range(count)]
    used = [kind for kind, is_busy in sample.machines.values() if is_busy]
    rates = [prices.get(kind) for kind in (*used, *unused)]
    if watched.head_usd_per_hour is None or None in rates:
        return None
    known = [rate for rate in rates if rate is not None]
    hours = seconds / 3600
    return (watched.head_usd_per_hour + sum(known)) * hours, sum(known[len(used) :]) * hours


def _waits(samples: Sequence[Sample]) -> Iterator[float]:
    """For each machine that was wanted and came, how long that took; who wanted one first has the first that comes."""
    missing: deque[float] = deque()
    there: set[str] = set()
    for sample in samples:
        for _ in set(sample.machines) - there:
            if missing:
                yield sample.at - missing.popleft()
        there = set(sample.machines)
        short = max(0, sample.wanted - len(there))
        while len(missing) < short:
            missing.append(sample.at)
        while len(missing) > short:
            missing.pop()  # nobody wants it any more


def lost_at(samples: Sequence[Sample]) -> list[float]:
    """When machines went that were wanted, once for each."""
    return [at for at, idle_s in _gone(samples) if idle_s is None]


def _gone(samples: Sequence[Sample]) -> Iterator[tuple[float, float | None]]:
    """For each machine that went, when, and how long it had been idle; None where it was lost.

    That is where something ran on it, or none was to spare: what stopped for a notice is idle too, before its machine
    is taken, but an autoscaler takes only what nobody wants.
    """
    idle_since: dict[str, float | None] = {}
    for before, sample in pairwise(samples):
        for name, (_, is_busy) in before.machines.items():
            idle_since[name] = None if is_busy else idle_since.get(name) or before.at
        for name in set(before.machines) - set(sample.machines):
            since = idle_since.pop(name)
            is_spare = before.wanted < len(before.machines)
            yield sample.at, sample.at - since if since is not None and is_spare else None
