"""sweep.scaling_running: one point after the other, whatever becomes of it; the same command goes on."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from scaling_records_made import section_of, steps_of, study_config

from scaletrain import storage
from scaletrain.config import Config
from scaletrain.errors import ClusterError, ConfigError, Interrupted, StorageError, TrainingError
from scaletrain.layout import RunLayout, part_name
from scaletrain.stop_request import StopRequest
from scaletrain.sweep.scaling_points import Point
from scaletrain.sweep.scaling_running import Study, short_reason
from scaletrain.train.trainer import Summary

COUNTS = "{worker_counts: [1, 2, 4]}"


class Trainer:
    """Stands for `train`: leaves the metrics of a run in the bucket, or fails as it is told to by workers."""

    def __init__(self, failures: dict[int, Exception] | None = None, *, cost_usd: float | None = None) -> None:
        self.failures = failures or {}
        self.cost_usd = cost_usd
        self.asked: list[int] = []

    def __call__(
        self, config: Config, *, local: bool, stop: threading.Event, on_lines: Callable[[Sequence[bytes]], None]
    ) -> Summary:
        workers, run = config.scaling.workers, RunLayout(config.storage.root, config.name)
        assert isinstance(workers, int) and config.train.steps is not None and not local
        assert not storage.exists(run.config), "a point that is begun again begins from nothing"
        self.asked.append(workers)
        storage.write_text(run.config, "name: x")
        if workers in self.failures:
            raise self.failures[workers]
        point = Point(workers, config.zero.stage, config.train.global_batch_size)
        fields: dict[str, Any] = {"learning_rate": 1e-3} | ({"cost_usd": self.cost_usd} if self.cost_usd else {})
        lines = [orjson.dumps(line) for line in steps_of(point, 1000.0 * workers, count=config.train.steps, **fields)]
        storage.write_bytes(storage.join(run.metrics, part_name(1, 1)), b"\n".join(lines))
        on_lines(lines)
        return Summary(run.url, config.train.steps, config.train.steps, 0)


def study(
    root: Path, trainer: Trainer, *overrides: str, stop: StopRequest | None = None, before_s: float = 0.0
) -> Study:
    config = study_config(COUNTS, *overrides, root=str(root))
    stop = stop or StopRequest("")
    made = Study(config, section_of(config), 36_000, stop, attempt=1, before_s=before_s, train_run=trainer)
    made.run()
    return made


def test_a_point_that_fails_is_told_and_the_next_one_follows(tmp_path: Path) -> None:
    """From most workers to fewest; what was measured or has failed for good is not done again."""
    trainer = Trainer(
        {4: TrainingError("worker 0 failed:\nTraceback (most recent call last):\n  x\nOutOfMemory: 8 GB")}
    )
    records = study(tmp_path, trainer).records
    assert trainer.asked == [4, 2, 1]
    assert [(each.point.workers, each.state) for each in records.values()] == [
        *((4, "failed"), (2, "measured"), (1, "measured")),
    ]
    assert records[Point(4, 2, 12)].reason == "OutOfMemory: 8 GB"
    again = Trainer()
    assert study(tmp_path, again).records == records and again.asked == []


def test_machines_that_did_not_come_may_come_another_time(tmp_path: Path) -> None:
    """The same command tries such a point again, from nothing."""
    study(tmp_path, Trainer({4: ClusterError("no machines")}))
    again = Trainer()
    assert study(tmp_path, again).records[Point(4, 2, 12)].state == "measured" and again.asked == [4]


def test_an_interrupted_point_is_begun_again(tmp_path: Path) -> None:
    """After a signal nothing more begins; the next command measures the rest."""
    stop = StopRequest("")

    class Signalled(Trainer):
        def __call__(self, config: Config, **arguments: Any) -> Summary:
            super().__call__(config, **arguments)
            stop.asked.set()
            raise Interrupted("stopped at step 3")

    first = Signalled()
    assert study(tmp_path, first, stop=stop).records[Point(4, 2, 12)].state == "running" and first.asked == [4]
    again = Trainer()
    states = [each.state for each in study(tmp_path, again).records.values()]
    assert states == ["measured"] * 3 and again.asked == [4, 2, 1]


def test_the_bucket_s_failure_ends_the_study(tmp_path: Path) -> None:
    """Without it no other point could be measured either."""
    with pytest.raises(StorageError):
        study(tmp_path, Trainer({4: StorageError("s3 is down")}))


def test_a_run_of_somebody_else_s_is_not_removed(tmp_path: Path) -> None:
    """A run that has a point's name, but is not of this study, is an error."""
    run = RunLayout(str(tmp_path), "tiny.4-workers-stage-2-batch-12")
    storage.write_text(run.config, "name: precious")
    with pytest.raises(ConfigError, match="which is not this study's"):
        study(tmp_path, Trainer())
    assert storage.read_text(run.config) == "name: precious"


def test_limits_leave_the_rest_for_another_time(tmp_path: Path) -> None:
    """Hours count those of earlier commands; money that is not known cannot be kept to."""
    trainer = Trainer()
    assert "sweep.limit.hours=1 is reached" in study(tmp_path, trainer, "sweep.limit.hours=1", before_s=3600).short_of
    assert trainer.asked == []
    ended = study(tmp_path / "known", Trainer(cost_usd=6.0), "sweep.limit.usd=10")
    assert "sweep.limit.usd=10 is reached" in ended.short_of
    assert [each.cost_usd for each in ended.records.values()] == [6.0, 6.0]


def test_a_reason_is_one_line() -> None:
    """A traceback's last, else all that was said, shortened."""
    assert (
        short_reason("no workers came:\n  type a: quota\n  type b: spot")
        == "no workers came: type a: quota type b: spot"
    )
    assert len(short_reason("x" * 1000)) == 400 and short_reason("") == "no reason was given"
