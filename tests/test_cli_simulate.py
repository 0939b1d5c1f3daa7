"""`scaletrain simulate`: from a configuration to a recommendation, as text, JSON and a page; bad input in one go."""

from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner

from scaletrain.cli import app

CONFIG = """
name: run
storage: {root: ROOT}
model: {init: random, size: {vocab_size: 2048, hidden_size: 128, num_layers: 2, num_heads: 4}}
data: {corpora: [{format: jsonl, source: nowhere.jsonl}], seq_len: 64}
train: {steps: 1000, global_batch_size: 16, micro_batch_size: 2}
scaling: {workers: {min: 1, max: 8}}
"""


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG.replace("ROOT", str(tmp_path / "bucket")))
    return str(path)


def test_a_configuration_is_simulated_before_it_has_run(config: str, tmp_path: Path) -> None:
    """JSON and page have the recommendation; the same seed gives the same numbers."""
    page = tmp_path / "page.html"
    command = ["simulate", config, "--days", "0.5", "--machine", "g6.24xlarge", "--trace", "busy", "--runs", "4"]
    told = CliRunner().invoke(app, [*command, "--json", "--out", str(page)])
    assert told.exit_code == 0, told.stderr
    record = orjson.loads(told.stdout)
    assert record["alternatives"][0]["name"] == "recommended"
    assert record["alternatives"][0]["usd"]["mean"] > 0
    assert "Simulation of" in page.read_text()
    assert CliRunner().invoke(app, [*command, "--json"]).stdout == told.stdout
    shown = CliRunner().invoke(app, command)
    assert "Recommended: scaling.workers.min=" in shown.stdout


def test_everything_that_is_wrong_is_said_at_once(config: str) -> None:
    """Exit code 2, and what to do about each."""
    told = CliRunner().invoke(app, ["simulate", config, "--trace", "none.csv", "--taken-per-month", "0.1"])
    assert told.exit_code == 2
    assert "3 problems" in told.stderr
    assert "keep one" in told.stderr
    assert "give --days" in told.stderr


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [(["--workers", "8..2"], "as 2..16"), (["--workers", "many"], "as 2..16")],
)
def test_bounds_of_workers_are_numbers_in_order(config: str, arguments: list[str], problem: str) -> None:
    """With an example."""
    told = CliRunner().invoke(app, ["simulate", config, *arguments])
    assert told.exit_code == 2
    assert problem in told.stderr


def test_a_run_that_is_not_there_is_said(tmp_path: Path) -> None:
    """With how to find those that are."""
    told = CliRunner().invoke(app, ["simulate", "nowhere", "--root", str(tmp_path)])
    assert told.exit_code == 2
    assert "there is no run at" in told.stderr
