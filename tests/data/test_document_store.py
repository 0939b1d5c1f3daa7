"""Documents that are kept come back as they were, whatever order they came in, and nothing that is not sound does."""

import logging
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pytest
from byte_tokenizer import make_byte_tokenizer
from dumps import exchange, write_jsonl
from hypothesis import given, settings
from hypothesis import strategies as st

from scaletrain import storage
from scaletrain.config import StorageSection
from scaletrain.config_data import Corpus, DataSection
from scaletrain.data.document_store import DocumentKeeper, read_kept
from scaletrain.data.formats import SourceFile, list_files
from scaletrain.data.parts import Part, cut_into_parts, ends_of_parts
from scaletrain.data.tokenise import tokenise

KEYS = ("a", "b", "c", "d")


def made(folder: Path) -> tuple[list[Part], pa.Table]:
    """Parts of two corpora, one of them empty, and what tokenising makes of them, their ends among it."""
    for name, count in (("a/0", 5), ("a/1", 0), ("b/0", 3), ("b/1", 4)):
        rows = [exchange(f"{name} {number}", "Yes" * number) for number in range(count)]
        write_jsonl(folder / f"{name}.jsonl", [*rows, "oops"] if count else [])
    corpora = tuple(Corpus(format="messages", source=str(folder / name), name=name) for name in "ab")
    files = [list_files(corpus) for corpus in corpora]
    parts = [Part(corpus, first, (files[corpus][first],)) for corpus in (0, 1) for first in (0, 1)]
    tables = tokenise(
        DataSection(corpora=corpora, min_chars=7),
        parts,
        storage_section=StorageSection(root=str(folder)),
        tokenizer=make_byte_tokenizer(),
        leakage=None,
        use_ray=False,
    )
    return parts, pa.concat_tables(tables)


def keep(url: str, parts: Sequence[Part], tables: Sequence[pa.Table], folder: Path) -> list[pa.Table]:
    """What is to be packed of these tables, after they were kept."""
    with DocumentKeeper(url, parts, KEYS, folder=folder) as keeper:
        return [keeper.take(table) for table in tables]


def kept_rows(url: str, parts: Sequence[Part], folder: Path) -> list[dict[str, object]]:
    """The rows of all kept parts, sorted."""
    return in_order([table for _, tables in read_kept(url, parts, KEYS, folder=folder) for table in tables])


