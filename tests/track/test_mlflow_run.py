"""mlflow_run: one run in MLflow over several commands, tested with a database of its own."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from metric_rows import rows, store

from scaletrain.config_track import MlflowSection
from scaletrain.layout import RunLayout
from scaletrain.track.feed import Feed, Outcome
from scaletrain.track.mlflow_run import MlflowRun
from scaletrain.track.tracking import stored_rows

pytest.importorskip("mlflow")
pytest.importorskip("alembic")
CONFIG = {"name": "logged", "train": {"steps": 6}, "data": {"corpora": [{"format": "messages"}]}}


@pytest.fixture(scope="module")
def section(tmp_path_factory: pytest.TempPathFactory) -> MlflowSection:
    return MlflowSection(uri=f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db", experiment="tests")


def follow(section: MlflowSection, run: RunLayout, steps: range, *, outcome: Outcome = "finished") -> None:
    """What one command does: rows come, and it ends."""
    feed = Feed(MlflowRun(section, run, config=CONFIG), stored=partial(stored_rows, run))
    feed.add(rows(steps))
    feed.end(outcome)
    feed.wait(120)


def found_runs(section: MlflowSection, name: str) -> list[Any]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=section.uri)
    experiment = client.get_experiment_by_name("tests")
    assert experiment is not None
    return [run for run in client.search_runs([experiment.experiment_id]) if run.info.run_name == name]


def history(section: MlflowSection, run: Any, metric: str) -> list[tuple[int, float]]:
    from mlflow.tracking import MlflowClient

    found = MlflowClient(tracking_uri=section.uri).get_metric_history(run.info.run_id, metric)
    return sorted((point.step, point.value) for point in found)


def test_several_commands_make_one_run_with_every_step_once(section: MlflowSection, tmp_path: Path) -> None:
    """The second goes on after the last step that is there, whatever comes again, and states how it ended."""
    run = RunLayout(str(tmp_path / "bucket"), "logged")
    follow(section, run, range(1, 4), outcome="stopped")
    assert found_runs(section, "logged")[0].info.status == "KILLED"
    store(run, tmp_path / "killed", range(1, 6))
    follow(section, run, range(3, 8))
    (found,) = found_runs(section, "logged")
    assert history(section, found, "loss") == [(step, 1 / step) for step in range(1, 8)]
    assert found.info.status == "FINISHED"
    assert found.data.params["train.steps"] == "6"
    assert found.data.params["data.corpora"] == "[{'format': 'messages'}]"


def test_a_run_that_was_killed_knows_its_last_step(section: MlflowSection, tmp_path: Path) -> None:
    """A row is there whole or not at all, and tells its step, so that one that is done again is not sent again."""
    run = RunLayout(str(tmp_path / "bucket"), "killed")
    sink = MlflowRun(section, run, config=CONFIG)
    assert sink.open() == 0
    sink.send(rows(range(1, 51)))
    assert MlflowRun(section, run, config=CONFIG).open() == 50
    (found,) = found_runs(section, "killed")
    assert history(section, found, "loss") == [(step, 1 / step) for step in range(1, 51)]


def test_a_run_that_was_deleted_there_is_made_anew(section: MlflowSection, tmp_path: Path) -> None:
    """With every step from the bucket."""
    from mlflow.tracking import MlflowClient

    run = RunLayout(str(tmp_path / "bucket"), "deleted")
    store(run, tmp_path / "first", range(1, 4))
    follow(section, run, range(1, 4))
    MlflowClient(tracking_uri=section.uri).delete_run(found_runs(section, "deleted")[0].info.run_id)
    follow(section, run, range(4, 5))
    (found,) = found_runs(section, "deleted")
    assert [step for step, _ in history(section, found, "loss")] == [1, 2, 3, 4]
