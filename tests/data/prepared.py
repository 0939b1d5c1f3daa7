"""What a prepared dataset holds, for tests to look at."""

from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import pyarrow.parquet as pq

from scaletrain import storage
from scaletrain.config import Config
from scaletrain.data.shards import load_index

Configure = Callable[..., Config]
FILES = {
    "index.json",
    "provenance-00000.parquet",
    "report.html",
    "shard-00000.parquet",
    "stats.json",
    "validation-00000.parquet",
}


def files_of(dataset_url: str) -> dict[str, bytes]:
    return {each.url.rpartition("/")[2]: storage.read_bytes(each.url) for each in storage.list_objects(dataset_url)}


def statistics_of(dataset_url: str) -> dict[str, Any]:
    return orjson.loads(storage.read_bytes(storage.join(dataset_url, "stats.json")))  # type: ignore[no-any-return]


def documents_of(dataset_url: str, split: str = "train") -> list[tuple[list[int], list[int]]]:
    """Ids and labels of every document of a split, in order."""
    found = []
    for shard in load_index(dataset_url).splits[split].shards:
        for row in pq.read_table(storage.join(dataset_url, shard.name)).to_pylist():
            stops = np.cumsum(row["document_lengths"]).tolist()
            for start, stop in zip([0, *stops], stops, strict=False):
                found.append((row["input_ids"][start:stop], row["labels"][start:stop]))
    return found
