"""Traces of spot machines: when what costs how much, how often it is taken, how many can be had. A CSV file.

    time, machine_type, zone, price_usd_per_hour, interruptions, machines, capacity

A row holds from its time (ISO 8601) to the next one of the same machine type and zone. `interruptions` of `machines`
that were held is how often they were taken meanwhile; `capacity` is how many can be had: where it falls below what a
run holds, machines are taken. One of the two must be there. In place of the price, `price_of_on_demand` is its share of
the on-demand price; the machine type * is whatever type is asked for.
"""

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from itertools import pairwise

from scaletrain import storage
from scaletrain.errors import ConfigError, NotFoundError
from scaletrain.simulate.series import Series

ANY_TYPE = "*"
SHIPPED = ("calm", "busy", "scarce")
COLUMNS = ("time", "machine_type", "zone")
_PRICES = ("price_usd_per_hour", "price_of_on_demand")
_OPTIONAL = ("interruptions", "machines", "capacity")
_MOST_SHOWN = 20
_HOUR_S = 3600.0


@dataclass(frozen=True)
class Row:
    """One line; None where a column is not there or empty."""

    time_s: float
    machine_type: str
    zone: str
    price: float
    is_share: bool
    interruptions: float | None
    machines: float | None
    capacity: float | None


@dataclass(frozen=True)
class Market:
    """What a trace says of one machine type in one zone; `is_share`: prices are shares of the on-demand price."""

    machine_type: str
    zone: str
    price: Series
    is_share: bool
    losses_per_hour: Series
    capacity: Series


def load_trace(name: str) -> list[Market]:
    """Read a trace: one of those that come with scaletrain, by its name, or a CSV file or URL.

    Raises ConfigError with every row that is wrong.
    """
    if name in SHIPPED:
        return parse_trace(shipped(name), source=f"{name}.csv")
    try:
        return parse_trace(storage.read_bytes(name).decode(errors="replace"), source=name)
    except NotFoundError as error:
        raise ConfigError(f"{error}; give a CSV file, or one of {', '.join(SHIPPED)}") from error


def shipped(name: str) -> str:
    """The text of a trace that comes with scaletrain."""
    return files("scaletrain.simulate").joinpath(f"traces/{name}.csv").read_text()


def parse_trace(text: str, *, source: str) -> list[Market]:
    """Read the text of a trace; lines that begin with # are comments. Raises ConfigError with every bad row."""
    lines = text.splitlines()
    kept = [(number, line) for number, line in enumerate(lines, 1) if line.strip() and not line.startswith("#")]
    if not kept:
        raise ConfigError(
            f"{source}: is empty; its first line should be {','.join((*COLUMNS, *_PRICES[:1], *_OPTIONAL))}"
        )
    reader = csv.DictReader(io.StringIO("\n".join(line for _, line in kept)))
    names = [name.strip() for name in reader.fieldnames or ()]
    reader.fieldnames = names
    _check_columns(names, source)
    problems: list[str] = []
    rows: list[Row] = []
    for (number, _), values in zip(kept[1:], reader, strict=False):
        row, wrong = _read_row(values)
        problems += [f"{source}:{number}: {problem}" for problem in wrong]
        rows += [row] if row else []
    if not rows and not problems:
        problems.append(f"{source}: has no rows below its header")
    problems += [] if problems else _repeated(rows, source)
    if problems:
        more = len(problems) - _MOST_SHOWN
        raise ConfigError([*problems[:_MOST_SHOWN], *([f"... and {more} more rows like these"] if more > 0 else [])])
    return _markets(rows)


def _check_columns(names: Sequence[str], source: str) -> None:
    known = (*COLUMNS, *_PRICES, *_OPTIONAL)
    problems = [f"{source}: there is no column {name}; give it" for name in COLUMNS if name not in names]
    problems += [
        f"{source}: column {name!r} is not known; it has {', '.join(known)}" for name in names if name not in known
    ]
    if sum(name in names for name in _PRICES) != 1:
        problems.append(f"{source}: give one column of {' and '.join(_PRICES)}")
    if "capacity" not in names and not {"interruptions", "machines"} <= set(names):
        problems.append(
            f"{source}: nothing in it says when machines are taken; give the columns interruptions and machines (how "
            "many were held), or capacity (how many could be had)"
        )
    if problems:
        raise ConfigError(problems)


