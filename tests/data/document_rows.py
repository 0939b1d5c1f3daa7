"""Documents as tokenising gives them, for tests of what is chosen from them."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import xxhash

from scaletrain.data.documents import Documents, collect
from scaletrain.data.encoding import DOCUMENTS
from scaletrain.data.near_duplicates import banding, fingerprint
from scaletrain.data.ngrams import hash_units, units

_NUMBERS = itertools.count()


def conversation(
    text: str, *, corpus: int = 0, row: int = 0, authors: Sequence[str] = (), language: str = "", num_tokens: int = 0
) -> dict[str, Any]:
    """A row of DOCUMENTS; as many tokens as words where `num_tokens` is 0."""
    words = units(text)
    prints = fingerprint(hash_units(words), banding(0.8))
    return {
        **_place(corpus, row),
        "authors": list(authors),
        "changes": [],
        "language": language,
        "key": xxhash.xxh3_128_digest(orjson.dumps(text)),
        "input_ids": [1] * (num_tokens or len(words)),
        "supervised": [1] * (num_tokens or len(words)),
        "turn_starts": [0],
        "bands": prints.bands.tolist(),
        "sketch": prints.sketch.tolist(),
    }


def dropped(reason: str, *, corpus: int = 0, row: int = 0) -> dict[str, Any]:
    """A row without a document."""
    return {**_place(corpus, row), "reason": reason}


def documents(folder: Path, rows: Sequence[dict[str, Any]], *, rows_a_table: int = 7) -> Documents:
    """Collect rows into documents, a few at a time."""
    nothing = {field.name: [] if pa.types.is_large_list(field.type) else None for field in DOCUMENTS}
    tables = [
        pa.Table.from_pylist([nothing | row for row in rows[start : start + rows_a_table]], schema=DOCUMENTS)
        for start in range(0, len(rows), rows_a_table)
    ]
    return collect(tables, folder / f"{next(_NUMBERS)}.arrow", on_rows=lambda _: None)


def _place(corpus: int, row: int) -> dict[str, Any]:
    return {"corpus": corpus, "file": 0, "row": row, "count": 1, "source": f"corpus-{corpus}:{row}"}
