"""A run that is killed and goes on: every tracker has each of its steps once, and the bucket has no secret."""

import multiprocessing as mp
import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from webhook_receiver import receiving

import workers
from commands import kill_everything, wait_for
from scaletrain import checkpoint
from scaletrain.layout import RunLayout
from scaletrain.metrics import read_records

pytest.importorskip("mlflow")
pytest.importorskip("alembic")
pytest.importorskip("wandb")
KEY = "0123456789abcdef0123456789abcdef01234567"


def _train(config: Any, secrets: dict[str, str]) -> None:
    """What `train --local` does."""
    from scaletrain.log import setup_logging
    from scaletrain.train.trainer import train

    os.environ.update(secrets)
    setup_logging()
    train(config, local=True)


@contextmanager
def training(config: Any, secrets: dict[str, str]) -> Iterator[Any]:
    """A process that trains; forked from one that has imported what that needs."""
    process = mp.get_context("forkserver").Process(target=_train, args=(config, secrets))
    process.start()
    try:
        yield process
    finally:
        if process.is_alive():
            kill_everything(process.pid)
        process.join(20)


def step_in(textfile: Path) -> int:
    if not textfile.exists():
        return 0
    lines = [line for line in textfile.read_text().splitlines() if line.startswith("scaletrain_step{")]
    return int(float(lines[0].rpartition(" ")[2])) if lines else 0


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_killed_run_goes_on_in_every_tracker(tmp_path: Path) -> None:
    """Steps that were done again are the same steps: each tracker keeps one, with the loss that the bucket has."""
    prepared = workers.make_prepared(tmp_path / "bucket")
    run, textfile = RunLayout(prepared.root, "tracked"), tmp_path / "tracked.prom"
    settings = {
        "name": "tracked",
        "train__steps": 100_000,
        "track__wandb": "{mode: offline}",
        "track__mlflow": f"{{uri: 'sqlite:///{tmp_path}/mlflow.db'}}",
        "track__prometheus": f"{{textfile: {textfile}}}",
        "track__alerts": "{on: [finished, failed]}",
    }
    with receiving() as received:
        secrets = {"SCALETRAIN_WEBHOOK": received.url, "WANDB_API_KEY": KEY}
        with training(workers.tiny_config(prepared.root, **settings), secrets) as process:
            wait_for(lambda: step_in(textfile) > 10 and checkpoint.latest(run), "a commit", limit_s=300)
            os.kill(process.pid, signal.SIGKILL)
        newest = checkpoint.latest(run)
        assert newest is not None
        last = max(newest.step, step_in(textfile)) + 20
        with training(workers.tiny_config(prepared.root, **settings, debug__stop_after=last), secrets) as process:
            process.join(400)
            assert process.exitcode == 0
        assert received.messages == []  # a kill is seen by nobody, and stop_after is no end of the run

    losses = {int(str(record["step"])): record["loss"] for record in read_records(run.metrics)}
    assert sorted(losses) == list(range(1, last + 1))
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        points = database.execute("select step, value from metrics where key = 'loss' order by step").fetchall()
        assert points == [(step, losses[step]) for step in range(1, last + 1)]
        assert database.execute("select count(*) from runs").fetchone() == (1,)
    assert len(list(Path(run.track, "wandb").rglob("*.wandb"))) == 1
    assert step_in(textfile) == last and 'scaletrain_running{run="tracked"} 0.0' in textfile.read_text()
    kept = b"".join(path.read_bytes() for path in Path(prepared.root).rglob("*") if path.is_file())
    assert KEY.encode() not in kept and b"/services/T0" not in kept
