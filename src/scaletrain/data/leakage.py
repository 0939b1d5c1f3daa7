"""Conversations that quote a benchmark are left out: what a model has seen, it cannot be measured by.

A conversation quotes an item if they share 13 words in a row (Brown et al. 2020, arXiv:2005.14165, appendix C), or 26
characters in a script without spaces. A shorter item counts where it is there as a whole, if it has at least 8 words or
16 characters; what is shorter still is said by chance, and cannot be looked for. Case and punctuation do not matter.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import xxhash

from scaletrain import storage
from scaletrain.data.ngrams import Hashes, count_unspaced, hash_ngrams, hash_units, units
from scaletrain.errors import ConfigError, DataError
from scaletrain.storage.errors import without_password

LEAKED = "leaked"
_WORDS = (8, 13)  # of the shortest item, and of a quotation
_CHARACTERS = (16, 26)


@dataclass(frozen=True)
class BenchmarkFile:
    """One file of data.leakage: how many items it has, and how many of them are too short to be looked for.

    version: a hash of the file's content.
    """

    url: str  # as it may be shown
    items: int
    too_short: int
    version: str


@dataclass(frozen=True)
class Leakage:
    """What to look for: for each length of a quotation the hashes of all, ascending, and the file of each."""

    files: Sequence[BenchmarkFile]
    quotations: dict[int, tuple[Hashes, npt.NDArray[np.int32]]]

    def find(self, said: Hashes) -> str | None:
        """Return the file that a conversation quotes, given the hashes of its units; None for most."""
        for length, (hashes, files) in self.quotations.items():
            own = hash_ngrams(said, length)
            places = np.minimum(np.searchsorted(hashes, own), len(hashes) - 1)
            found = files[places[hashes[places] == own]]
            if len(found):
                return self.files[int(found.min())].url
        return None


def load_leakage(urls: Sequence[str]) -> Leakage | None:
    """Read benchmark files: of JSON lines every text of a row is looked for, of other files every line.

    Returns None where there are none. Raises ConfigError for a file in which there is nothing to look for, DataError
    for a broken one, StorageError.
    """
    files: list[BenchmarkFile] = []
    found: dict[int, list[tuple[Hashes, int]]] = {}
    for number, url in enumerate(urls):
        content, shown = _read(url), without_password(url)
        items = too_short = 0
        for texts in _items(content, url):
            quotations = [each for text in texts for each in _quotations(text)]
            items += 1
            too_short += not quotations
            for length, hashes in quotations:
                found.setdefault(length, []).append((hashes, number))
        if items == too_short:
            raise ConfigError(
                f"data.leakage: {shown}: of its {items} items none has the {_WORDS[0]} words (in scripts without "
                f"spaces {_CHARACTERS[0]} characters) that looking for it needs; give the file of questions, as .jsonl "
                "or .txt"
            )
        files.append(BenchmarkFile(shown, items, too_short, xxhash.xxh3_128_hexdigest(content)))
    return Leakage(files, {length: _sorted(found[length]) for length in sorted(found)}) if files else None


def _read(url: str) -> bytes:
    import pyarrow as pa

    content, shown = storage.read_bytes(storage.absolute(url)), without_password(url)
    compression: Any = {".gz": "gzip", ".zst": "zstd"}.get(url[url.rfind(".") :])
    if compression is None:
        return content
    try:
        with pa.input_stream(pa.py_buffer(content), compression=compression) as stream:
            return stream.read()
    except OSError as exc:
        raise DataError(f"data.leakage: {shown}: cannot be unpacked ({exc}); fetch or make the file again") from exc


def _items(content: bytes, url: str) -> Iterator[list[str]]:
    """Yield the texts of each item."""
    name = url.removesuffix(".gz").removesuffix(".zst")
    if not name.endswith((".jsonl", ".json")):
        try:
            yield from ([line] for line in content.decode().splitlines() if line.strip())
        except UnicodeDecodeError as exc:
            raise DataError(f"data.leakage: {url}: not UTF-8 at byte {exc.start:,}; convert the file") from exc
        return
    number = 0
    try:
        if name.endswith(".json"):
            rows = orjson.loads(content)
            if not isinstance(rows, list):
                raise DataError(f"data.leakage: {url}: expected an array of items; or give JSON lines, as .jsonl")
            yield from (_texts(row) for row in rows)
            return
        for line in content.splitlines():
            number += 1
            if line.strip():
                yield _texts(orjson.loads(line))
    except orjson.JSONDecodeError as exc:
        where = f"{url}:{number}" if number else url
        raise DataError(f"data.leakage: {where}: not JSON ({exc}); correct the file") from exc


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [text for each in value for text in _texts(each)] if isinstance(value, list) else []


def _quotations(text: str) -> Iterator[tuple[int, Hashes]]:
    """Yield what of a text is looked for: (units, hashes of the runs of so many)."""
    words = units(text)
    shortest, longest = _CHARACTERS if 2 * count_unspaced(words) > len(words) else _WORDS
    if len(words) >= shortest:
        length = min(len(words), longest)
        yield length, hash_ngrams(hash_units(words), length)


def _sorted(found: Sequence[tuple[Hashes, int]]) -> tuple[Hashes, npt.NDArray[np.int32]]:
    """Every hash once, with the first file that has it."""
    hashes = np.concatenate([each for each, _ in found])
    files = np.concatenate([np.full(len(each), number, np.int32) for each, number in found])
    unique, first = np.unique(hashes, return_index=True)
    return unique, files[first]
