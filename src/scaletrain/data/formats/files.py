"""The files of a corpus: found, opened whatever their compression, and read in bounded memory.

Nothing that a stranger's file says can take more memory than these bounds: a line is at most MAX_LINE_BYTES (a longer
one is skipped and counted), a file that has to be parsed as a whole MAX_PARSED_BYTES, and a compressed file may unpack
to MAX_RATIO times its size. A file that is cut short or damaged is a DataError, never a short file.
"""

import bz2
import gzip
import importlib.util
import io
import lzma
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO, TypeAlias, cast

import orjson
import xxhash

from scaletrain import storage
from scaletrain.errors import DataError, NotFoundError, ScaletrainError
from scaletrain.storage.errors import without_password

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BinaryFile: TypeAlias = "io.BufferedReader[io.RawIOBase]"
MAX_LINE_BYTES = 64 * 2**20
MAX_PARSED_BYTES = 2**30
MAX_RATIO = 250  # text packs to a tenth or so; gzip's most is 1032
FREE_UNPACKED_BYTES = 64 * 2**20
_BUFFER_BYTES = 2**18
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# What a file that is read as text may begin with by mistake, and what to do about it.
_NO_TEXT = {
    b"PK\x03\x04": "is a zip archive (or a spreadsheet); unpack it, or save the sheet as CSV",
    b"7z\xbc\xaf": "is a 7z archive; unpack it",
    b"\x1f\x8b": "is packed by gzip; call it .gz",
    b"\xff\xfe": "is in UTF-16; save it as UTF-8 (iconv -f UTF-16 -t UTF-8 OLD > NEW)",
    b"\xfe\xff": "is in UTF-16; save it as UTF-8 (iconv -f UTF-16 -t UTF-8 OLD > NEW)",
}
_PACKAGE = "package:"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a corpus; `name` is how messages call it, and does not depend on where a package is installed."""

    url: str
    name: str
    size_bytes: int
    version: str


# --- Found --------------------------------------------------------------------------------------------------------


def find_files(source: str, *, suffixes: Sequence[str]) -> list[SourceFile]:
    """List a file, a glob's matches, or what of a folder ends in one of `suffixes`, sorted; DataError where nothing."""
    if source.startswith(_PACKAGE):
        files = _package_files(source)
    else:
        url = storage.absolute(source)
        found = storage.glob(url)
        files = [SourceFile(each.url, without_password(each.url), each.size_bytes, each.version) for each in found]
        if not _is_glob(url) and [each.url for each in found] != [url]:  # a folder: only what looks like the format
            files = [each for each in files if bare_name(each.name).endswith(tuple(suffixes))]
    if not files:
        expected = "" if _is_glob(source) else f" (of a folder, files ending in {', '.join(suffixes)} are read)"
        place = without_password(source)
        raise DataError(f"data.corpora: nothing found at {place}; check the path, or the glob's wildcards{expected}")
    return files


def with_versions_of(beside: str, files: Sequence[SourceFile]) -> list[SourceFile]:
    """Return the files with versions that tell of another file too, called `beside`, in the folder of each."""
    versions: dict[str, str] = {}
    for folder in {folder_of(file.url) for file in files}:
        try:
            versions[folder] = storage.info(storage.join(folder, beside)).version
        except NotFoundError:
            versions[folder] = ""
    return [replace(file, version=f"{file.version} {versions[folder_of(file.url)]}") for file in files]


def bare_name(name: str) -> str:
    """The name without the suffix of a compression."""
    return name.removesuffix(Path(name).suffix) if Path(name).suffix in _UNPACKERS else name


def folder_of(name: str) -> str:
    """The folder that a file is in, with its last slash; empty where there is none."""
    return name[: name.rfind("/") + 1]


def _package_files(source: str) -> list[SourceFile]:
    """Find files inside an installed package, without importing it; their version is a hash of their bytes."""
    package, _, pattern = source.removeprefix(_PACKAGE).partition("/")
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise DataError(f"{source}: the package {package} is not installed; pip install {package.replace('_', '-')}")
    root = Path(next(iter(spec.submodule_search_locations)))
    files = []
    for path in sorted(root.glob(pattern)) if pattern else []:
        if path.is_file():
            name = f"{_PACKAGE}{package}/{path.relative_to(root).as_posix()}"
            data = path.read_bytes()
            files.append(SourceFile(str(path), name, len(data), xxhash.xxh3_128_hexdigest(data)))
    return files


def _is_glob(url: str) -> bool:
    return any(character in url for character in "*?[")


# --- Opened -------------------------------------------------------------------------------------------------------


