"""metric_columns: lines as numbers, by attempt and step, and one for each step that counts."""

import math
from pathlib import Path

import orjson
import pytest

from scaletrain import storage
from scaletrain.errors import StorageError
from scaletrain.layout import part_name
from scaletrain.metric_columns import columns_of, counting, list_parts, read_columns

NAMES = ("loss", "time", "skipped")


def write_part(folder: str, attempt: int, part: int, *lines: dict[str, object]) -> None:
    storage.write_bytes(storage.join(folder, part_name(attempt, part)), b"\n".join(map(orjson.dumps, lines)))


def test_what_a_line_does_not_have_is_no_number(bucket_root: str) -> None:
    """Numbers, times and truths become numbers; null and what is missing do not."""
    write_part(bucket_root, 1, 1, {"step": 1, "loss": 2.5, "time": "1970-01-01T00:00:02+00:00", "skipped": True})
    write_part(bucket_root, 1, 2, {"step": 2, "loss": None})
    (columns,) = read_columns(bucket_root, NAMES).values()
    assert columns.steps.tolist() == [1, 2]
    assert [columns[name][0] for name in NAMES] == [2.5, 2.0, 1.0]
    assert all(math.isnan(columns[name][1]) for name in NAMES)


def test_a_step_trained_again_counts_as_the_newest_attempt_trained_it(tmp_path: Path) -> None:
    """What came after the step that a later attempt went on from does not count."""
    folder = str(tmp_path)
    write_part(folder, 1, 1, *({"step": step, "loss": 1.0} for step in (1, 2, 3, 4)))
    write_part(folder, 2, 1, {"step": 3, "loss": 2.0})
    columns = read_columns(folder, NAMES)
    assert [len(own) for own in columns.values()] == [4, 1]
    lines = counting(columns, {1: 2, 2: None}.get)
    assert lines.steps.tolist() == [1, 2, 3] and lines["loss"].tolist() == [1.0, 1.0, 2.0]


@pytest.mark.parametrize("content", [b"", b"{not json"])
def test_a_damaged_part_is_an_error_and_an_empty_one_is_not(tmp_path: Path, content: bytes) -> None:
    """An empty object has no lines; half a line is an error that names it."""
    storage.write_bytes(storage.join(str(tmp_path), part_name(1, 1)), content)
    if content:
        with pytest.raises(StorageError, match="is not lines of JSON"):
            read_columns(str(tmp_path), NAMES)
    else:
        assert len(read_columns(str(tmp_path), NAMES)[1]) == 0


def test_parts_come_in_the_order_they_were_written(tmp_path: Path) -> None:
    """Also the ten-thousandth, whose name is longer."""
    for part in (9999, 10000, 2):
        write_part(str(tmp_path), 1, part, {"step": part, "loss": 0.0})
    parts = list_parts(str(tmp_path))
    assert [int(url[-11:-6].lstrip("-")) for _, url in parts.each] == [2, 9999, 10000]
    assert columns_of(parts.newest(1), NAMES)[1].steps.tolist() == [10000]