def in_order(tables: Sequence[pa.Table]) -> list[dict[str, object]]:
    """The rows of tables by where they stood."""
    rows = [row for table in tables for row in table.to_pylist()]
    return sorted(rows, key=lambda row: (row["corpus"], row["file"], row["row"]))


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_rows_of_parts_may_come_mixed(data: st.DataObject) -> None:
    """In any order, cut into any tables, kept twice: each part comes back once, with the same rows, and no end."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        parts, table = made(folder)
        expected = in_order([table.filter(pa.array(~ends_of_parts(table)))])
        for _ in range(2):
            mixed = table.take(data.draw(st.permutations(range(len(table)))))
            cuts = sorted({0, len(mixed), *data.draw(st.lists(st.integers(0, len(mixed)), max_size=6))})
            tables = [mixed.slice(start, stop - start) for start, stop in pairwise(cuts)]
            assert in_order(keep(f"{folder}/kept", parts, tables, folder)) == expected
        assert kept_rows(f"{folder}/kept", parts, folder) == expected
        assert len(storage.list_objects(f"{folder}/kept")) == len(parts)
        assert not [*folder.glob("*.rows"), *folder.glob("*.packed")]


def test_a_part_takes_its_place_from_the_configuration(tmp_path: Path) -> None:
    """Kept as the first file of the first corpus, it is read back as the fifth of the third."""
    parts, table = made(tmp_path)
    keep(f"{tmp_path}/kept", parts, [table], tmp_path)
    moved = [Part(corpus=2, first=4, files=parts[0].files)]
    [(number, tables)] = read_kept(f"{tmp_path}/kept", moved, KEYS[:1], folder=tmp_path)
    rows = in_order(list(tables))
    assert number == 0
    assert {(row["corpus"], row["file"]) for row in rows} == {(2, 4)}
    assert [row["source"] for row in rows] == [f"{parts[0].files[0].name}:{number}" for number in range(1, 7)]


def test_a_bucket_keeps_them_too(tmp_path: Path, s3_bucket: str, s3_server: str) -> None:
    """Uploaded and downloaded through the local disk, where nothing is left of them."""
    storage.configure(s3_bucket, {"endpoint_url": s3_server})
    try:
        parts, table = made(tmp_path)
        keep(f"{s3_bucket}/kept", parts, [table], tmp_path)
        (tmp_path / "fetched").mkdir()
        expected = in_order([table.filter(pa.array(~ends_of_parts(table)))])
        assert kept_rows(f"{s3_bucket}/kept", parts, tmp_path / "fetched") == expected
        assert not list((tmp_path / "fetched").iterdir())
    finally:
        storage.configure(s3_bucket, {})


@pytest.mark.parametrize("damage", ["cut", "empty", "bit", "longer"])
def test_a_damaged_part_is_left_out_with_a_warning(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Cut short anywhere, emptied, one bit wrong, or with something behind it; the others are read."""
    parts, table = made(tmp_path)
    url = f"{tmp_path}/kept"
    keep(url, parts, [table], tmp_path)
    path = tmp_path / "kept" / "c.arrow.zst"
    data = path.read_bytes()
    middle = len(data) // 2
    path.write_bytes(
        {
            "cut": data[:-1],
            "empty": b"",
            "bit": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
            "longer": data + b"x",
        }[damage]
    )
    with caplog.at_level(logging.WARNING):
        assert [number for number, _ in read_kept(url, parts, KEYS, folder=tmp_path)] == [0, 1, 3]
    assert "c.arrow.zst is damaged; what was kept there is made again" in caplog.text


def test_a_part_without_its_end_is_not_kept(tmp_path: Path) -> None:
    """Nor one of whose rows one has not come."""
    parts, table = made(tmp_path)
    is_end = ends_of_parts(table)
    ends, rows = table.filter(pa.array(is_end)), table.filter(pa.array(~is_end))
    keep(f"{tmp_path}/kept", parts, [rows.slice(1), ends.slice(0, 3)], tmp_path)
    assert [number for number, _ in read_kept(f"{tmp_path}/kept", parts, KEYS, folder=tmp_path)] == [1, 2]


@settings(max_examples=50, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 6 * 2**20), min_size=1, max_size=300),
    where=st.integers(0, 300),
    salt=st.integers(0, 2**32),
)
def test_an_added_file_changes_few_parts(sizes: list[int], where: int, salt: int) -> None:
    """Parts hold every file once, in order, and within their bounds; the same files make the same parts elsewhere."""
    corpus = Corpus(format="messages", source="x")
    files = [SourceFile(f"{salt}/{number:03}", f"{salt}/{number:03}", size, "") for number, size in enumerate(sizes)]
    parts = cut_into_parts([files], [corpus])
    assert [file for part in parts for file in part.files] == files
    assert all(part.files == tuple(files[part.first : part.first + len(part.files)]) for part in parts)
    assert all(sum(f.size_bytes for f in part.files) <= 16 * 2**20 and len(part.files) <= 64 for part in parts)
    more = [*files[:where], SourceFile(f"{salt}/new", f"{salt}/new", 1, ""), *files[where:]]
    before, after = ({part.files for part in cut_into_parts([each], [corpus])} for each in (files, more))
    changed = [number for number, part in enumerate(parts) if part.files not in after]
    assert not changed or np.ptp(changed) == len(changed) - 1  # in one place
    assert cut_into_parts([files, files], [corpus, corpus]) == [*parts, *(Part(1, p.first, p.files) for p in parts)]
    if max(sizes) < 1000:  # where sizes do not cut
        assert len(before - after) <= 8


def test_files_that_are_read_together_are_one_part() -> None:
    """However many, and however large."""
    files = [SourceFile(name, name, 2**30, "") for name in map(str, range(100))]
    assert cut_into_parts([files], [Corpus(format="reddit", source="x")]) == [Part(0, 0, tuple(files))]
