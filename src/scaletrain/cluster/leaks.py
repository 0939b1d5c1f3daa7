"""`scaletrain cluster sweep-leaks`: what still costs money although its cluster is gone.

A cluster lives while its head is starting or running. Of a living cluster only loose parts count: disks and network
interfaces that belong to no machine, addresses that lead nowhere. Prepared images count, too, where a cluster's file is
there to tell which of them it still names.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
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
