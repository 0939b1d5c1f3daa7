"""What became of a forecast: a run held against the plan that was kept when it began, and the score kept beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import orjson

from scaletrain import storage
from scaletrain.attempts import read_attempts
from scaletrain.errors import ConfigError, NotFoundError
from scaletrain.goodput import account
from scaletrain.layout import RunLayout
from scaletrain.metrics import read_records
from scaletrain.runs import check_exists

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Point:
    """One figure: what was forecast between, what it became, and by how much that is off the middle.

    `off` is None where a bound is zero or unknown.
    """

    what: str
    unit: str
    low: float
    high: float
    measured: float

    @property
    def inside(self) -> bool:
        """Whether it came out between the bounds."""
        return self.low <= self.measured <= self.high

    @property
    def off(self) -> float | None:
        """Measured over the geometric middle of the bounds, less one."""
        middle = (self.low * self.high) ** 0.5
        return self.measured / middle - 1 if middle > 0 else None


@dataclass(frozen=True)
class Score:
    """All figures that could be compared; `unknown` says which could not be, and why."""

    run: str
    points: tuple[Point, ...]
    unknown: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        """The score as plain data."""
        points = [{**asdict(each), "inside": each.inside, "off": each.off} for each in self.points]
        return {"run": self.run, "points": points, "unknown": list(self.unknown)}


def score_run(run: RunLayout) -> Score:
    """Compare a run with its plan.json, and keep the result as plan-score.json; raises ConfigError without a plan."""
    check_exists(run)
    try:
        plan = orjson.loads(storage.read_bytes(run.plan))
    except NotFoundError as error:
        raise ConfigError(
            f"{run.url} has no plan.json: it began with a scaletrain that kept no forecast, or could make none"
        ) from error
    known = read_attempts(run)
    records = read_records(run.metrics, last_step_of=known.last_step_of)
    found = compare(run.name, plan, records, wall_s=account(run).wall_s)
    storage.write_bytes(run.plan_score, orjson.dumps(found.record(), option=orjson.OPT_INDENT_2))
    return found


def compare(name: str, plan: Mapping[str, Any], records: Sequence[Mapping[str, Any]], *, wall_s: float) -> Score:
    """Hold a run's metrics against its plan, both as they are kept."""
    forecast = plan["configured"]
    points, unknown = [], []

    def add(what: str, unit: str, bounds: Mapping[str, float] | None, measured: float | None) -> None:
        if bounds is None or measured is None:
            unknown.append(f"{what}: {'was not forecast' if bounds is None else 'was not measured'}")
            return
        points.append(Point(what, unit, float(bounds["low"]), float(bounds["high"]), float(measured)))

    steady = records[1:] or records  # the first step compiles and warms up
    steps = [float(each["step_s"]) for each in steady]
    add("a step", "s", forecast["step_s"], median(steps) if steps else None)
    memory = max((int(each["memory_bytes"]) for each in records), default=None)
    add("a worker's memory", "GB", _in_gb(forecast["memory"]["measured_as"]), None if memory is None else memory / 1e9)
    shares = [float(each["mfu"]) for each in steady if each.get("mfu") is not None]
    if forecast["mfu"] is not None or shares:
        add("MFU", "", forecast["mfu"], median(shares) if shares else None)
    cost, total = forecast["cost"], plan["work"]["steps"]
    if not records or total is None or len(records) < total:
        unknown.append(f"hours and money: {len(records)} of {total} steps are there")
    else:
        add("hours", "h", cost and cost["hours"], wall_s / 3600)
        spent = next((float(each["cost_usd"]) for each in reversed(records) if each.get("cost_usd") is not None), None)
        add("money", "USD", cost and _spanning(cost["spot_usd"], cost["on_demand_usd"]), spent)
    return Score(name, tuple(points), tuple(unknown))


def score_display(score: Score) -> "Table":
    """The score as a person reads it."""
    from rich.table import Table

    table = Table(score.run, "between", "and", "became", "off the middle", "")
    for each in score.points:
        numbers = (f"{value:.4g} {each.unit}".strip() for value in (each.low, each.high, each.measured))
        off = "-" if each.off is None else f"{each.off:+.0%}"
        table.add_row(each.what, *numbers, off, "[green]inside[/]" if each.inside else "[red]outside[/]")
    table.caption, table.caption_justify = "\n".join(score.unknown), "left"
    return table


def _in_gb(bounds: Mapping[str, float]) -> dict[str, float]:
    return {name: value / 1e9 for name, value in bounds.items()}


def _spanning(one: Mapping[str, float] | None, other: Mapping[str, float] | None) -> dict[str, float] | None:
    """From the lower of two bands' bounds to the higher: a run's machines may be of both markets."""
    bands = [each for each in (one, other) if each is not None]
    if not bands:
        return None
    return {"low": min(each["low"] for each in bands), "high": max(each["high"] for each in bands)}
