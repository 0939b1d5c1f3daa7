"""Where the wall time of a run went, over all its attempts, told by the bucket alone.

Time is one line from the first claim to the last sign of life, cut wherever the records say that something else began;
so the parts add up to the whole after any crash. A time that lies before an earlier one, as where the clocks of two
machines differ, makes a part of no length. What an older attempt did in vain gives way to a newer one's time.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from itertools import chain, pairwise
from typing import TYPE_CHECKING, NamedTuple

from scaletrain.attempts import Attempts, Signs, read_attempts, read_signs
from scaletrain.layout import RunLayout
from scaletrain.metric_columns import Columns, read_columns
from scaletrain.metrics import UPLOAD_EVERY_S

if TYPE_CHECKING:
    from rich.table import Table

COLUMNS = ("time", "step_s", "data_wait_s", "checkpoint_stall_s")


@dataclass(frozen=True)
class TimeParts:
    """Seconds by what they went into.

    `lost_work_s`: steps that do not count, as a later attempt went on without them, and what was trained unrecorded.
    `recovery_s`: within one command, from the last thing an attempt did to the first step of the next; `idle_s`: from
    the last sign of one command to the first claim of the next. `shut_down_s`: the last commit and the workers' end.
    """

    start_up_s: float = 0.0
    productive_s: float = 0.0
    data_wait_s: float = 0.0
    checkpoint_stall_s: float = 0.0
    lost_work_s: float = 0.0
    recovery_s: float = 0.0
    shut_down_s: float = 0.0
    idle_s: float = 0.0

    @property
    def total_s(self) -> float:
        return sum(self.by_name().values())

    def by_name(self) -> dict[str, float]:
        """The seconds by the name of their part, as `lost work`."""
        return {part.name.removesuffix("_s").replace("_", " "): getattr(self, part.name) for part in fields(self)}


@dataclass(frozen=True)
class AttemptTime:
    """One attempt's part of the time, with the gap before it; `lost_steps` of its `steps` do not count."""

    attempt: int
    steps: int
    lost_steps: int
    parts: TimeParts


@dataclass(frozen=True)
class TimeAccount:
    """The whole: `goodput` is the share of the wall time that went into steps that count, without their waiting."""

    wall_s: float
    goodput: float
    parts: TimeParts
    attempts: tuple[AttemptTime, ...]

    def record(self) -> dict[str, object]:
        """The account as plain data."""
        return asdict(self)


def account(run: RunLayout) -> TimeAccount:
    """Read where a run's time went; while it runs, up to its last sign of life. Raises StorageError."""
    known = read_attempts(run)
    return account_of(known, read_signs(run, known), read_columns(run.metrics, COLUMNS))


def account_of(known: Attempts, signs: Mapping[int, Signs], steps: Mapping[int, Columns]) -> TimeAccount:
    """The same, of what was read already: `steps` has at least the COLUMNS of each attempt."""
    histories = _histories(known, signs, steps)
    seconds: dict[int, dict[str, float]] = {history.attempt: {} for history in histories}
    first = clock = histories[0].start if histories else 0.0
    for stretch in chain.from_iterable(map(_stretches, histories)):
        parts = seconds[stretch.attempt]
        parts[stretch.part] = parts.get(stretch.part, 0.0) + max(0.0, stretch.until - clock)
        clock = max(clock, stretch.until)
    each = [
        AttemptTime(
            attempt=history.attempt,
            steps=len(history.steps),
            lost_steps=sum(not step.counts for step in history.steps),
            parts=_rounded(seconds[history.attempt]),
        )
        for history in histories
    ]
    whole = _rounded({part.name: sum(getattr(one.parts, part.name) for one in each) for part in fields(TimeParts)})
    wall_s = round(clock - first, 3)
    return TimeAccount(wall_s, whole.productive_s / wall_s if wall_s else 0.0, whole, tuple(each))


def time_table(time: TimeAccount, usd: Mapping[str, float] | None = None) -> "Table":
    """The account as a person reads it, with the money that each part cost where that is known (see cost.py)."""
    from rich.table import Table

    table = Table("wall time", caption=f"goodput {time.goodput:.1%}", caption_justify="left")
    columns = ["seconds", "share", *([""] if readable(time.wall_s) else []), *(["USD"] if usd is not None else [])]
    for column in columns:
        table.add_column(column, justify="right")
    for name, seconds in {**time.parts.by_name(), "total": time.wall_s}.items():
        share = seconds / time.wall_s if time.wall_s else 0.0
        more = [readable(seconds)] if readable(time.wall_s) else []
        if usd is not None:
            more.append(f"{sum(usd.values()) if name == 'total' else usd[name]:,.2f}")
        table.add_row(name, f"{seconds:,.1f}", f"{share:.1%}", *more, end_section=name == "idle")
    return table


