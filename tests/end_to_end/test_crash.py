"""A run that is killed, or asked to stop, goes on as if nothing had happened."""

import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from commands import descendants, kill_everything, run, start, wait_for, write_tiny
from scaletrain import checkpoint
from scaletrain.goodput import account
from scaletrain.layout import RunLayout
from scaletrain.metrics import read_records
from scaletrain.train import ledger

STEPS = 80  # Seconds longer than any wait below: what is to be killed in mid-run still runs.

pytestmark = pytest.mark.timeout(900)


def wait_for_commit(layout: RunLayout, *, step: int) -> None:
    """Wait until a run has committed a step."""

    def is_committed() -> bool:
        newest = checkpoint.latest(layout)
        return newest is not None and newest.step >= step

    wait_for(is_committed, f"a commit of step {step}", limit_s=200)


def assert_equal_runs(found: RunLayout, expected: RunLayout) -> None:
    """The final state is the same bits, and every step had the same samples."""
    one, other = (checkpoint.open_checkpoint(layout.checkpoint(STEPS)) for layout in (found, expected))
    for kind in other.kinds:
        for name in other.names():
            np.testing.assert_array_equal(one.read(kind, name), other.read(kind, name))
    ledgers = [read_records(layout.ledger) for layout in (found, expected)]
    assert ledger.check_chain(ledgers[0]) == one.manifest.ledger_hash
    assert [(r["step"], r["samples"]) for r in ledgers[0]] == [(r["step"], r["samples"]) for r in ledgers[1]]
    assert [r["step"] for r in read_records(found.metrics)] == list(range(1, STEPS + 1))


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bucket")


@pytest.fixture(scope="module")
def undisturbed(bucket: Path) -> RunLayout:
    """Two Ray workers with ZeRO-2, to the end."""
    run("train", write_tiny(bucket, root=str(bucket)), "name=undisturbed", f"train.steps={STEPS}")
    return RunLayout(str(bucket), "undisturbed")


def test_sigkill_to_every_process_loses_nothing(bucket: Path, undisturbed: RunLayout) -> None:
    """Killed at a random moment after a commit, the same command ends with the same bits and the same samples."""
    config, layout = write_tiny(bucket, root=str(bucket)), RunLayout(str(bucket), "killed")
    command = ("train", config, "name=killed", f"train.steps={STEPS}")
    process = start(*command)
    wait_for_commit(layout, step=4)
    time.sleep(random.Random().uniform(0, 1.0))
    assert kill_everything(process.pid) > 5
    process.communicate()
    run(*command)
    assert_equal_runs(layout, undisturbed)
    parts = account(layout).parts
    assert parts.idle_s > 0 and parts.recovery_s == 0


def test_a_killed_preparation_is_done_anew(bucket: Path, undisturbed: RunLayout, tmp_path: Path) -> None:
    """Killed at a random moment, the same command ends with the same dataset, byte for byte, and nothing beside it."""
    config = write_tiny(tmp_path, root=str(tmp_path / "bucket"))
    process = start("prepare", config)
    wait_for(lambda: any((tmp_path / "bucket" / "models").glob("*/index.json")), "the model", limit_s=200)
    time.sleep(random.Random().uniform(0, 6.0))
    kill_everything(process.pid)
    process.communicate()
    prepared = Path(run("prepare", config).strip())
    expected = bucket / "data" / prepared.name
    names = sorted(path.name for path in prepared.iterdir())
    assert names == sorted(path.name for path in expected.iterdir())
    assert all((prepared / name).read_bytes() == (expected / name).read_bytes() for name in names)


def test_a_killed_worker_is_replaced_and_the_run_goes_on(bucket: Path, undisturbed: RunLayout) -> None:
    """One worker's SIGKILL ends the attempt; the next one starts from the newest commit, within the same command."""
    config, layout = write_tiny(bucket, root=str(bucket)), RunLayout(str(bucket), "worker-killed")
    began, process = time.time(), start("train", config, "name=worker-killed", f"train.steps={STEPS}")
    wait_for_commit(layout, step=4)
    workers = descendants(process.pid, "^ray::RayTrainWorker")
    assert len(workers) == 2
    workers[1].kill()
    _, errors = process.communicate(timeout=280)
    assert process.returncode == 0, errors
    assert "a worker was lost" in errors
    assert_equal_runs(layout, undisturbed)
    time_parts = account(layout).parts
    assert time_parts.recovery_s > 0 and time_parts.idle_s == 0
    assert time_parts.total_s < time.time() - began


@pytest.mark.parametrize("mode", [pytest.param("on Ray", marks=pytest.mark.soak), "local"])
def test_a_signal_saves_first_and_ends_with_130(bucket: Path, mode: str) -> None:
    """Ctrl-C (or SIGTERM): the step is finished and committed, and the same command goes on from there."""
    name = f"stopped-{mode.replace(' ', '-')}"
    number, options = (signal.SIGTERM, []) if mode == "on Ray" else (signal.SIGINT, ["--local"])
    layout = RunLayout(str(bucket), name)
    command = ["train", write_tiny(bucket, root=str(bucket)), *options, f"name={name}", "train.steps=100000"]
    process = start(*command)
    wait_for_commit(layout, step=4)
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    newest = checkpoint.latest(layout)
    assert newest is not None
    assert f"stopped at step {newest.step} of 100000" in errors
    assert f"is at step {newest.step + 2} of" in run(*command, f"debug.stop_after={newest.step + 2}")
    records = read_records(layout.ledger)
    assert len(records) == newest.step + 2
    ledger.check_chain(records)
