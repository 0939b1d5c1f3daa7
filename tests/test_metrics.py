"""metrics: a line is kept at once, uploaded in parts that are never rewritten, and read back once a step."""

from collections.abc import Sequence
from pathlib import Path

import orjson
import pytest

from scaletrain import storage
from scaletrain.errors import StorageError, TrainingError
from scaletrain.metrics import RecordWriter, StepMetrics, read_last_record, read_records


def names(folder: str) -> list[str]:
    return [info.url.rsplit("/", 1)[-1] for info in storage.list_objects(folder)]


def test_lines_are_in_the_local_file_at_once_and_in_the_bucket_after_a_flush(bucket_root: str, tmp_path: Path) -> None:
    """A crash loses at most what was not uploaded, and the local file has even that."""
    folder = storage.join(bucket_root, "metrics")
    writer = RecordWriter(folder, attempt=3, local_folder=tmp_path)
    writer.write({"step": 1})
    assert orjson.loads((tmp_path / "metrics-attempt-0003.jsonl").read_bytes()) == {"step": 1}
    writer.flush()
    writer.write({"step": 2})
    writer.close()
    assert names(folder) == ["attempt-0003.part-0001.jsonl", "attempt-0003.part-0002.jsonl"]
    assert read_records(folder) == [{"step": 1}, {"step": 2}]


def test_a_failed_upload_keeps_its_lines_for_the_next(tmp_path: Path) -> None:
    """Nothing is lost while the bucket cannot be reached."""
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the folder should be")
    writer = RecordWriter(str(blocked), attempt=1, local_folder=tmp_path / "local")
    writer.write({"step": 1})
    with pytest.raises(StorageError):
        writer.flush()
    blocked.unlink()
    writer.close()
    assert read_records(str(blocked)) == [{"step": 1}]


def test_a_step_trained_again_counts_as_the_newest_attempt_trained_it(tmp_path: Path) -> None:
    """After a resume the lines of the lost steps are replaced, and the others stay."""
    folder = str(tmp_path / "metrics")
    for attempt, steps in ((1, (1, 2, 3)), (2, (3, 4))):
        writer = RecordWriter(folder, attempt=attempt, local_folder=tmp_path / "local")
        for step in steps:
            writer.write({"step": step, "attempt": attempt})
        writer.close()
    assert [(r["step"], r["attempt"]) for r in read_records(folder)] == [(1, 1), (2, 1), (3, 2), (4, 2)]


def test_the_last_record_is_the_newest_attempt_s(tmp_path: Path) -> None:
    """It may be of an earlier step than an older attempt came to; an empty folder has none."""
    folder = str(tmp_path / "metrics")
    assert read_last_record(folder) == {}
    for attempt, steps in ((1, (1, 2, 3)), (2, (2,))):
        writer = RecordWriter(folder, attempt=attempt, local_folder=tmp_path / "local")
        for step in steps:
            writer.write({"step": step, "attempt": attempt})
            writer.flush()
        writer.close()
    assert read_last_record(folder) == {"step": 2, "attempt": 2}


def test_a_live_display_gets_every_line_once(tmp_path: Path) -> None:
    """What is shown is what was written."""
    seen: list[bytes] = []
    writer = RecordWriter(str(tmp_path / "m"), attempt=1, local_folder=tmp_path, on_lines=seen.extend)
    for step in range(5):
        writer.write({"step": step})
    writer.close()
    assert [orjson.loads(line)["step"] for line in seen] == [0, 1, 2, 3, 4]


def test_a_display_that_fails_loses_no_line(tmp_path: Path) -> None:
    """As a terminal that is gone; whoever trains hears of it in the log."""

    def show(lines: Sequence[bytes]) -> None:
        raise BrokenPipeError("the terminal is gone")

    folder = str(tmp_path / "m")
    writer = RecordWriter(folder, attempt=1, local_folder=tmp_path, on_lines=show)
    for step in (1, 2):
        writer.write({"step": step})
        writer.flush()
    writer.close()
    assert read_records(folder) == [{"step": 1}, {"step": 2}]


def test_a_metrics_line_has_what_scripts_rely_on() -> None:
    """The field names are a contract; what is not known is left out."""
    line = StepMetrics(1, 2.0, 1e-3, 0.5, 8, 100, 200, 50.0, 4.0, 0.0, 0.0, 2, 1 << 20).record()
    promised = "step loss learning_rate grad_norm samples_seen supervised_tokens tokens tokens_per_s step_s"
    promised += " data_wait_s checkpoint_stall_s world_size time"
    assert set(promised.split()) <= set(line)
    assert "mfu" not in line
    assert str(line["time"]).endswith("+00:00")


def test_nothing_is_uploaded_that_may_not_be(tmp_path: Path) -> None:
    """Whoever is told before an upload that the run is another's keeps its lines to itself, and says why at the end."""

    def refuse() -> None:
        raise TrainingError("the run was removed")

    writer = RecordWriter(str(tmp_path / "m"), attempt=1, local_folder=tmp_path / "local", before_upload=refuse)
    writer.write({"step": 1})
    with pytest.raises(TrainingError, match="the run was removed"):
        writer.close()
    assert read_records(str(tmp_path / "m")) == []
