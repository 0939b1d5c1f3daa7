"""The dated price table: what machines, storage and traffic cost, with where each figure is from and of which day.

The table in the package goes stale; a fresh one comes from `scaletrain prices refresh`, one of your own prices from a
file of the same form, which `budget.prices` names:

    {"lists": [{"source": "my contract", "as_of": "2026-05-01", "market": "on-demand",
                "usd_per_hour": {"us-east-1": {"p5.48xlarge": 40.5}, "*": {"my-server": 2.0}}}],
     "storage": [{"cloud": "aws", "source": "mine", "as_of": "2026-05-01", "usd_per_gb_month": 0.02,
                  "usd_per_gb_egress": 0.09}]}

"*" stands for every region. Where several lists know a price, the first one counts.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import orjson

from scaletrain import storage
from scaletrain.errors import ConfigError, NotFoundError
from scaletrain.log import get_logger
from scaletrain.machine_types import Cloud

Market = Literal["spot", "on-demand"]

OLD_AFTER_DAYS = 60
# Where a caller names no region; the cheapest and largest of each cloud.
_FIRST_REGIONS = ("*", "us-east-1", "us-central1")
_EXAMPLE = (
    'see docs/money.md: {"lists": [{"source", "as_of", "market", "usd_per_hour": {region: {machine type: USD}}}]}'
)

log = get_logger(__name__)


@dataclass(frozen=True)
class PriceList:
    """Prices from one source, of one day and market: `usd_per_hour` by region and machine type."""

    source: str
    as_of: date
    market: Market
    usd_per_hour: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class StoragePrice:
    """What a cloud's object storage costs: a GB (1e9 bytes) for a month, and one that leaves for the internet."""

    cloud: Cloud
    source: str
    as_of: date
    usd_per_gb_month: float
    usd_per_gb_egress: float


@dataclass(frozen=True)
class PriceTable:
    """Price lists, the first that knows a price counts; `storage` has the prices of object storage by cloud."""

    lists: Sequence[PriceList]
    storage: Mapping[Cloud, StoragePrice] = field(default_factory=dict)

    @property
    def as_of(self) -> date:
        """The day of the oldest price in it."""
        return min(each.as_of for each in self.lists)

    @property
    def source(self) -> str:
        """Where the prices are from."""
        return "; ".join(dict.fromkeys(each.source for each in self.lists))

    def age_days(self, today: date) -> int:
        """How old its oldest price is."""
        return (today - self.as_of).days

    def usd_per_hour(self, machine_type: str, market: Market, *, region: str | None = None) -> float | None:
        """What a machine costs an hour in US dollars, None where that is not known.

        Without a region it is that of us-east-1 on AWS and us-central1 on Google Cloud, else of the first that has one.
        """
        found = self.row(machine_type, market, region=region)
        return found[0] if found else None

    def row(self, machine_type: str, market: Market, *, region: str | None = None) -> tuple[float, PriceList] | None:
        """A machine's price and the list that it is from."""
        regions = (region, "*") if region is not None else (*_FIRST_REGIONS, *self.regions(machine_type))
        for name in regions:
            for each in self.lists:
                price = each.usd_per_hour.get(name, {}).get(machine_type) if each.market == market else None
                if price is not None:
                    return price, each
        return None

    def regions(self, machine_type: str) -> list[str]:
        """The regions that have a price for a machine type, those of the first lists first."""
        named = (region for each in self.lists for region, row in each.usd_per_hour.items() if machine_type in row)
        return list(dict.fromkeys(named))

    def machine_types(self) -> list[str]:
        """Every machine type that has a price."""
        named = (name for each in self.lists for row in each.usd_per_hour.values() for name in row)
        return list(dict.fromkeys(named))

    def over(self, other: "PriceTable") -> "PriceTable":
        """This table's prices, and those of another one where this one has none."""
        return PriceTable((*self.lists, *other.lists), {**other.storage, **self.storage})


def load_price_table(path: str | None = None) -> PriceTable:
    """The table in the package; with `path` (a file or URL) its prices come first.

    Raises ConfigError with everything that is wrong with the file.
    """
    own = _packaged()
    return own if path is None else read_price_table(path).over(own)


def read_price_table(path: str) -> PriceTable:
    """The table in a file or at a URL, alone; raises ConfigError."""
    try:
        text = storage.read_bytes(path)
    except NotFoundError as error:
        raise ConfigError(f"{error}; it should be a price table ({_EXAMPLE})") from error
    return parse_price_table(text, source=path)


