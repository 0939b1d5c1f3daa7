"""What one cluster needs in a cloud account: looked up first, shown as a plan, and only then made or removed.

Looking never changes anything, so a plan without steps to do is proof that all is as it should be.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Step:
    """One thing: is it there, or what is to be done about it. `act` is called only once the user agreed."""

    what: str
    todo: Literal["", "make", "change", "remove", "keep", "wait"]
    detail: str = ""
    act: Callable[[], None] | None = field(default=None, repr=False)


def to_do(steps: list[Step]) -> list[Step]:
    """Return the steps that change something."""
    return [step for step in steps if step.act is not None]


def plan_table(steps: list[Step], account: str | None) -> "Table":
    """Return a plan for the terminal; `account` says whose account it is for."""
    from rich.markup import escape
    from rich.table import Table

    colours = {"make": "green", "change": "yellow", "remove": "red", "keep": "cyan", "wait": "dim", "": "dim"}
    table = Table("what", "", "", title=escape(account) if account else None, title_justify="left")
    for step in steps:
        colour = colours[step.todo]
        table.add_row(escape(step.what), f"[{colour}]{step.todo or 'is there'}[/]", escape(step.detail))
    return table


def carry_out(steps: list[Step], *, tell: Callable[[str], None]) -> None:
    """Do what a plan says, in its order; an error ends it, and running the command again goes on from there."""
    for step in to_do(steps):
        tell(f"{step.todo} {step.what}")
        assert step.act is not None
        step.act()
