"""Reading a .wandb file of Weights & Biases: a log in LevelDB's format after a header of seven bytes.

The format: https://github.com/google/leveldb/blob/main/doc/log_format.md. W&B reads it with a program of its own.
"""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_HEADER, _BLOCK, _RECORD_HEADER = 7, 32_768, 7
_FULL, _LAST = 1, 4


def records(path: Path) -> Iterator[Any]:
    """Each record that was written, as W&B's own message."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, whole = path.read_bytes(), _HEADER, b""
    while place + _RECORD_HEADER <= len(data):
        left = _BLOCK - place % _BLOCK
        if left < _RECORD_HEADER:
            place += left
            continue
        length, kind = struct.unpack_from("<HB", data, place + 4)
        start = place + _RECORD_HEADER
        whole, place = whole + data[start : start + length], start + length
        if kind in (_FULL, _LAST):
            record = Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def history(path: Path) -> list[dict[str, Any]]:
    """The rows that were logged, by name of the measurement."""
    found = [record.history.item for record in records(path) if record.WhichOneof("record_type") == "history"]
    return [{item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in row} for row in found]
