"""What one cluster needs in an AWS account: looked up first, shown as a plan, and only then made or removed.

Looking never changes anything, so a plan without steps to do is proof that all is as it should be.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from scaletrain.cluster.aws_account import Account

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Wanted:
    """What the account should hold for one cluster."""

    cluster: str
    region: str
    bucket: str
    prefix: str
    ssh_from: tuple[str, ...]
    vpc_id: str
    subnet_id: str
    public_key: Callable[[], str]

    @property
    def head_role(self) -> str:
        """The name of the head's role and instance profile; roles are the whole account's, hence the region."""
        return f"{self.cluster}-{self.region}-head"

    @property
    def worker_role(self) -> str:
        """The name of the workers' role and instance profile."""
        return f"{self.cluster}-{self.region}-worker"

    @property
    def bucket_root(self) -> str:
        """The storage root as a URL."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")


@dataclass(frozen=True)
class Step:
    """One thing: is it there, or what is to be done about it. `act` is called only once the user agreed."""

    what: str
    todo: Literal["", "make", "change", "remove", "keep"]
    detail: str = ""
    act: Callable[[], None] | None = field(default=None, repr=False)


@dataclass
class Found:
    """Ids that are known only once a thing exists; steps that come later read them."""

    ids: dict[str, str] = field(default_factory=dict)


def to_do(steps: list[Step]) -> list[Step]:
    """Return the steps that change something."""
    return [step for step in steps if step.act is not None]


def plan_table(steps: list[Step], account: Account | None) -> "Table":
    """Return a plan for the terminal."""
    from rich.markup import escape
    from rich.table import Table

    colours = {"make": "green", "change": "yellow", "remove": "red", "keep": "cyan", "": "dim"}
    where = f"AWS account {account.account_id} in {account.region}, as {account.identity}" if account else None
    table = Table("what", "", "", title=where, title_justify="left")
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


def differences(current: Mapping[str, object] | None, wanted: Mapping[str, object]) -> list[str]:
    """Return the keys that two mappings do not agree on."""
    current = current or {}
    return sorted(key for key in {*current, *wanted} if current.get(key) != wanted.get(key))
