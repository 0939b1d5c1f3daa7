"""The README's first command, as a user runs it: a real model, real conversations, two workers, a folder as bucket."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tiny import smollm2_gguf

ROOT = Path(__file__).parents[2]


@pytest.mark.long
@pytest.mark.real_model
@pytest.mark.timeout(2400)
def test_the_quickstart_teaches_the_model_and_goes_on_when_run_again(tmp_path: Path) -> None:
    """It ends well with a perplexity at least 15% lower, and a second call finds everything done."""
    smollm2_gguf()
    shutil.copytree(ROOT / "launch", tmp_path / "launch")
    (tmp_path / ".venv").symlink_to(sys.prefix)

    first = subprocess.run([tmp_path / "launch/quickstart.sh"], capture_output=True, text=True, check=False)
    assert first.returncode == 0, first.stderr

    (run,) = (tmp_path / "quickstart/runs").iterdir()
    before, after = (
        json.loads(next(run.glob(f"evaluation/{name}.json")).read_text())["perplexities"][0]["perplexity"]
        for name in ("base", "step-*")
    )
    assert after < 0.85 * before
    assert f"{after:.2f}" in first.stdout

    manifests = {path: path.stat().st_mtime_ns for path in run.glob("checkpoints/*/manifest.json")}
    second = subprocess.run([tmp_path / "launch/quickstart.sh"], capture_output=True, text=True, check=False)
    assert second.returncode == 0, second.stderr
    assert {path: path.stat().st_mtime_ns for path in run.glob("checkpoints/*/manifest.json")} == manifests
