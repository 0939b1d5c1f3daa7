"""`scaletrain prices`: the dated price table, and a fresh one asked of the cloud."""

from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from scaletrain.command import Json, examples, print_result, reported
from scaletrain.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from scaletrain.price_table import PriceTable

app = typer.Typer(
    help="Show what machines cost an hour, as budgets reckon it.\n\n"
    "Each price with where it is from, and how old it is. A run's own table is named in its configuration: "
    "budget.prices. Prices of no table: budget.usd_per_machine_hour.",
    rich_markup_mode=None,
)

TablePath = Annotated[
    str | None, typer.Option("--prices", metavar="FILE", help="your own table, whose prices come first; a file or URL")
]


@app.callback(invoke_without_command=True, epilog=examples("scaletrain prices --machine g6.xlarge"))
@reported
def show_prices(
    context: typer.Context,
    machine: Annotated[str | None, typer.Option("--machine", metavar="TYPE", help="in every region")] = None,
    region: Annotated[str | None, typer.Option("--region", help="by default the first that has a price")] = None,
    prices: TablePath = None,
    as_json: Json = False,
) -> None:
    """Show the table, unless a command follows."""
    if context.invoked_subcommand is not None:
        return
    from scaletrain.price_table import OLD_AFTER_DAYS, load_price_table

    rows = _rows(load_price_table(prices), machine, region)
    record = [asdict(row) for row in rows]
    print_result(record, as_json=as_json, display=lambda: _shown(rows, old_after_days=OLD_AFTER_DAYS))


@app.command("refresh", epilog=examples("scaletrain prices refresh --cloud aws --region us-west-2 --out prices.json"))
@reported
def refresh(
    cloud: Annotated[str, typer.Option("--cloud", help="aws or gcp; asked with your credentials")],
    out: Annotated[str, typer.Option("--out", metavar="FILE", help="where to write the table; a file or URL")],
    region: Annotated[str | None, typer.Option("--region", help="by default the one of your profile (aws)")] = None,
    machine: Annotated[
        list[str] | None, typer.Option("--machine", metavar="TYPE", help="only this type; may be given again")
    ] = None,
    project: Annotated[str | None, typer.Option("--project", help="of Google Cloud; by default your own")] = None,
) -> None:
    """Ask AWS or Google for their prices, and write a table.

    The table is one that budget.prices takes.
    """
    from scaletrain import storage
    from scaletrain.price_refresh import ask_aws, ask_google, wanted_types
    from scaletrain.price_table import dump_price_table
    from scaletrain.prices import PRICE_LIST_REGION

    today = datetime.now(UTC).date()
    if cloud == "aws":
        from scaletrain.cluster import aws_account

        kinds = wanted_types("aws", machine or [])
        account = aws_account.connect(region or aws_account.own_region())
        pricing = account.client("pricing", region=PRICE_LIST_REGION, attempts=1)
        table = ask_aws(
            kinds, region=account.region, ec2=account.client("ec2"), pricing=pricing, today=today, tell=_tell
        )
    elif cloud == "gcp":
        from scaletrain.cluster import gcp_account

        kinds = wanted_types("gcp", machine or [])
        if region is None:
            raise ConfigError("--region: missing; name one of Google's, as us-central1")
        found = gcp_account.connect(project, region)
        with gcp_account.google_errors("looking at the prices"):
            table = ask_google(kinds, region=region, billing=found.service("cloudbilling"), today=today)
    else:
        raise ConfigError(f"--cloud={cloud}: give aws or gcp")
    storage.write_bytes(out, dump_price_table(table))
    count = sum(len(row) for each in table.lists for row in each.usd_per_hour.values())
    print(f"{out} has {count} prices of {today}; use it with budget.prices={out}")


def _tell(line: str) -> None:
    import sys

    if sys.stderr.isatty():
        print(f"asking for {line}", file=sys.stderr)


@dataclass(frozen=True)
class PriceRow:
    """One price, as the command shows it."""

    machine_type: str
    region: str
    market: str
    usd_per_hour: float
    as_of: date
    age_days: int
    source: str


def _rows(table: "PriceTable", machine: str | None, region: str | None) -> list[PriceRow]:
    today = datetime.now(UTC).date()
    rows = []
    for name in table.machine_types() if machine is None else [machine]:
        places = [region] if region is not None else table.regions(name)
        for place in places if machine is not None else places[:1]:
            for market in ("on-demand", "spot"):
                found = table.row(name, market, region=place)
                if found is not None:
                    price, of = found
                    rows.append(PriceRow(name, place, market, price, of.as_of, (today - of.as_of).days, of.source))
    if not rows:
        asked = " in ".join(filter(None, (machine or "any machine", region)))
        raise ConfigError(
            f"no price is known for {asked}; `scaletrain prices` shows those that are, `scaletrain prices refresh` "
            "asks the cloud, and budget.usd_per_machine_hour sets one"
        )
    return rows


def _shown(rows: list[PriceRow], *, old_after_days: int) -> "RenderableType":
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    sources = list(dict.fromkeys(row.source for row in rows))
    notes = [f"[{number}] {source}" for number, source in enumerate(sources, 1)]
    if any(row.age_days > old_after_days for row in rows):
        notes.append(f"* older than {old_after_days} days; `scaletrain prices refresh` asks the cloud for new ones")
    table = Table("machine type", "region", "market")
    table.add_column("USD an hour", justify="right")
    table.add_column("as of")
    table.add_column("from")
    for row in rows:
        of = f"{row.as_of}{'*' if row.age_days > old_after_days else ''}"
        number = escape(f"[{sources.index(row.source) + 1}]")
        table.add_row(row.machine_type, row.region, row.market, f"{row.usd_per_hour:.4f}", of, number)
    return Group(table, Text("\n".join(notes)))
