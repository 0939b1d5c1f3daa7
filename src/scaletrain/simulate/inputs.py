"""From a configuration, or better a run that has trained a while, to what is simulated; and where each figure is from.

A run's own steps, saves and recoveries are read from its bucket. What it cannot tell (how long the cloud takes to bring
a machine, how often it takes one) is a default of `setting`, or what the user says.
"""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from scaletrain import checkpoint
from scaletrain.config import Config, WorkerRange
from scaletrain.errors import ConfigError
from scaletrain.goodput import TimeAccount, account
from scaletrain.layout import RunLayout
from scaletrain.metrics import read_attempt_records
from scaletrain.simulate import setting as defaults
from scaletrain.simulate.setting import Setting

_DAY_S = 86_400.0
_STATE_BYTES = 12  # of a trained parameter: fp32 master weight and two moments


@dataclass(frozen=True)
class Inputs:
    """What is simulated; `origins` tells where its figures are from, by what they are of."""

    setting: Setting
    origins: Mapping[str, str]


@dataclass(frozen=True)
class Measured:
    """What a run's bucket tells: seconds of a step by number of workers, of a save's stall with `stall_workers`.

    `pause_s` is the mean from the end of an attempt to the first step of the next, of `pauses` of them.
    """

    step_s: Mapping[int, float]
    stall_s: float | None
    stall_workers: int
    state_bytes: int | None
    pause_s: float | None
    pauses: int
    steps_seen: int


def read_measured(run: RunLayout) -> Measured | None:
    """What the steps of a run took; None where it has not trained yet. Raises StorageError."""
    records = read_attempt_records(run.metrics)
    by_workers: dict[int, list[float]] = {}
    stalls: list[tuple[int, float]] = []
    for attempt in records.values():
        for _, line in sorted(attempt.items())[1:]:  # the first step of an attempt is not like the others
            workers, stall_s = int(_number(line, "world_size")), _number(line, "checkpoint_stall_s")
            by_workers.setdefault(workers, []).append(_number(line, "step_s") - stall_s)
            if stall_s > 0:
                stalls.append((workers, stall_s))
    if not by_workers:
        return None
    newest = checkpoint.latest(run)
    time = account(run)
    pauses = sum(each.parts.recovery_s > 0 for each in time.attempts[1:])
    widest = max(by_workers)
    own_stalls = [stall_s for workers, stall_s in stalls if workers == widest] or [each for _, each in stalls]
    return Measured(
        step_s={workers: statistics.fmean(values) for workers, values in sorted(by_workers.items())},
        stall_s=statistics.median(own_stalls) if own_stalls else None,
        stall_workers=widest if any(workers == widest for workers, _ in stalls) else min(by_workers),
        state_bytes=newest.size_bytes if newest else None,
        pause_s=_mean_pause_s(time, pauses),
        pauses=pauses,
        steps_seen=sum(len(values) for values in by_workers.values()),
    )


