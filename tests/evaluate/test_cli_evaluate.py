"""`scaletrain evaluate` as a user starts it: options that do not go together are told at once, and all of them."""

import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from judge_server import judge_server
from small_run import commit_scaled, small_config, write_corpus
from typer.testing import CliRunner

from scaletrain.cli import app
from scaletrain.config_file import dump_config
from scaletrain.evaluate.compare import Other

RUNNER = CliRunner()


def test_every_problem_of_the_options_is_told_at_once() -> None:
    """Three mistakes give three lines and exit code 2, before anything is read."""
    result = RUNNER.invoke(
        app, ["evaluate", "x.yaml", "--only", "both", "--step", "0", "--judge-url", "http://127.0.0.1/v1"]
    )
    assert result.exit_code == 2
    assert "4 problems:" in result.output
    for part in ("give base or trained", "--step=0", "--judge-model: missing", "--judge-url compares two"):
        assert part in result.output


def test_watching_measures_everything_and_goes_with_nothing_else() -> None:
    """An option that would be ignored is refused."""
    result = RUNNER.invoke(app, ["evaluate", "x.yaml", "--watch", "--step", "3", "--tasks", "capitals"])
    assert result.exit_code == 2
    assert "does not go with --step, --tasks" in result.output


@pytest.mark.parametrize(("against", "step"), [("older", None), ("older@30", 30), ("older@0", 0)])
def test_a_run_and_a_step_are_told_apart(tmp_path: Path, against: str, step: int | None) -> None:
    """RUN means its newest checkpoint, RUN@STEP the one of a step."""
    from scaletrain.cli_evaluate import _other

    found = _other(against, str(tmp_path))
    assert isinstance(found, Other)
    assert (found.run.name, found.step) == ("older", step)


def test_a_whole_evaluation_with_a_judge(tmp_path: Path) -> None:
    """One command measures both models, has the answers judged, and leaves JSON, Markdown and a page."""
    config = small_config(tmp_path / "bucket", write_corpus(tmp_path / "talk.jsonl"))
    commit_scaled(config, step=4, scale=0.5)
    path = tmp_path / "count.yaml"
    path.write_text(dump_config(config))
    with judge_server(lambda question: (200, '{"better": "B"}')) as server:
        arguments = ["evaluate", str(path), "train.device=cpu", "--json"]
        command = [sys.executable, "-c", "from scaletrain.cli import main; main()", *arguments]
        done = subprocess.run(
            [*command, "--judge-url", server.url, "--judge-model", "referee"],
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    found = orjson.loads(done.stdout)
    assert found["judgement"]["contradictions"] == 1
    assert found["change"]["all"]["p"] <= 1
    names = {each.name for each in (tmp_path / "bucket/runs/count/evaluation").iterdir()}
    assert names == {"base.json", "step-00000004.json", "curve.json", "judgement.json", "report.html", "summary.md"}
