"""Which runs to list and in what order: `loss<2`, `status=failed`, `name=small-*`, `zero.stage=2`; `-loss`.

A field is one of a summary's, or a dotted one of the configuration.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase

from scaletrain import yaml_text
from scaletrain.errors import ConfigError
from scaletrain.run_summary import STATUSES, RunSummary

NUMBERS = (
    *("step", "last_step", "total_steps", "loss", "validation_perplexity", "tokens", "tokens_per_s", "goodput"),
    *("cost_usd", "workers", "attempts"),
)
TEXTS = ("name", "status", "last_step_at")
TAKES_EVERY_LINE = ("tokens", "goodput")

_CONDITION = re.compile(r"\s*([\w.]+)\s*(<=|>=|!=|==|=|<|>)\s*(.+?)\s*")
_SUFFIX = {"k": 1e3, "M": 1e6, "G": 1e9, "%": 0.01}


@dataclass(frozen=True)
class Condition:
    """What runs have to be: `field` compared with `value`."""

    field: str
    operator: str
    value: str

    def holds(self, run: RunSummary) -> bool:
        """Whether a run is so; one without the field is not, also where it should differ."""
        found = value_of(run, self.field)
        if found is None:
            return False
        number = as_number(self.value)
        if isinstance(found, (int, float)) and not isinstance(found, bool) and number is not None:
            equal = math.isclose(found, number, rel_tol=1e-9)
            return {
                "<": found < number and not equal,
                "<=": found < number or equal,
                ">": found > number and not equal,
                ">=": found > number or equal,
            }.get(self.operator, equal == (self.operator != "!="))
        text = found if isinstance(found, str) else yaml_text.dump_value(found)
        if self.operator in ("<", "<=", ">", ">="):
            return text < self.value if "<" in self.operator else text > self.value
        return fnmatchcase(text, self.value) == (self.operator != "!=")


@dataclass(frozen=True)
class Order:
    """By which field; `falling` begins with the largest."""

    field: str
    falling: bool


@dataclass(frozen=True)
class Selection:
    """Conditions that all have to hold, orders of which the first matters most, and how many runs to show."""

    conditions: tuple[Condition, ...] = ()
    orders: tuple[Order, ...] = ()
    limit: int | None = None

    @property
    def takes_every_line(self) -> bool:
        """Whether it asks for a figure that only the whole of the metrics tells."""
        return any(name in TAKES_EVERY_LINE for name in self._fields)

    def of(self, runs: Sequence[RunSummary]) -> list[RunSummary]:
        """The runs to show; those without a field that they are ordered by come last. Raises ConfigError.

        Runs that cannot be read are always among them: nobody knows whether the conditions hold.
        """
        self._check_fields(runs)
        bad = [run for run in runs if run.status == "unreadable"]
        asks_for_bad = any(each.field == "status" for each in self.conditions)
        found = [run for run in runs if run not in bad and all(each.holds(run) for each in self.conditions)]
        for order in reversed(self.orders):
            there = [run for run in found if value_of(run, order.field) is not None]
            there.sort(key=_comparable(order.field), reverse=order.falling)
            found = there + [run for run in found if value_of(run, order.field) is None]
        shown = [run for run in bad if not asks_for_bad or all(each.holds(run) for each in self.conditions)]
        return [*found[: self.limit], *shown]

    @property
    def _fields(self) -> list[str]:
        return [*(each.field for each in self.conditions), *(each.field for each in self.orders)]

    def _check_fields(self, runs: Sequence[RunSummary]) -> None:
        """A dotted field that no run has is a slip of the pen."""
        dotted = {name for name in self._fields if "." in name}
        known = sorted({name for run in runs for name in run.config})
        if known and (unknown := [name for name in sorted(dotted) if name not in known]):
            raise ConfigError([f"{name}: no run has such a field{_meant(name, known)}" for name in unknown])


def parse_selection(where: Sequence[str], sort: Sequence[str], limit: int | None) -> Selection:
    """Read what a user typed; raises ConfigError with every problem."""
    problems: list[str] = []
    conditions = [found for text in where if (found := _condition(text, problems))]
    orders = []
    for text in (name.strip() for each in sort for name in each.split(",")):
        name = text.removeprefix("-")
        if problem := _unknown(name):
            problems.append(f"--sort {text}: {problem}")
        orders.append(Order(name, falling=text.startswith("-")))
    if limit is not None and limit < 1:
        problems.append(f"--limit {limit}: give 1 or more, or leave it out to see all")
    if problems:
        raise ConfigError(problems)
    return Selection(tuple(conditions), tuple(orders), limit)


def value_of(run: RunSummary, name: str) -> object:
    """A run's value of a field, or None."""
    return run.config.get(name) if "." in name else getattr(run, name)


def as_number(text: str) -> float | None:
    """A number as people write it: 2, 1e-4, 60%, 1.5k; None for anything else."""
    text = text.replace(",", "").replace("_", "").removeprefix("$")
    factor = _SUFFIX.get(text[-1:], 1.0)
    try:
        found = float(text if factor == 1.0 else text[:-1]) * factor
    except ValueError:
        return None
    return None if math.isnan(found) else found


def _condition(text: str, problems: list[str]) -> Condition | None:
    match = _CONDITION.fullmatch(text)
    if match is None:
        if text in STATUSES:
            return Condition("status", "=", text)
        if text in (*NUMBERS, *TEXTS):
            problems.append(
                f"--where {text}: compare it with something, as '{text}{'<2' if text in NUMBERS else '=x'}'"
            )
        elif re.search(r"[<>=]", text):
            problems.append(f"--where {text!r}: is no condition; write 'loss<2', 'status=failed' or 'name=small-*'")
        else:
            return Condition("name", "=", text)
        return None
    name, operator, value = match.groups()
    found = Condition(name, "=" if operator == "==" else operator, value.strip("'\""))
    if problem := _unknown(name):
        problems.append(f"--where {text!r}: {problem}")
    elif name in NUMBERS and as_number(found.value) is None:
        problems.append(f"--where {text!r}: {name} is a number, and {found.value!r} is none; write as '{name}<2'")
    elif name == "status" and operator in ("=", "==", "!=") and not any(fnmatchcase(s, found.value) for s in STATUSES):
        problems.append(f"--where {text!r}: no such status; there are {', '.join(STATUSES)}")
    elif name in ("name", "status") and found.operator not in ("=", "!="):
        problems.append(f"--where {text!r}: {name} is text; compare it with = or !=")
    return found


def _unknown(name: str) -> str:
    """Why a field cannot be asked for; "" where it can, or where only the runs can tell."""
    known = (*NUMBERS, *TEXTS)
    if "." in name or name in known:
        return ""
    there = f"; there are {', '.join(known)}, and those of the configuration by dotted name"
    return f"no such field{_meant(name, known) or there}"


def _meant(name: str, known: Sequence[str]) -> str:
    close = get_close_matches(name, known, n=1)
    return f", did you mean {close[0]}?" if close else ""


def _comparable(name: str) -> Callable[[RunSummary], tuple[bool, float, str]]:
    """Numbers before texts, so that a field that is both can be sorted by."""

    def key(run: RunSummary) -> tuple[bool, float, str]:
        value = value_of(run, name)
        is_number = isinstance(value, (int, float))
        return not is_number, float(value) if isinstance(value, (int, float)) else 0.0, str(value)

    return key
