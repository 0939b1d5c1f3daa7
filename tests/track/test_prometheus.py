"""prometheus: what a scrape of a run shows, and that the dashboard asks for nothing else."""

import json
import re
import socket
from pathlib import Path
from urllib.request import urlopen

import pytest
from metric_rows import rows
from prometheus_client.parser import text_string_to_metric_families

from saved_checkpoint import save
from scaletrain import storage
from scaletrain.config_track import PrometheusSection
from scaletrain.layout import RunLayout
from scaletrain.track.prometheus import OF_A_ROW, OTHERS, Prometheus

DASHBOARD = Path(__file__).parents[2] / "cluster/grafana/scaletrain.json"


def commit(run: RunLayout, step: int) -> None:
    save(run, step)
    storage.write_text(run.newest_hint, str(step))


def samples(text: str) -> dict[str, float]:
    """The value of each series; every one has the run's name as its label."""
    found = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    assert all(sample.labels == {"run": "seen"} for sample in found)
    return {sample.name: sample.value for sample in found}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_scrape_shows_the_newest_row(tmp_path: Path) -> None:
    """What a row does not have is not shown as 0; when the command ends, nobody answers."""
    port = free_port()
    sink = Prometheus(PrometheusSection(port=port), RunLayout(str(tmp_path), "seen"), total_steps=9, on_cluster=True)
    sink.open()
    sink.send(rows([3, 4]))
    with urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        found = samples(answer.read().decode())
    assert (found["scaletrain_step"], found["scaletrain_loss"], found["scaletrain_workers"]) == (4, 0.25, 2)
    assert found["scaletrain_running"] == 1 and found["scaletrain_total_steps"] == 9
    assert "scaletrain_mfu_ratio" not in found and "scaletrain_newest_commit_step" not in found
    sink.close("finished")
    with pytest.raises(OSError, match="refused"):
        urlopen(f"http://127.0.0.1:{port}/metrics")


def test_a_textfile_stays_and_says_that_the_command_has_ended(tmp_path: Path) -> None:
    """For node_exporter; the newest checkpoint is in it."""
    run = RunLayout(str(tmp_path / "bucket"), "seen")
    path = tmp_path / "metrics/scaletrain.prom"
    sink = Prometheus(PrometheusSection(textfile=str(path)), run, total_steps=9, on_cluster=False)
    sink.open()
    commit(run, 4)
    sink.send(rows([5]))
    sink.close("finished")
    found = samples(path.read_text())
    assert (found["scaletrain_step"], found["scaletrain_running"]) == (5, 0)
    assert found["scaletrain_newest_commit_step"] == 4 and found["scaletrain_newest_commit_time_seconds"] > 1e9


def test_every_metric_has_its_sample_when_a_row_has_it_all(tmp_path: Path) -> None:
    """The names of the tables are those of the exporter."""
    path = tmp_path / "a.prom"
    run = RunLayout(str(tmp_path / "bucket"), "seen")
    commit(run, 4)
    sink = Prometheus(PrometheusSection(textfile=str(path)), run, total_steps=9, on_cluster=False)
    sink.open()
    everything = {"mfu": 0.4, "validation_loss": 2.0, "usd_per_hour": 3.0, "cost_usd": 1.5}
    sink.send([{**rows([5])[0], **everything}])
    assert set(samples(path.read_text())) == {*OF_A_ROW, *OTHERS}


def test_the_dashboard_asks_only_for_metrics_that_are_there() -> None:
    """Under the names of both exporters; every panel has a query, a unit, a title and a place of its own."""
    dashboard = json.loads(DASHBOARD.read_text())
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    queries = [target["expr"] for panel in panels for target in panel["targets"]]
    named = {name for query in queries for name in re.findall(r"scaletrain_\w+", query)}
    assert named == {*OF_A_ROW, *OTHERS}
    assert all(re.search(r'__name__=~"\(ray_\)\?scaletrain_\w+", run=~"\$run"', query) for query in queries)
    assert {variable["name"] for variable in dashboard["templating"]["list"]} == {"datasource", "run"}
    assert all(panel["title"] and "unit" in panel["fieldConfig"]["defaults"] for panel in panels)
    assert all(panel["datasource"]["uid"] == "${datasource}" for panel in panels)
    squares = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(squares) == len(set(squares)) and max(x for x, _ in squares) < 24
    assert len({panel["id"] for panel in panels}) == len(panels)
