"""`scaletrain cluster sweep-leaks`: what still costs money although its cluster is gone.

A cluster lives while its head is starting or running. Of a living cluster only loose parts count: disks and network
interfaces that belong to no machine, addresses that lead nowhere, and machines that Ray does not see any more. Prepared
images count, too, where a cluster's file is there to tell which of them it still names. A living cluster is no leak,
but it is told all the same: its head may be one that somebody forgot, or whose set-up failed.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.table import Table

_ORDER = ("machine", "network interface", "disk", "address", "image")


@dataclass(frozen=True)
class Leak:
    """One thing that costs money for nothing."""

    kind: Literal["machine", "disk", "address", "network interface", "image"]
    id: str
    cluster: str
    detail: str

    def record(self) -> dict[str, str]:
        """The leak for --json."""
        return asdict(self)


@dataclass(frozen=True)
class Machine:
    """A machine that starts or runs, and the cluster and zone whose head sees it ("": any zone)."""

    id: str
    cluster: str
    zone: str
    is_head: bool
    since: datetime


@dataclass(frozen=True)
class Living:
    """A cluster whose head starts or runs, and how many workers with it."""

    cluster: str
    head: str
    since: datetime
    workers: int

    def record(self) -> dict[str, str | int]:
        """The cluster for --json."""
        return {**asdict(self), "since": self.since.astimezone(UTC).isoformat(timespec="seconds")}

    def line(self, file: str) -> str:
        """What it is and how to end it, by a cluster file."""
        day, workers = self.since.astimezone(UTC).date(), f"{self.workers} worker{'' if self.workers == 1 else 's'}"
        return (
            f"not a leak, but it costs money: {self.cluster}: head {self.head} since {day}, {workers}; "
            f"end it: scaletrain down {file}"
        )


@dataclass(frozen=True)
class Costs:
    """What costs money: what is left over, and the clusters that live."""

    leaks: list[Leak]
    living: list[Living]


def living_clusters(machines: list[Machine], cluster: str | None) -> list[Living]:
    """Return one entry for each head among machines, of one cluster or of all, with the number of its workers."""
    workers = Counter((each.cluster, each.zone) for each in machines if not each.is_head)
    return [
        Living(each.cluster, each.id, each.since, workers[each.cluster, each.zone])
        for each in machines
        if each.is_head and cluster in (None, each.cluster)
    ]


def remove_each(leaks: list[Leak], remove: Callable[[Leak], None], *, tell: Callable[[str], None]) -> None:
    """Remove leaks for good: machines first, then what they may have held."""
    for leak in sorted(leaks, key=lambda leak: _ORDER.index(leak.kind)):
        tell(f"remove {leak.kind} {leak.id} of {leak.cluster}")
        remove(leak)


def leaks_table(leaks: list[Leak]) -> "Table":
    """Return the leaks for the terminal."""
    from rich.table import Table

    table = Table("what", "id", "cluster", "")
    for leak in leaks:
        table.add_row(leak.kind, leak.id, leak.cluster, leak.detail)
    return table
