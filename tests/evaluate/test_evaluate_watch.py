"""Watching a run: each commit is measured once, as it comes, and the watch ends with the run."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_run import commit_scaled, small_config, write_corpus

from scaletrain import storage
from scaletrain.checkpoint import Manifest
from scaletrain.config import Config
from scaletrain.errors import CheckpointError
from scaletrain.evaluate import curve
from scaletrain.evaluate.compare import watch_run
from scaletrain.evaluate.measurement import Measurement
from scaletrain.evaluate.watch import watch
from scaletrain.layout import RunLayout


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return small_config(tmp_path, write_corpus(tmp_path / "talk.jsonl"))


def _run(config: Config) -> RunLayout:
    return RunLayout(config.storage.root, config.name)


def _steps(found: Iterator[Measurement]) -> list[int]:
    return [each.subject.step for each in found]


class _Measured:
    """What stands for a measurement where only the order matters."""

    def __init__(self, manifest: Manifest) -> None:
        self.subject = manifest


def test_commits_are_measured_while_they_come(config: Config, tmp_path: Path) -> None:
    """The watch finds each commit as it appears, measures all of them in order, and ends with the last step."""
    for step in (1, 2, 4):
        commit_scaled(config, step=step, scale=1.0 - 0.1 * step)
    folders = [Path(_run(config).checkpoint(step)) for step in (2, 4)]
    for folder in folders:
        folder.rename(tmp_path / folder.name)

    def train() -> None:
        for folder in folders:
            time.sleep(0.3)
            (tmp_path / folder.name).rename(folder)

    thread = threading.Thread(target=train)
    thread.start()
    found = list(watch_run(config, device="cpu", precision="fp32", poll_s=0.05))
    thread.join()
    assert [each.after.subject.step for each in found if each.after] == [1, 2, 4]
    drawn = curve.read(_run(config))
    assert drawn is not None
    assert [point.step for point in drawn.points] == [0, 1, 2, 4]
    assert found[-1].curve == drawn


def test_what_was_measured_before_is_not_measured_again(config: Config) -> None:
    """A watch that is started again finds its figures, and measures only what is new."""
    commit_scaled(config, step=4, scale=0.9)
    first, second = (
        [each.after for each in watch_run(config, device="cpu", precision="fp32", poll_s=0.05)] for _ in range(2)
    )
    assert [each.time for each in first if each] == [each.time for each in second if each]


def test_a_commit_that_was_pruned_before_its_turn_is_passed_over(config: Config) -> None:
    """Training prunes as it likes; the watch goes on with the next."""
    for step in (1, 2):
        commit_scaled(config, step=step, scale=1.0)

    def measure(manifest: Manifest) -> Measurement:
        if manifest.step == 1:
            storage.remove(_run(config).checkpoint(1))
            raise CheckpointError("rank-00000.safetensors is missing")
        return _Measured(manifest)  # type: ignore[return-value]

    assert _steps(watch(_run(config), measure, last_step=lambda: 2, poll_s=0.01)) == [2]


def test_damage_is_no_pruning(config: Config) -> None:
    """A checkpoint that is there and cannot be read ends the watch with its error."""
    commit_scaled(config, step=1, scale=1.0)

    def measure(manifest: Manifest) -> Measurement:
        raise CheckpointError("damaged")

    with pytest.raises(CheckpointError, match="damaged"):
        list(watch(_run(config), measure, last_step=lambda: None, poll_s=0.01))


def test_the_watch_ends_with_a_run_that_was_stopped(config: Config) -> None:
    """A run whose newest attempt has ended, and that nobody goes on with, is over for now."""
    run = _run(config)
    commit_scaled(config, step=1, scale=1.0)
    storage.write_bytes(run.attempt(1), b"{}")
    storage.write_bytes(run.attempt_file(1, "ended"), b"{}")
    found = watch(run, lambda manifest: _Measured(manifest), last_step=lambda: 9, poll_s=0.01, ended_for_s=0.05)  # type: ignore[arg-type, return-value]
    assert _steps(found) == [1]
