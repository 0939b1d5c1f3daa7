"""Timing for benchmarks: arms in turns, medians with their intervals, CPU time beside wall time, Markdown tables.

A machine drifts while it is measured. So arms are run in turns, A B B A, and compared round by round; one arm runs
twice (the A/A control), and what it differs from itself by is what no other difference may claim to be more than.
"""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import psutil

AGAIN = " (again)"
_RESAMPLES = 2000


@dataclass(frozen=True)
class Timing:
    """One execution: seconds by the clock, and CPU seconds of this process and all below it."""

    wall_s: float
    cpu_s: float


@dataclass(frozen=True)
class Interval:
    """A median, and the 95% interval of its percentile bootstrap (Efron and Tibshirani 1993, chapter 13)."""

    median: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        return f"{self.median:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"


def interleave(
    arms: Mapping[str, Callable[[], None]], *, rounds: int, control: str, warm_up: int = 1
) -> dict[str, list[Timing]]:
    """Run every arm once a round, in alternating order, and the arm `control` a second time under the name + AGAIN."""
    order = [*arms.items(), (control + AGAIN, arms[control])]
    timings: dict[str, list[Timing]] = {name: [] for name, _ in order}
    for number in range(warm_up + rounds):
        for name, action in order if number % 2 == 0 else order[::-1]:
            timing = timed(action)
            if number >= warm_up:
                timings[name].append(timing)
    return timings


def timed(action: Callable[[], None]) -> Timing:
    """Run an action once."""
    cpu_s, start = cpu_seconds(), time.perf_counter()
    action()
    return Timing(time.perf_counter() - start, cpu_seconds() - cpu_s)


def scaletrain(*arguments: str) -> None:
    """Run a scaletrain command to its end; where it fails, the benchmark ends with what it printed."""
    command = [str(Path(sys.executable).with_name("scaletrain")), *arguments]
    ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if ended.returncode:
        sys.exit(f"scaletrain {' '.join(arguments)}: exit code {ended.returncode}\n{ended.stdout}")


def cpu_seconds() -> float:
    """CPU seconds of this process and of all processes below it that are alive; those of a local Ray among them."""
    process = psutil.Process()
    total = 0.0
    for each in (process, *process.children(recursive=True)):
        try:
            times = each.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def interval(values: Sequence[float]) -> Interval:
    """The median of some values and its 95% interval."""
    array = np.asarray(values, dtype=np.float64)
    generator = np.random.default_rng(0)
    medians = np.median(generator.choice(array, size=(_RESAMPLES, len(array))), axis=1)
    low, high = np.percentile(medians, (2.5, 97.5))
    return Interval(float(np.median(array)), float(low), float(high))


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Interval:
    """The median ratio of two arms' values, taken round by round."""
    return interval([one / other for one, other in zip(numerators, denominators, strict=True)])


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose columns line up in plain text too; all but the first column are aligned to the right."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        first, *others = (
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join((first, *others))} |"

    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join((line(header), line(rule), *(line(row) for row in rows)))


def machine(*packages: str) -> str:
    """One line on what was measured on: CPUs, load at the moment, Python and the versions of some packages."""
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    memory_gb = psutil.virtual_memory().total / 1e9
    return (
        f"{os.cpu_count()} CPUs ({platform.machine()}), {memory_gb:.0f} GB, load {os.getloadavg()[0]:.1f} before the "
        f"first arm; Python {platform.python_version()}, {versions}"
    )


def publish(report: str, path: Path | None) -> None:
    """Print a report, and keep it where a path is given."""
    sys.stdout.write(report.rstrip() + "\n")
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(report.rstrip() + "\n")
