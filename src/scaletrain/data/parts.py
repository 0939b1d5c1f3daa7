"""Corpora are cut into parts: what one task reads, and what is kept of it for the next preparation.

Files that refer to one another are one part. Other files are cut by their names: a part ends before a file whose name
hashes to a multiple of 16, so that small files share a part (16 of them on average) and a file that is added or goes
changes the part it is in, not all that come after it. This is content-defined chunking, as in Muthitacharoen, Chen and
Mazieres 2001, "A Low-bandwidth Network File System", with files for bytes. A part that grows beyond 16 MiB or 64
files ends too. By benchmarks/incremental.py, the 237 files of chatterbot-corpus are 13 parts, and where one of the
files is new, 36 are read.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from scaletrain.config_data import Corpus
from scaletrain.data.formats import SourceFile, reads_together

# The reason of the row that ends a part: all others have been read, and its `count` is how many they are.
END_OF_PART = "end_of_part"
_MEAN_FILES = 16
_MOST_FILES = 64
_MOST_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Part:
    """Files of one corpus, in order; `corpus` is its number, and `first` the number of the first file in it."""

    corpus: int
    first: int
    files: tuple[SourceFile, ...]

    def units(self, corpus: Corpus) -> Iterator[tuple[int, list[SourceFile]]]:
        """Yield (number of the first, files) of what is read in one go: all of them, or one file after the other."""
        if reads_together(corpus):
            yield self.first, list(self.files)
        else:
            yield from ((number, [file]) for number, file in enumerate(self.files, start=self.first))


def cut_into_parts(files: Sequence[Sequence[SourceFile]], corpora: Sequence[Corpus]) -> list[Part]:
    """Cut the files of each corpus into parts, in order."""
    parts = []
    for number, (of_corpus, corpus) in enumerate(zip(files, corpora, strict=True)):
        starts = [0] if reads_together(corpus) else _starts(of_corpus)
        bounds = pairwise([*starts, len(of_corpus)])
        parts += [Part(number, start, tuple(of_corpus[start:stop])) for start, stop in bounds]
    return parts


def ends_of_parts(table: pa.Table) -> npt.NDArray[np.bool_]:
    """Mark the rows that are no row of a corpus, but end a part."""
    return np.array([reason == END_OF_PART for reason in table["reason"].to_pylist()], dtype=np.bool_)


def _starts(files: Sequence[SourceFile]) -> list[int]:
    """The numbers of the files that begin a part."""
    starts: list[int] = []
    size_bytes = 0
    for number, file in enumerate(files):
        size_bytes += file.size_bytes
        is_full = size_bytes > _MOST_BYTES or (number - starts[-1] >= _MOST_FILES if starts else True)
        if is_full or xxhash.xxh3_64_intdigest(file.name.encode()) % _MEAN_FILES == 0:
            starts.append(number)
            size_bytes = file.size_bytes
    return starts
