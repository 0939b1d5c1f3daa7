"""Datasets of random rows, small enough for a test."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from scaletrain.data.shards import (
    FORMAT_VERSION,
    IGNORED_LABEL,
    DatasetIndex,
    Row,
    SplitInfo,
    row_group_rows,
    write_index,
    write_split,
)

PAD = 0


def random_rows(count: int, *, seq_len: int, seed: int = 0) -> Iterator[Row]:
    """Rows of one to four documents of two corpora; some are padded, about half of the tokens are supervised."""
    generator = np.random.default_rng(seed)
    for _ in range(count):
        edges = np.unique(generator.integers(1, seq_len + 1, size=4))
        tokens = int(edges[-1])
        input_ids = np.full(seq_len, PAD, dtype=np.int32)
        input_ids[:tokens] = generator.integers(1, 50_000, size=tokens)
        labels = np.where(generator.random(seq_len) < 0.5, input_ids, IGNORED_LABEL).astype(np.int32)
        labels[[0, *edges[:-1]]] = IGNORED_LABEL
        labels[tokens:] = IGNORED_LABEL
        lengths = tuple(np.diff(edges, prepend=0).tolist())
        yield Row(input_ids, labels, lengths, tuple(generator.integers(0, 2, size=len(lengths)).tolist()))


def write_dataset(url: str | Path, *, rows: int, validation_rows: int = 0, seq_len: int = 64) -> DatasetIndex:
    """Write a dataset of random rows and return its index."""
    splits: dict[str, SplitInfo] = {}
    for seed, (name, count) in enumerate((("train", rows), ("validation", validation_rows))):
        written = random_rows(count, seq_len=seq_len, seed=seed)
        splits[name] = write_split(written, str(url), split=name, seq_len=seq_len)
    index = DatasetIndex(
        version=FORMAT_VERSION,
        dataset_id="random",
        seq_len=seq_len,
        row_group_rows=row_group_rows(seq_len),
        pad_token_id=PAD,
        corpora=("first", "second"),
        tokenizer="none",
        splits=splits,
    )
    write_index(str(url), index)
    return index
