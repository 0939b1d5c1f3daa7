"""A run with a budget, by the real commands: it is stopped and saved, says so, and goes on when it is given more."""

import json
from pathlib import Path

import pytest

from commands import run, write_tiny

PRICE = "budget.usd_per_machine_hour=3.6e6"  # a thousand dollars a second: spent before the first step has ended


@pytest.mark.long
def test_a_budget_stops_a_run_of_workers_and_a_higher_one_goes_on(tmp_path: Path) -> None:
    """Exit code 2 where nothing may start, 1 where it was stopped; the money of all commands adds up."""
    root = str(tmp_path / "bucket")
    config = write_tiny(tmp_path, root=root)
    told = run("train", config, "budget.usd=1", exit_code=2)
    assert "no price for a machine of no known cloud; set budget.usd_per_machine_hour" in told
    assert not (tmp_path / "bucket").exists()
    told = run("train", config, PRICE, "budget.usd=0.01", exit_code=1)
    assert "stopped at step 1 of 16, saved: " in told and "the same command with a higher budget goes on" in told
    told = run("train", config, PRICE, "budget.usd=0.01", exit_code=2)
    assert "budget.usd=0.01 is spent: the run has cost" in told
    assert "is at step 16 of 16" in run("train", config, PRICE, "budget.usd=1e9", "--local")
    shown = json.loads(run("show", "tiny", "--root", root, "--json"))
    assert shown["step"] == 16 and shown["last_metrics"]["usd_per_hour"] == pytest.approx(3.6e6)
    assert shown["cost"]["usd"] == pytest.approx(sum(shown["cost"]["by_part"].values()))
    assert shown["cost"]["usd"] >= 0.99 * shown["last_metrics"]["cost_usd"] > 0.01
    assert "for work that was lost" in run("show", "tiny", "--root", root)
