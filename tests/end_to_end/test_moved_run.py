"""A run moves from one cloud to the other, and its losses do not tell."""

from pathlib import Path

import pytest

from commands import run, write_tiny
from scaletrain import checkpoint
from scaletrain.layout import RunLayout
from scaletrain.metrics import read_records
from scaletrain.verify import verify_run

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

SETTINGS = ("train.steps=8", "--local")


def test_a_run_goes_on_in_another_cloud(tmp_path: Path, s3_bucket: str, gcs_bucket: str) -> None:
    """Begun on S3 and ended on Google Cloud Storage, it is the same run as one that never moved, to the last bit."""
    unmoved, begun, ended = (RunLayout(root, "tiny") for root in (str(tmp_path), f"{s3_bucket}/a", f"{gcs_bucket}/b"))
    run("train", write_tiny(tmp_path, root=unmoved.root), *SETTINGS)
    run("train", write_tiny(tmp_path, root=begun.root), *SETTINGS, "debug.stop_after=4")
    told = run("runs", "copy", begun.url, ended.root)
    assert f"{ended.url} is at step 4" in told
    run("train", ended.config, "--local", "debug.stop_after=null")
    assert [line["loss"] for line in read_records(ended.metrics)] == [
        line["loss"] for line in read_records(unmoved.metrics)
    ]
    found = verify_run(ended)
    assert (found.problems, found.steps, found.done_again) == ((), 8, 0)
    ledgers = [checkpoint.latest(each).ledger_hash for each in (ended, unmoved)]  # type: ignore[union-attr]
    assert ledgers[0] == ledgers[1]