def _read_row(values: Mapping[str, str | None]) -> tuple[Row | None, list[str]]:
    """One row, or what is wrong with it."""
    wrong: list[str] = []
    if None in values or None in values.values():
        return None, ["has not as many fields as the header"]
    cells = {name: str(value).strip() for name, value in values.items()}

    def number(name: str, is_right: Callable[[float], bool], wanted: str) -> float | None:
        if not cells.get(name):
            return None
        try:
            value = float(cells[name])
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or not is_right(value):
            wrong.append(f"{name} is {cells[name]!r}; give {wanted}")
        return value

    time_s = _read_time(cells["time"])
    if time_s is None:
        wrong.append(f"time is {cells['time']!r}; give it as 2026-05-01T12:00:00Z")
    if not cells["machine_type"]:
        wrong.append("machine_type is empty; give one, or * for any")
    is_share = "price_of_on_demand" in cells
    price_name = _PRICES[is_share]
    price = number(price_name, lambda value: value > 0, "a number above 0")
    if not cells[price_name]:
        wrong.append(f"{price_name} is empty; give a number above 0")
    interruptions = number("interruptions", lambda value: value >= 0, "how many machines were taken")
    machines = number("machines", lambda value: value > 0, "how many machines were held, more than 0")
    capacity = number("capacity", lambda value: value >= 0 and value == int(value), "a whole number of machines")
    if interruptions is not None and machines is None and not wrong:
        wrong.append("has interruptions, but not of how many machines; fill in machines")
    if wrong or time_s is None or price is None:
        return None, wrong
    return (
        Row(time_s, cells["machine_type"], cells["zone"], price, is_share, interruptions, machines, capacity),
        [],
    )


def _read_time(text: str) -> float | None:
    """Seconds since 1970; a time without a zone is UTC."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()


def _repeated(rows: Sequence[Row], source: str) -> list[str]:
    seen: set[tuple[float, str, str]] = set()
    problems = []
    for row in rows:
        key = (row.time_s, row.machine_type, row.zone)
        if key in seen:
            when = datetime.fromtimestamp(row.time_s, UTC).isoformat()
            problems.append(f"{source}: two rows for {row.machine_type} {row.zone} at {when}; keep one")
        seen.add(key)
    return problems


def _markets(rows: Sequence[Row]) -> list[Market]:
    """The markets in the order of the file, over one common time."""
    by_market: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        by_market.setdefault((row.machine_type, row.zone), []).append(row)
    ordered = {key: sorted(own, key=lambda row: row.time_s) for key, own in by_market.items()}
    first_s = min(own[0].time_s for own in ordered.values())
    last_s = max(own[-1].time_s + _last_length_s(own) for own in ordered.values())
    return [_market(own, first_s, last_s) for own in ordered.values()]


def _last_length_s(rows: Sequence[Row]) -> float:
    """How long the last row holds: as long as the one before, an hour where it is the only one."""
    return rows[-1].time_s - rows[-2].time_s if len(rows) > 1 else _HOUR_S


def _market(rows: Sequence[Row], first_s: float, last_s: float) -> Market:
    """One market; what its first row says holds from the trace's beginning, and its last one's to the end."""
    starts = [0.0, *(row.time_s - first_s for row in rows[1:])]
    length_s = last_s - first_s
    ends = [end for _, end in pairwise([*starts, length_s])]
    hours = [(end - start) / _HOUR_S for start, end in zip(starts, ends, strict=True)]
    rates = [(row.interruptions or 0.0) / (row.machines or 1.0) / each for row, each in zip(rows, hours, strict=True)]
    return Market(
        machine_type=rows[0].machine_type,
        zone=rows[0].zone,
        price=Series(starts, [row.price for row in rows], length_s),
        is_share=rows[0].is_share,
        losses_per_hour=Series(starts, rates, length_s),
        capacity=Series(starts, [math.inf if row.capacity is None else row.capacity for row in rows], length_s),
    )
