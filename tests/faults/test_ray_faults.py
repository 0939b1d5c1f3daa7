"""Processes of a run on Ray that are frozen for ever, or killed while they read."""

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from commands import descendants, kill_everything, start, wait_for, write_tiny
from scaletrain import checkpoint
from scaletrain.layout import RunLayout
from scaletrain.verify import verify_run

_LOOK_S = 0.3  # a look asks every process of the machine; workers import for seconds before they train
pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


@dataclass(frozen=True)
class Training:
    """A run of two workers on a Ray of its own."""

    run: RunLayout
    process: "subprocess.Popen[str]"

    def workers(self) -> list[psutil.Process]:
        """Those of Ray Train that live."""
        return descendants(self.process.pid, "^ray::RayTrainWorker")

    def committed(self, attempt: int) -> bool:
        newest = checkpoint.latest(self.run)
        return newest is not None and newest.attempt == attempt

    def end(self) -> str:
        """Wait for the end of the command; returns what it told."""
        return self.process.communicate(timeout=400)[1]


@contextmanager
def training(folder: Path, name: str, *overrides: str) -> Iterator[Training]:
    """Start a run; where something does not happen in time, end it and show what it told."""
    process = start("train", write_tiny(folder, root=str(folder / "bucket")), f"name={name}", *overrides)
    found = Training(RunLayout(str(folder / "bucket"), name), process)
    try:
        yield found
    except (AssertionError, subprocess.TimeoutExpired) as error:
        kill_everything(process.pid)
        raise AssertionError(f"{error}\n{process.communicate()[1]}") from error
    finally:
        if process.poll() is None:
            kill_everything(process.pid)


def test_a_worker_that_is_frozen_for_ever_is_replaced(tmp_path: Path) -> None:
    """The other one ends after train.timeout_s; the frozen process goes as well; a new group goes on until SIGTERM."""
    with training(tmp_path, "frozen", "train.steps=100000", "train.timeout_s=20") as found:
        wait_for(lambda: found.committed(1), "a commit", limit_s=300)
        frozen = found.workers()[1]
        frozen.suspend()
        wait_for(lambda: found.committed(2), "a commit of the second attempt", limit_s=300)
        assert not frozen.is_running() or frozen.status() == psutil.STATUS_ZOMBIE
        found.process.send_signal(signal.SIGTERM)
        told = found.end()
    assert found.process.returncode == 130, told
    assert "a worker was lost" in told
    newest = checkpoint.latest(found.run)
    assert newest is not None and f"stopped at step {newest.step} of 100000, saved" in told
    assert verify_run(found.run).problems == ()


def test_workers_that_die_as_soon_as_they_start(tmp_path: Path) -> None:
    """Killed again and again before they train: the run ends and says so, it does not start them for ever."""
    process = start("train", write_tiny(tmp_path, root=str(tmp_path / "bucket")), "name=stillborn")
    found = Training(RunLayout(str(tmp_path / "bucket"), "stillborn"), process)
    killed: set[int] = set()
    try:
        while process.poll() is None and len(killed) < 20:
            time.sleep(_LOOK_S)
            for worker in found.workers():
                with suppress(psutil.NoSuchProcess):
                    worker.kill()
                    killed.add(worker.pid)
        assert len(killed) < 20, f"{len(killed)} workers were started, and the run goes on"
        told = found.end()
    finally:
        if process.poll() is None:
            kill_everything(process.pid)
    assert process.returncode == 1, told
    assert "workers were lost 3 times without a commit in between" in told