@contextmanager
def opened(file: SourceFile) -> Iterator[BinaryFile]:
    """Open a file as its unpacked bytes, without a byte order mark.

    Raises DataError for an archive and for UTF-16, and where a compressed file is damaged, cut short, or unpacks to an
    absurd size.
    """
    unpack = _UNPACKERS.get(Path(file.name).suffix)
    with storage.open_read(file.url) as stream:
        raw = cast(io.RawIOBase, stream) if unpack is None else _Unpacked(unpack(stream), file)
        reader = io.BufferedReader(raw, _BUFFER_BYTES)
        beginning = reader.peek(len(_BYTE_ORDER_MARK))
        for signature, problem in _NO_TEXT.items():
            if beginning.startswith(signature):
                raise DataError(f"{file.name}: {problem}")
        if beginning.startswith(_BYTE_ORDER_MARK):
            reader.read(len(_BYTE_ORDER_MARK))
        yield reader


def _unpack_zstd(stream: BinaryIO) -> IO[bytes]:
    from backports.zstd import DecompressionParameter, ZstdFile

    # The dumps of Reddit are packed with windows of 2 GiB. Python's zstandard would take a cut file for a whole one.
    return cast(IO[bytes], ZstdFile(stream, options={int(DecompressionParameter.window_log_max): 31}))


_UNPACKERS: dict[str, Callable[[BinaryIO], IO[bytes]]] = {
    ".gz": lambda stream: cast(IO[bytes], gzip.GzipFile(fileobj=stream)),
    ".bz2": lambda stream: cast(IO[bytes], bz2.BZ2File(stream)),
    ".xz": lambda stream: cast(IO[bytes], lzma.LZMAFile(filename=stream)),  # noqa: SIM115
    ".zst": _unpack_zstd,
}


class _Unpacked(io.RawIOBase):
    """A compressed file's content, which knows how much of it there may be."""

    def __init__(self, content: IO[bytes], file: SourceFile) -> None:
        self._content = content
        self._name = file.name
        self._unpacked_bytes = 0
        self._most_bytes = FREE_UNPACKED_BYTES + MAX_RATIO * file.size_bytes
        if not file.size_bytes:
            raise DataError(f"{file.name}: is empty, which no compressed file is; fetch or make the file again")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer).cast("B")
        try:
            data = self._content.read(len(view))
        except ScaletrainError:
            raise
        except Exception as exc:  # each library has its own: zlib.error, LZMAError, ZstdError, EOFError, OSError
            if not isinstance(exc, (OSError, EOFError, zlib.error, lzma.LZMAError)) and "zstd" not in repr(type(exc)):
                raise
            raise DataError(
                f"{self._name}: cannot be read to its end (byte {self._unpacked_bytes} of what it unpacks to: {exc}); "
                "fetch or make the file again"
            ) from exc
        view[: len(data)] = data
        self._unpacked_bytes += len(data)
        if self._unpacked_bytes > self._most_bytes:
            raise DataError(
                f"{self._name}: unpacks to more than {MAX_RATIO} times its size, as no text does; "
                "if it is what you want to read, unpack it first"
            )
        return len(data)


# --- Read ---------------------------------------------------------------------------------------------------------


def read_lines(stream: BinaryFile) -> Iterator[tuple[int, int, bytes | None]]:
    """Yield (number, offset in bytes, line) from 1 and 0; the line is None where it is longer than MAX_LINE_BYTES."""
    number = offset = 0
    while line := stream.readline(MAX_LINE_BYTES):
        number += 1
        size_bytes = len(line)
        rest = b"" if line.endswith(b"\n") or size_bytes < MAX_LINE_BYTES else stream.readline(_BUFFER_BYTES)
        yield number, offset, None if rest else line
        while rest:
            size_bytes += len(rest)
            rest = b"" if rest.endswith(b"\n") else stream.readline(_BUFFER_BYTES)
        offset += size_bytes


def read_whole(stream: BinaryFile, name: str) -> bytes:
    """Read a file that has to be parsed as a whole; DataError where it is larger than MAX_PARSED_BYTES."""
    data = stream.read(MAX_PARSED_BYTES + 1)
    if len(data) > MAX_PARSED_BYTES:
        raise DataError(
            f"{name}: is larger than {MAX_PARSED_BYTES:,} bytes, the most that is parsed in memory; "
            "make JSON lines of it, or several files"
        )
    return data


def load_json(data: bytes, name: str) -> object:
    """Parse a whole file; DataError with the line where it is not JSON."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as exc:
        raise DataError(f"{name}:{exc.lineno}: not JSON: {exc}; fetch or make the file again") from exc
