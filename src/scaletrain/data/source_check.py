"""Can the sources of a configuration be read: by their first rows, for `scaletrain doctor`.

Files are found and counted, and of the first one a few rows are read as the format reads them. What a format reads as
a whole (a JSON array, a dump whose rows refer to one another) is opened alone where it is large.
"""

from collections.abc import Sequence
from itertools import islice

from scaletrain.config_data import Corpus
from scaletrain.data.conversation import Conversation
from scaletrain.data.formats import (
    BAD_ROW,
    Item,
    SourceFile,
    check_settings,
    list_files,
    read_files,
    reads_together,
    remedy,
)
from scaletrain.data.formats.files import bare_name, opened
from scaletrain.doctor import Finding
from scaletrain.errors import ScaletrainError

_ROWS = 20
_SMALL_BYTES = 4 * 2**20
_BY_LINES = (".jsonl", ".ndjson", ".csv", ".tsv", ".tab", ".txt", ".log", ".parquet")
_MB = 1e6


def sources(corpora: Sequence[Corpus]) -> list[Finding]:
    """Look at every corpus, a line each; raises nothing. Storage must be configured."""
    return [_look_at(corpus) for corpus in corpora]


def _look_at(corpus: Corpus) -> Finding:
    name = f"source {corpus.name or corpus.format}"
    try:
        check_settings([corpus])
        files = list_files(corpus)
        size_bytes = sum(file.size_bytes for file in files)
        found = f"{len(files)} file(s), {size_bytes / _MB:,.1f} MB"
        if reads_together(corpus) and size_bytes > _SMALL_BYTES:
            return _opened(name, files[0], found)
        file = next((each for each in files if each.size_bytes), files[0])
        if file.size_bytes > _SMALL_BYTES and not bare_name(file.name).endswith(_BY_LINES):
            return _opened(name, file, found)
        unit = files if reads_together(corpus) else [file]
        return _judged(name, list(islice(read_files(unit, corpus=corpus), _ROWS)), found, where=file.name)
    except ScaletrainError as error:
        said, _, what_to_do = str(error).partition("; ")
        return Finding(name, "fail", said, what_to_do or "check the source and the format")


def _opened(name: str, file: SourceFile, found: str) -> Finding:
    with opened(file) as stream:
        stream.peek(1)
    return Finding(name, "ok", f"{found}; too large to look into here, but it can be opened")


def _judged(name: str, items: Sequence[Item], found: str, *, where: str) -> Finding:
    good = [item for item in items if isinstance(item, Conversation)]
    rejected = [item for item in items if not isinstance(item, Conversation)]
    bad = [f"{item.source}: {item.detail}" for item in rejected if item.reason == BAD_ROW]
    if bad:
        seen = f"{found}; of the first {len(items)} rows {len(bad)} cannot be read, as {bad[0]}"
        return Finding(name, "warn" if good else "fail", seen, remedy(bad))
    if not good:
        reasons = ", ".join(sorted({item.reason for item in rejected}))
        seen = f"{found}; no conversation in the first rows of {where}{f' ({reasons})' if reasons else ''}"
        return Finding(name, "warn", seen, "check the source and the format")
    turns = len(good[0].turns)
    return Finding(name, "ok", f"{found}; the first conversation has {turns} turn{'s' if turns != 1 else ''}")
