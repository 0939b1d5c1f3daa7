"""Scaling studies for tests that never ran: configurations, and records of points with made-up throughputs."""

from collections.abc import Callable, Mapping
from typing import Any

from sweep_configs import sweep_config

from scaletrain.config import Config
from scaletrain.config_scaling import ScalingStudySection
from scaletrain.sweep.scaling_points import Point, plan, point_config
from scaletrain.sweep.scaling_records import PointRecord, measurement

TOKENS_OF_A_ROW = 50


def study_config(scaling: str, *overrides: str, root: str = "bucket") -> Config:
    """A small configuration of a scaling study, with one row in a micro batch."""
    kind = f"{{kind: scaling, scaling: {scaling}}}"
    return sweep_config(kind, "train.micro_batch_size=1", "train.steps=36000", *overrides, root=root)


def section_of(config: Config) -> ScalingStudySection:
    assert config.sweep is not None and config.sweep.scaling is not None
    return config.sweep.scaling


def steps_of(point: Point, tokens_per_s: float, *, count: int = 20, **fields: Any) -> list[Mapping[str, Any]]:
    """Lines of metrics of a point's steps, all alike."""
    tokens = point.global_batch_size * TOKENS_OF_A_ROW
    step_s = tokens / tokens_per_s
    line = {"tokens": tokens, "tokens_per_s": tokens_per_s, "step_s": step_s, "data_wait_s": 0.0, "memory_bytes": 10**9}
    line |= {"checkpoint_stall_s": 0.0}
    return [
        {"step": step, **line, **fields, "time": f"2026-01-01T00:00:{step:02d}+00:00"} for step in range(1, count + 1)
    ]


def records_of(
    config: Config, tokens_per_s: Callable[[Point], float | None], **fields: Any
) -> dict[Point, PointRecord]:
    """A record of each point that a study plans; a point whose throughput is None has failed."""
    section, records = section_of(config), {}
    for point in plan(config, section):
        run = point_config(config, section, point)
        whole_steps = -(-36_000 * config.train.global_batch_size // point.global_batch_size)
        record = PointRecord(point, run.name, run.train.micro_batch_size, whole_steps)
        pace = tokens_per_s(point)
        if pace is None:
            told = {"state": "failed", "reason": "OutOfMemoryError: <b>no memory</b> | left", "error": "TrainingError"}
            records[point] = PointRecord(**{**vars(record), **told})
        else:
            measured = measurement(steps_of(point, pace, **fields), start_up_s=10.0)
            records[point] = PointRecord(**{**vars(record), "state": "measured", "measured": measured})
    return records
