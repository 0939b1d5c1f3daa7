import gzip
import io
from pathlib import Path

import orjson
import pytest
from backports import zstd
from dumps import exchange, write_jsonl
from hypothesis import example, given
from hypothesis import strategies as st
from reading import read, rejects, texts

from scaletrain.data.formats import Rejected, files
from scaletrain.data.formats.files import read_lines
from scaletrain.errors import DataError


def test_a_line_that_is_too_long_is_skipped_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows around it are read; it is named with its line and its byte, wherever a buffer happens to end."""
    monkeypatch.setattr(files, "MAX_LINE_BYTES", 1000)
    path = write_jsonl(tmp_path / "a.jsonl", [exchange("a", "b"), exchange("x" * 1_000_000, "y"), exchange("c", "d")])
    items = read(path)
    assert texts(items) == [["a", "b"], ["c", "d"]]
    (rejected,) = [item for item in items if isinstance(item, Rejected)]
    first_bytes = len(orjson.dumps(exchange("a", "b"))) + 1
    assert rejected.source == f"{path}:2"
    assert rejected.detail.endswith(f"bytes (at byte {first_bytes})")


def test_a_file_of_one_endless_line_is_one_bad_row(tmp_path: Path) -> None:
    """With the real bound: 70 MB without a line break."""
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        file.truncate(70_000_000)
    assert rejects(read(path)) == {"bad_row": 1}


@given(st.lists(st.binary(max_size=40)), st.booleans())
@example([bytes(16)], False)
def test_lines_are_read_to_the_last_byte(lines: list[bytes], ends_with_break: bool) -> None:
    """Numbers and offsets are those of the file, with lines below, at and above the bound."""
    whole = b"\n".join(line.replace(b"\n", b"") for line in lines) + (b"\n" if ends_with_break else b"")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "MAX_LINE_BYTES", 16)
        patch.setattr(files, "_BUFFER_BYTES", 8)
        found = list(read_lines(io.BufferedReader(io.BytesIO(whole))))  # type: ignore[type-var]
    assert [number for number, _, _ in found] == list(range(1, len(found) + 1))
    for _, offset, line in found:
        rest = whole[offset:]
        full = rest[: rest.find(b"\n") + 1] or rest
        assert line == (full if len(full) <= 16 else None)
    assert len(found) == whole.count(b"\n") + (not whole.endswith(b"\n") and whole != b"")


@pytest.mark.parametrize("compress", [gzip.compress, zstd.compress])
def test_a_bomb_is_refused_while_it_unpacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compress: object) -> None:
    """What unpacks to more than any text does is an error with its name, long before the disk or memory is full."""
    monkeypatch.setattr(files, "FREE_UNPACKED_BYTES", 2**20)
    path = tmp_path / "a.jsonl.zst" if compress is zstd.compress else tmp_path / "a.jsonl.gz"
    path.write_bytes(compress(bytes(2**26)))  # type: ignore[operator]
    with pytest.raises(DataError, match=r"a\.jsonl\.\w+: unpacks to more than 250 times its size"):
        read(path)


def test_a_zstd_file_may_need_two_gib_of_window(tmp_path: Path) -> None:
    """The dumps of Reddit are packed so; libraries refuse it by default."""
    options = {zstd.CompressionParameter.window_log: 31, zstd.CompressionParameter.enable_long_distance_matching: 1}
    path = tmp_path / "a.jsonl.zst"
    compressor = zstd.ZstdCompressor(options=options)  # without a known size the window is written as asked for
    path.write_bytes(compressor.compress(orjson.dumps(exchange("a", "b"))) + compressor.flush())
    assert texts(read(path)) == [["a", "b"]]


@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz", "zst"])
def test_an_empty_compressed_file_is_an_error(tmp_path: Path, suffix: str) -> None:
    """A download that failed at its first byte is not a corpus without rows."""
    (tmp_path / f"a.jsonl.{suffix}").touch()
    with pytest.raises(DataError, match="is empty, which no compressed file is"):
        read(tmp_path / f"a.jsonl.{suffix}")


@pytest.mark.parametrize(
    ("data", "advice"),
    [
        (b"PK\x03\x04rest", "zip archive.*unpack it"),
        (b"7z\xbc\xaf\x27\x1c", "7z archive; unpack it"),
        (gzip.compress(b"{}", mtime=0), "packed by gzip; call it .gz"),
        ("amy: Hi".encode("utf-16"), "in UTF-16; save it as UTF-8"),
    ],
)
def test_what_is_no_text_is_told_with_what_to_do(tmp_path: Path, data: bytes, advice: str) -> None:
    """An archive, or another encoding, is one error instead of as many bad rows as it has lines."""
    (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(DataError, match=rf"a\.txt: is .*{advice}"):
        read(tmp_path / "a.txt", "chat_log")


def test_bytes_that_are_not_of_the_compression_are_an_error(tmp_path: Path) -> None:
    """A web page saved under the dump's name, and a flipped byte in the middle."""
    for suffix in ("gz", "bz2", "xz", "zst"):
        (tmp_path / f"a.jsonl.{suffix}").write_bytes(b"<html>404 not found</html>")
        with pytest.raises(DataError, match=r"cannot be read to its end \(byte 0 of"):
            read(tmp_path / f"a.jsonl.{suffix}")
    packed = bytearray(gzip.compress(b"".join(orjson.dumps(exchange(str(i), "x")) + b"\n" for i in range(5000))))
    packed[len(packed) // 2] ^= 255
    (tmp_path / "b.jsonl.gz").write_bytes(packed)
    with pytest.raises(DataError, match=r"b\.jsonl\.gz: cannot be read to its end"):
        read(tmp_path / "b.jsonl.gz")


def test_a_json_array_beyond_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has to be parsed as a whole is bounded, and the message says what to make of it."""
    monkeypatch.setattr(files, "MAX_PARSED_BYTES", 1000)
    (tmp_path / "a.json").write_bytes(orjson.dumps([exchange("a", "b" * 1000)]))
    with pytest.raises(DataError, match="make JSON lines of it"):
        read(tmp_path / "a.json")
