"""Lines of metrics as columns of numbers: some 10 bytes a value, so that a million steps fit into memory."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt
import orjson

from scaletrain import storage
from scaletrain.errors import StorageError
from scaletrain.layout import attempt_of_part
from scaletrain.storage.parallel import in_parallel

_READERS = 16

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Columns:
    """Steps in order, and for each name as many values; NaN where a line has none. `time` is in seconds since 1970."""

    steps: npt.NDArray[np.int64]
    values: Mapping[str, Floats]

    def __getitem__(self, name: str) -> Floats:
        return self.values[name]

    def __len__(self) -> int:
        return len(self.steps)


@dataclass(frozen=True)
class Parts:
    """The uploaded parts of a run's metrics, oldest first: the attempt and the URL of each."""

    each: tuple[tuple[int, str], ...]

    def newest(self, count: int) -> "Parts":
        """The last ones only."""
        return Parts(self.each[-count:])


def list_parts(folder_url: str) -> Parts:
    """List the parts of a folder of records."""
    found = [
        (attempt, len(info.url), info.url)
        for info in storage.list_objects(folder_url)
        if (attempt := attempt_of_part(info.url)) is not None
    ]
    return Parts(tuple((attempt, url) for attempt, _, url in sorted(found)))


def read_columns(folder_url: str, names: Sequence[str]) -> dict[int, Columns]:
    """Every line of a folder of metrics, by attempt; raises StorageError."""
    return columns_of(list_parts(folder_url), names)


def columns_of(parts: Parts, names: Sequence[str]) -> dict[int, Columns]:
    """The lines of some parts, by attempt, in the order of steps; a step's last line counts."""
    tables = in_parallel(lambda part: _table(part[1], names), parts.each, max_workers=_READERS)
    found: dict[int, list[Floats]] = {}
    for (attempt, _), table in zip(parts.each, tables, strict=True):
        found.setdefault(attempt, []).append(table)
    return {attempt: _in_order(np.concatenate(own), names) for attempt, own in sorted(found.items())}


def counting(columns: Mapping[int, Columns], last_step_of: Callable[[int], int | None]) -> Columns:
    """One line for each step: a step that was trained again counts as the newest attempt trained it.

    `last_step_of` tells the last step of an attempt that counts, None where all do (see `attempts.Attempts`).
    """
    names = list(next(iter(columns.values())).values) if columns else []
    kept = [np.empty((0, 1 + len(names)))]
    for attempt, own in sorted(columns.items()):
        last = last_step_of(attempt)
        table = np.column_stack([own.steps, *(own[name] for name in names)])
        kept.append(table if last is None else table[own.steps <= last])
    return _in_order(np.concatenate(kept), names)


def _in_order(table: Floats, names: Sequence[str]) -> Columns:
    """A table whose first column is the step, as columns; the last line of each step stays."""
    _, backwards = np.unique(table[::-1, 0], return_index=True)
    rows = table[len(table) - 1 - backwards]
    values = {name: np.ascontiguousarray(rows[:, place]) for place, name in enumerate(names, start=1)}
    return Columns(rows[:, 0].astype(np.int64), values)


def _table(url: str, names: Sequence[str]) -> Floats:
    """A part's lines as rows of the step and the named values."""
    try:
        lines = [orjson.loads(line) for line in storage.read_bytes(url).splitlines()]
    except orjson.JSONDecodeError as error:
        raise StorageError(f"{url}: is not lines of JSON ({error}); remove it to go on without its steps") from error
    rows = [(float(line["step"]), *(_number(line.get(name)) for name in names)) for line in lines]
    return np.array(rows, dtype=np.float64).reshape(-1, 1 + len(names))


def _number(value: object) -> float:
    """A number, a time or a truth as a number."""
    if value is None:
        return math.nan
    return datetime.fromisoformat(value).timestamp() if isinstance(value, str) else float(value)  # type: ignore[arg-type]
