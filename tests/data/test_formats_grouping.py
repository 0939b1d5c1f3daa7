from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaletrain.data.formats.grouping import Group, Grouping, _Dealer
from scaletrain.errors import StorageError

Rows = list[tuple[str, int]]


def grouped(rows: Rows, *, part_bytes: int, group_bytes: int = 10**9) -> list[Group]:
    with Grouping(part_bytes=part_bytes, group_bytes=group_bytes) as grouping:
        for key, value in rows:
            grouping.add(key, [value, "text"])
        return list(grouping.groups())


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcdefghijklmnöé你"), st.integers(0, 99)), max_size=30))
def test_each_row_comes_back_once_in_its_group(rows: Rows) -> None:
    """Whether parts fit into memory or have to be dealt again and again: the same groups, rows in order."""
    expected = defaultdict(list)
    for key, value in rows:
        expected[key].append([value, "text"])
    for part_bytes in (10**6, 60, 1):
        groups = grouped(rows, part_bytes=part_bytes)
        assert {group.key: group.rows for group in groups} == expected
        assert len(groups) == len(expected)


def test_a_group_that_is_too_large_comes_back_as_a_number() -> None:
    """One endless thread takes neither the memory nor the others with it."""
    rows = [("small", 1), *(("large", i) for i in range(50)), ("small", 2)]
    groups = {group.key: group for group in grouped(rows, part_bytes=100, group_bytes=200)}
    assert groups["large"] == Group("large", None, 50)
    assert groups["small"].rows == [[1, "text"], [2, "text"]]


def test_the_order_of_groups_depends_on_the_rows_only() -> None:
    """Twice the same rows, twice the same order, in folders of another name."""
    rows = [(f"key {i % 97}", i) for i in range(300)]
    assert grouped(rows, part_bytes=300) == grouped(rows, part_bytes=300)


def test_a_full_disk_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder, and the variable that puts it elsewhere; on a device that is always full."""
    monkeypatch.setattr(_Dealer, "_path", lambda self, number: Path("/dev/full"))
    with pytest.raises(StorageError, match=r"No space left.*free space, or set TMPDIR"):
        grouped([("key", 1)], part_bytes=100)
