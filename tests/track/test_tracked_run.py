"""A run that is killed and goes on: every tracker has each of its steps once, and the bucket has no secret."""

import multiprocessing as mp
import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
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
    from scaletrain.errors import Interrupted
    from scaletrain.log import setup_logging
    from scaletrain.train.trainer import train

    os.environ.update(secrets)
    setup_logging()
    with suppress(Interrupted):
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


def losses_in(database: Path) -> list[tuple[int, float]]:
    """The steps that MLflow has, with their losses; none before its tables are made."""
    with suppress(sqlite3.OperationalError), closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as opened:
        return opened.execute("select step, value from metrics where key = 'loss' order by step").fetchall()
    return []


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_killed_run_goes_on_in_every_tracker(tmp_path: Path) -> None:
    """Steps that were done again are the same steps: each tracker keeps one, with the loss that the bucket has."""
    prepared = workers.make_prepared(tmp_path / "bucket")
    run, textfile = RunLayout(prepared.root, "tracked"), tmp_path / "tracked.prom"
    database = tmp_path / "mlflow.db"
    settings = {
        "name": "tracked",
        "train__steps": 100_000,
        "track__wandb": "{mode: offline}",
        "track__mlflow": f"{{uri: 'sqlite:///{database}'}}",
        "track__prometheus": f"{{textfile: {textfile}}}",
        "track__alerts": "{on: [finished, failed]}",
    }
    with receiving() as received:
        config = workers.tiny_config(prepared.root, **settings)
        secrets = {"SCALETRAIN_WEBHOOK": received.url, "WANDB_API_KEY": KEY}
        with training(config, secrets) as process:
            wait_for(lambda: checkpoint.latest(run) and losses_in(database), "a commit, and MLflow", limit_s=400)
            os.kill(process.pid, signal.SIGKILL)
        killed_at = max(step_in(textfile), *(step for step, _ in losses_in(database)))
        with training(config, secrets) as process:
            wait_for(lambda: losses_in(database)[-1][0] > killed_at + 20, "MLflow's next steps", limit_s=400)
            os.kill(process.pid, signal.SIGINT)
            process.join(200)
            assert process.exitcode == 0
        assert received.messages == []  # a kill is seen by nobody, and being asked to stop is no end of the run

    losses = {int(str(record["step"])): record["loss"] for record in read_records(run.metrics)}
    last = max(losses)
    assert last > killed_at + 20 and sorted(losses) == list(range(1, last + 1))
    assert losses_in(database) == [(step, losses[step]) for step in range(1, last + 1)]
    with closing(sqlite3.connect(database)) as opened:
        assert opened.execute("select count(*) from runs").fetchone() == (1,)
    assert len(list(Path(run.track, "wandb").rglob("*.wandb"))) == 1
    assert step_in(textfile) == last and 'scaletrain_running{run="tracked"} 0.0' in textfile.read_text()
    kept = b"".join(path.read_bytes() for path in Path(prepared.root).rglob("*") if path.is_file())
    assert KEY.encode() not in kept and b"/services/T0" not in kept
