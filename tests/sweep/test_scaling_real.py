"""A scaling study through Ray Train, as a user runs it."""

from pathlib import Path

import orjson
import pytest

from commands import run, write_tiny
from scaletrain import storage
from scaletrain.attempts import read_attempts
from scaletrain.config_file import load_config
from scaletrain.layout import RunLayout
from scaletrain.sweep.records import SweepLayout
from scaletrain.sweep.scaling_records import read_points
from scaletrain.verify import verify_run

pytestmark = [pytest.mark.soak, pytest.mark.timeout(400)]

STUDY = "sweep={kind: scaling, scaling: {worker_counts: [1, 2], settling_steps: 2, measured_steps: 6}}"


def test_a_study_measures_every_point_once_and_goes_on_with_those_that_were_added(tmp_path: Path) -> None:
    """Each point is a run that verifies; what was measured stays; with --json stdout has the results alone."""
    config, layout = write_tiny(tmp_path, root=str(tmp_path)), SweepLayout(str(tmp_path), "tiny")
    arguments = ("sweep", config, "scaling.cpus_per_worker=0.5", STUDY)
    assert orjson.loads(run(*arguments, "sweep.scaling.worker_counts=[1]", "--json"))["best"]["point"]["workers"] == 1
    (first,) = read_points(layout).values()
    known = read_attempts(RunLayout(str(tmp_path), first.run))

    told = run(*arguments)
    points = read_points(layout)
    assert points[first.point] == first and read_attempts(RunLayout(str(tmp_path), first.run)) == known
    assert sorted((each.point.workers, each.state) for each in points.values()) == [(1, "measured"), (2, "measured")]
    for record in points.values():
        measured = record.measured
        assert measured is not None and measured.steps == 6 and measured.start_up_s > 0
        assert measured.tokens_per_s.low <= measured.tokens_per_s.median <= measured.tokens_per_s.high
        assert verify_run(RunLayout(str(tmp_path), record.run)).problems == ()
    assert "fastest" in told and "fastest" in run("sweep", "show", "tiny", "--root", str(tmp_path))
    best = load_config(layout.best)
    assert best.scaling.workers in (1, 2) and best.train.steps == 16
    results = orjson.loads(storage.read_bytes(layout.results("json")))
    assert [each["point"]["workers"] for each in results["curves"][0]["points"]] == [1, 2]