def parse_price_table(text: bytes, *, source: str) -> PriceTable:
    """Read a table; `source` is how messages call it. Raises ConfigError with everything that is wrong."""
    try:
        tree = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ConfigError(f"{source}: is not JSON ({error}); {_EXAMPLE}") from error
    problems = [f"{source}: {problem}" for problem in _problems(tree)]
    if problems:
        raise ConfigError(problems)
    lists = [
        PriceList(each["source"], date.fromisoformat(each["as_of"]), each["market"], each["usd_per_hour"])
        for each in tree["lists"]
    ]
    kept = [StoragePrice(**{**each, "as_of": date.fromisoformat(each["as_of"])}) for each in tree.get("storage", ())]
    return PriceTable(lists, {each.cloud: each for each in kept})


def dump_price_table(table: PriceTable) -> bytes:
    """The table as JSON, which `parse_price_table` reads back equal."""
    tree = {"lists": list(table.lists), "storage": list(table.storage.values())}
    return orjson.dumps(tree, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def warn_if_old(table: PriceTable, today: date) -> None:
    """Say in one line that prices of a table are older than they should be, if they are."""
    warn_of_old(table.lists, today)


def warn_of_old(lists: Iterable[PriceList], today: date) -> None:
    """The same of the lists alone whose prices are in use."""
    if said := too_old(lists, today):
        log.warning("%s", said)


def too_old(lists: Iterable[PriceList], today: date) -> str | None:
    """What there is to say of the age of prices in use; None where they are fresh enough."""
    oldest = min(lists, key=lambda each: each.as_of, default=None)
    if oldest is None or (age_days := (today - oldest.as_of).days) <= OLD_AFTER_DAYS:
        return None
    return (
        f"prices are up to {age_days} days old (of {oldest.as_of}, {oldest.source}): `scaletrain prices refresh` makes "
        "a table for budget.prices"
    )


@cache
def _packaged() -> PriceTable:
    text = files("scaletrain").joinpath("price_table.json").read_bytes()
    return parse_price_table(text, source="price_table.json")


def _problems(tree: Any) -> Iterator[str]:
    if not isinstance(tree, dict) or not isinstance(tree.get("lists"), list) or not tree["lists"]:
        yield f"has no lists of prices; {_EXAMPLE}"
        return
    for unknown in set(tree) - {"lists", "storage"}:
        yield f"{unknown}: there is no such part; it has lists and storage"
    for number, each in enumerate(tree["lists"]):
        yield from (f"lists.{number}.{problem}" for problem in _list_problems(each))
    for number, each in enumerate(tree.get("storage", ())):
        yield from (f"storage.{number}.{problem}" for problem in _storage_problems(each))


def _list_problems(each: Any) -> Iterator[str]:
    if not isinstance(each, dict):
        yield f"is {each!r}; give source, as_of, market and usd_per_hour"
        return
    yield from _origin_problems(each, {"market", "usd_per_hour"})
    if each.get("market") not in ("spot", "on-demand"):
        yield f"market: got {each.get('market')!r}; give spot or on-demand"
    regions = each.get("usd_per_hour")
    if not isinstance(regions, dict):
        yield "usd_per_hour: missing; give {region: {machine type: US dollars}}"
        return
    for region, row in regions.items():
        if not isinstance(row, dict):
            yield f"usd_per_hour.{region}: is {row!r}; give {{machine type: US dollars}}"
            continue
        wrong = {name: price for name, price in row.items() if not _is_price(price) or price == 0}
        yield from (f"usd_per_hour.{region}.{name}: got {price!r}; give US dollars" for name, price in wrong.items())


def _storage_problems(each: Any) -> Iterator[str]:
    if not isinstance(each, dict):
        yield f"is {each!r}; give cloud, source, as_of, usd_per_gb_month and usd_per_gb_egress"
        return
    yield from _origin_problems(each, {"cloud", "usd_per_gb_month", "usd_per_gb_egress"})
    if each.get("cloud") not in ("aws", "gcp"):
        yield f"cloud: got {each.get('cloud')!r}; give aws or gcp"
    for name in ("usd_per_gb_month", "usd_per_gb_egress"):
        if not _is_price(each.get(name)):
            yield f"{name}: got {each.get(name)!r}; give US dollars"


def _origin_problems(each: dict[str, Any], others: set[str]) -> Iterator[str]:
    for unknown in set(each) - others - {"source", "as_of"}:
        yield f"{unknown}: there is no such field"
    if not isinstance(each.get("source"), str) or not each["source"]:
        yield "source: missing; say where the prices are from"
    try:
        date.fromisoformat(str(each.get("as_of")))
    except ValueError:
        yield f"as_of: got {each.get('as_of')!r}; give the day of the prices, as 2026-05-01"


def _is_price(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e6