def readable(seconds: float) -> str:
    """Minutes, hours or days, as `3 h 05 min`; empty below a minute."""
    minutes = round(seconds / 60)
    if seconds < 60:
        return ""
    if minutes < 60:
        return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
    hours = minutes // 60
    return f"{hours} h {minutes % 60:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24:02d} h"


class _Step(NamedTuple):
    began: float
    ended: float
    data_wait_s: float
    checkpoint_stall_s: float
    counts: bool


@dataclass(frozen=True)
class _History:
    """One attempt between its neighbours.

    `goes_on`: the attempt before was lost, and the same command went on with this one; `gone_on_from`: likewise with
    the attempt after it. `following` is when that one was claimed; infinite for the newest.
    """

    attempt: int
    start: float
    following: float
    goes_on: bool
    gone_on_from: bool
    signs: Signs
    steps: tuple[_Step, ...]


class _Stretch(NamedTuple):
    """What an attempt did from where the stretch before it ends until some time."""

    attempt: int
    part: str
    until: float


def _stretches(history: _History) -> Iterator[_Stretch]:
    """An attempt's time from the end of the one before, in order."""
    signs, steps = history.signs, history.steps
    times = (history.start, signs.began, signs.heartbeat, signs.ended, steps[-1].ended if steps else None)
    last = max(time for time in times if time is not None)

    def until(time: float, part: str) -> _Stretch:
        return _Stretch(history.attempt, part, time)

    yield until(history.start, "recovery_s" if history.goes_on else "idle_s")
    opening = "recovery_s" if history.goes_on else "start_up_s"
    if steps:
        yield until(steps[0].began, opening)
    elif signs.began is None or (history.following == math.inf and signs.ended is None):
        # It never came to a step, or its first one is not there yet.
        yield until(min(last, history.following), opening)
        return
    else:
        yield until(min(signs.began, history.following), opening)
    for step in steps:
        if step.counts:
            waited = step.began + step.checkpoint_stall_s
            yield until(step.began, "productive_s")
            yield until(min(waited, step.ended), "checkpoint_stall_s")
            yield until(min(waited + step.data_wait_s, step.ended), "data_wait_s")
            yield until(step.ended, "productive_s")
        else:
            yield until(min(step.ended, history.following), "lost_work_s")
    if history.gone_on_from:
        yield until(min(last, history.following), "recovery_s")
    elif signs.ended is not None:
        yield until(min(last, history.following), "shut_down_s")
    elif history.following < math.inf:
        yield until(min(last, history.following), "lost_work_s")
    else:
        # It trains, or died a moment ago: lines may still be on their way for so long, and count as the others do.
        on_their_way_s = UPLOAD_EVERY_S + max(step.ended - step.began for step in steps)
        yield until(min(last, steps[-1].ended + on_their_way_s), "productive_s")
        yield until(last, "lost_work_s")


def _histories(known: Attempts, signs: Mapping[int, Signs], columns: Mapping[int, Columns]) -> list[_History]:
    """Every attempt that left any time at all, in order."""
    nothing = Signs(None, None, None, None, None, failed=False)
    found: list[tuple[int, float, Signs, tuple[_Step, ...]]] = []
    for attempt in sorted({*signs, *columns}):
        own = signs.get(attempt, nothing)
        steps = _steps(columns[attempt], last=known.last_step_of(attempt)) if attempt in columns else ()
        starts = (own.claimed, steps[0].began if steps else None, own.began, own.heartbeat, own.ended)
        start = next((time for time in starts if time is not None), None)
        if start is not None:
            found.append((attempt, start, own, steps))
    one_command = [False, *(is_one_command(one[2], other[2]) for one, other in pairwise(found)), False]
    return [
        _History(
            attempt=attempt,
            start=start,
            following=found[place + 1][1] if place + 1 < len(found) else math.inf,
            goes_on=one_command[place],
            gone_on_from=one_command[place + 1],
            signs=own,
            steps=steps,
        )
        for place, (attempt, start, own, steps) in enumerate(found)
    ]


def is_one_command(one: Signs, other: Signs) -> bool:
    """Whether two attempts in a row were made by one command: by one process, and the first was lost."""
    if one.claim is None or other.claim is None or (one.ended is not None and not one.failed):
        return False
    processes = [(claim.machine, claim.pid, claim.process_started) for claim in (one.claim, other.claim)]
    return processes[0] == processes[1]


def _steps(columns: Columns, *, last: int | None) -> tuple[_Step, ...]:
    """An attempt's steps; those after `last` do not count."""
    ended, length, waited, stalled = (columns[name].tolist() for name in COLUMNS)
    counts = [last is None or step <= last for step in columns.steps.tolist()]
    rows = zip(ended, length, waited, stalled, counts, strict=True)
    return tuple(_Step(end - step_s, end, wait_s, stall_s, own) for end, step_s, wait_s, stall_s, own in rows)


def _rounded(seconds: Mapping[str, float]) -> TimeParts:
    return TimeParts(**{name: round(value, 3) for name, value in seconds.items()})