def make_inputs(
    config: Config, measured: Measured | None, *, steps: int, days: float | None, parameters: int | None
) -> Inputs:
    """What to simulate for a configuration of so many steps; `days`: how long its steps would take undisturbed.

    `parameters` are those that are trained. Raises ConfigError where neither the run nor the user says how long a step
    takes.
    """
    workers = config.scaling.workers
    least, most = (workers.min, workers.max) if isinstance(workers, WorkerRange) else (workers, workers)
    micro = config.train.micro_batch_size
    rounds = -(-config.train.global_batch_size // (micro if isinstance(micro, int) else 1))
    origins: dict[str, str] = {"steps": f"{steps:,}: the run's"}
    fixed_s, micro_s = _step_parts(measured, rounds, most, steps, days, origins)
    if days is not None and measured is not None:
        step_s = fixed_s + -(-rounds // most) * micro_s
        steps = max(1, round(days * _DAY_S / step_s))
        origins["steps"] = f"{steps:,}: {days:g} days of them"
    state_bytes = parameters * _STATE_BYTES if parameters else measured.state_bytes if measured else None
    setting = Setting(
        steps=steps,
        micro_batches=rounds,
        micro_batch_s=micro_s,
        fixed_s=fixed_s,
        least=least,
        most=most,
        every_steps=config.checkpoint.every_steps,
        wait_s=60.0 * config.scaling.wait_minutes,
    )
    setting = _with_saves(setting, measured, state_bytes, origins)
    return Inputs(_with_start(setting, measured, origins), origins)


def _step_parts(
    measured: Measured | None, rounds: int, most: int, steps: int, days: float | None, origins: dict[str, str]
) -> tuple[float, float]:
    """What a step takes whatever the number of workers, and for each micro batch of a worker."""
    if measured is None:
        if days is None:
            raise ConfigError(
                "how long a step takes is not known, as the run has not trained yet: give --days, how many days all "
                "its steps take undisturbed with the most workers (`scaletrain plan` forecasts it)"
            )
        origins["a step"] = f"{days * _DAY_S / steps:.3g} s with {most} workers: from --days"
        return 0.0, days * _DAY_S / steps / -(-rounds // most)
    fixed_s, micro_s = _fit({-(-rounds // workers): step_s for workers, step_s in measured.step_s.items()})
    seen = ", ".join(f"{step_s:.3g} s with {workers}" for workers, step_s in measured.step_s.items())
    origins["a step"] = f"{seen} workers: {measured.steps_seen:,} steps of the run"
    return fixed_s, micro_s


def _fit(step_s: Mapping[int, float]) -> tuple[float, float]:
    """A step's seconds by its rounds of micro batches, as a fixed part and one for each round (least squares)."""
    if len(step_s) == 1:
        ((rounds, seconds),) = step_s.items()
        return 0.0, seconds / rounds
    slope, intercept = statistics.linear_regression(list(step_s), list(step_s.values()))
    if intercept >= 0 and slope > 0:
        return intercept, slope
    return 0.0, sum(rounds * each for rounds, each in step_s.items()) / sum(rounds**2 for rounds in step_s)


def _with_saves(
    setting: Setting, measured: Measured | None, state_bytes: int | None, origins: dict[str, str]
) -> Setting:
    """What a save and a restore take."""
    if state_bytes is None:
        raise ConfigError("the size of the state is not known: give --parameters, how many are trained")
    part_bytes = state_bytes / setting.most
    stall_s = part_bytes / defaults.COPY_BYTES_PER_S
    origins["a save's stall"] = (
        f"{stall_s:.3g} s: {part_bytes / 1e9:.3g} GB a worker, as benchmarks/results/checkpoint.md"
    )
    if measured is not None and measured.stall_s is not None:
        stall_s = measured.stall_s * measured.stall_workers / setting.most
        origins["a save's stall"] = f"{measured.stall_s:.3g} s with {measured.stall_workers} workers: the run's"
    upload_s = part_bytes / defaults.UPLOAD_BYTES_PER_S
    restore_s = part_bytes / defaults.RESTORE_BYTES_PER_S
    origins["a save's upload"] = (
        f"{upload_s:.3g} s: {part_bytes / 1e9:.3g} GB a worker, as benchmarks/results/upload.md"
    )
    return replace(setting, stall_s=stall_s, upload_s=upload_s, restore_s=restore_s)


def _with_start(setting: Setting, measured: Measured | None, origins: dict[str, str]) -> Setting:
    """What it takes until a group trains again."""
    pause_s = setting.loss_seen_s + setting.start_s
    if measured is None or measured.pause_s is None:
        origins["another start"] = f"{pause_s:.3g} s: as benchmarks/results/recovery.md and cluster.md"
        return setting
    origins["another start"] = f"{measured.pause_s:.3g} s: the mean of {measured.pauses} in the run"
    seen_s = min(setting.loss_seen_s, measured.pause_s / 2)
    start_s = max(0.0, measured.pause_s - seen_s - setting.restore_s)
    return replace(setting, loss_seen_s=seen_s, start_s=start_s)


def _mean_pause_s(time: TimeAccount, pauses: int) -> float | None:
    return sum(each.parts.recovery_s for each in time.attempts) / pauses if pauses else None


def _number(line: Mapping[str, Any], name: str) -> float:
    return float(line[name])
