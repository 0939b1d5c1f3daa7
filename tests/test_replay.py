"""replay: the batch that a step had, the state that it met, and the rows that made its loss."""

import os
import subprocess

import orjson
import pytest

from commands import SCALETRAIN
from commands import run as command
from scaletrain import storage
from scaletrain.config_file import dump_config
from scaletrain.errors import ConfigError
from scaletrain.layout import RunLayout
from scaletrain.metrics import read_records
from scaletrain.replay import replay_step
from workers import Prepared, make_job, make_prepared, train

SETTINGS = {"train__steps": 9, "checkpoint__every_steps": 4}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunLayout:
    """Nine steps of two workers, saved after the fourth, the eighth and the last."""
    prepared: Prepared = make_prepared(tmp_path_factory.mktemp("bucket"))
    run = RunLayout(prepared.root, "run")
    train(prepared, "run", workers=2, **SETTINGS)
    storage.write_text(run.config, dump_config(make_job(prepared, "run", **SETTINGS).config))
    return run


def test_the_batch_is_the_one_in_the_ledger_and_decoded(run: RunLayout, capsys: pytest.CaptureFixture[str]) -> None:
    """Any step's samples come back, each with the worker that had it."""
    found = replay_step(run, 6, device="cpu")
    ledger = {line["step"]: line["samples"] for line in read_records(run.ledger)}
    assert [row.sample for row in found.rows] == ledger[6]
    assert [row.rank for row in found.rows] == [0, 0, 1, 1] * 3
    assert found.in_ledger is True and found.loss is None
    assert f"sample {found.rows[0].sample}" in capsys.readouterr().err


def test_one_rank_has_its_rows_only(run: RunLayout) -> None:
    """Those of the micro batches that were dealt to it; a rank that never was is refused."""
    whole, half = replay_step(run, 2, device="cpu"), replay_step(run, 2, rank=1, device="cpu")
    assert half.rows == tuple(row for row in whole.rows if row.rank == 1)
    with pytest.raises(ConfigError, match="was trained by 2 workers"):
        replay_step(run, 2, rank=2, device="cpu")


@pytest.mark.parametrize(("step", "state_from"), [(7, 4), (5, 4), (2, 0)])
def test_the_state_is_rebuilt_and_the_rows_ranked(run: RunLayout, step: int, state_from: int) -> None:
    """Trained on from the nearest checkpoint, the loss is the recorded one, and the worst row comes first."""
    # A process of its own: DeepSpeed keeps the process group of the first engine that it has seen.
    found = orjson.loads(command("replay", run.url, "--step", str(step), "--blame", "--device", "cpu", "--json"))
    assert found["state_from"] == state_from
    assert found["loss"] == pytest.approx(found["recorded_loss"], abs=1e-5)
    losses = [row["loss"] for row in found["rows"] if row["loss"] is not None]
    assert losses == sorted(losses, reverse=True) and len(losses) == 12


def test_the_debugger_stops_before_the_step(run: RunLayout) -> None:
    """With the model and the rows at hand; afterwards the command goes on."""
    arguments = [SCALETRAIN, "replay", run.url, "--step", "6", "--local", "--device", "cpu", "--json"]
    asked = "p len(batch.micro_batches)\np type(engine).__name__\nc\n"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONBREAKPOINT"}  # Ray sets it
    done = subprocess.run(
        arguments, input=asked, capture_output=True, text=True, check=False, timeout=250, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "(Pdb) 12\n" in done.stdout and "'DeepSpeedEngine'" in done.stdout
    assert '"state_from": 4' in done.stdout


def test_a_step_beyond_the_run_is_refused(run: RunLayout) -> None:
    """No batch is made up for a step that the run will never do."""
    with pytest.raises(ConfigError, match="has 9 steps; use 1 to 9"):
        replay_step(run, 10, device="cpu")
