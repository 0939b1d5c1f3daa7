"""Rows shared out through Ray Data: the same figures whatever the number of workers, and errors as they are."""

import pickle
from typing import Any

import numpy as np
import psutil
import pytest
from small_run import small_config, write_corpus

from scaletrain import ray_cluster
from scaletrain.data.prepare import prepare
from scaletrain.data.shards import load_index
from scaletrain.errors import DataError
from scaletrain.evaluate.contender import Contender
from scaletrain.evaluate.on_ray import Scorer, count_workers, score_on_ray
from scaletrain.evaluate.rows import RowsToScore, score_here
from scaletrain.layout import RunLayout

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> RowsToScore:
    """The validation rows of a small corpus, and a random model."""
    folder = tmp_path_factory.mktemp("ray")
    config = small_config(folder, write_corpus(folder / "talk.jsonl", conversations=400))
    inputs = prepare(config, use_ray=False)
    index = load_index(inputs.dataset_url)
    contender = Contender(RunLayout(config.storage.root, config.name), config, inputs.model_url, None)
    return RowsToScore(contender, inputs.dataset_url, index, index.splits["validation"].rows, 2, "cpu", "fp32")


def test_figures_do_not_depend_on_the_number_of_workers(
    work: RowsToScore, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Two workers, one that is killed and its successor, and this process: the same answers, losses and sums.

    And Ray prints nothing of its own between our lines.
    """
    told: list[int] = []

    def kill(rows: int) -> None:
        told.append(rows)
        if len(told) == 1:
            (worker,) = [each for each in psutil.Process().children(recursive=True) if "Scorer" in each.name()]
            worker.kill()

    with ray_cluster.connected(num_cpus=3):
        two = score_on_ray(work, workers=2, on_rows=lambda rows: None)
        printed = capfd.readouterr()
        one = score_on_ray(work, workers=1, on_rows=kill)
    assert printed == ("", "")
    assert sum(told) == work.rows
    assert "a worker was lost" in caplog.text
    here = score_here(work, work.contender.load("cpu", "fp32"), first=0, stop=work.rows, on_rows=lambda rows: None)
    assert one.rows.sample_id.tolist() == two.rows.sample_id.tolist() == here.rows.sample_id.tolist()
    assert one.rows.nll.tolist() == two.rows.nll.tolist()
    assert one.calibration.confidence.tolist() == two.calibration.confidence.tolist()
    np.testing.assert_allclose(one.rows.nll, here.rows.nll, rtol=1e-6)
    assert one.calibration.count.sum() == here.calibration.count.sum() == here.rows.tokens.sum()


def test_a_workers_error_arrives_as_it_was_raised(work: RowsToScore) -> None:
    """What a worker cannot read is told in our words, not as a traceback of Ray's."""
    broken = RowsToScore(**{**vars(work), "dataset_url": f"{work.dataset_url}-gone"})
    answer = Scorer(broken, {})({"first": [0], "stop": [2]})
    assert answer["failed"] == [True]
    with pytest.raises(DataError, match="is missing"):
        raise pickle.loads(answer["result"][0])


@pytest.mark.parametrize(("wanted", "expected"), [(None, 1), (1, 1), (3, 3)])
def test_without_a_cluster_this_process_does_the_work(
    monkeypatch: pytest.MonkeyPatch, wanted: Any, expected: int
) -> None:
    """Ray is started only where more than one worker is asked for."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert count_workers(wanted, device="cuda") == expected
