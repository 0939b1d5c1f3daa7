"""What a tracker has to know of a run from one command to the next, kept beside the run in the bucket."""

from collections.abc import Mapping
from typing import Any

import orjson

from scaletrain import storage
from scaletrain.errors import NotFoundError
from scaletrain.layout import RunLayout


def read_note(run: RunLayout, tracker: str) -> dict[str, Any]:
    """What was kept for a tracker; empty where nothing was. Raises StorageError."""
    try:
        note: dict[str, Any] = orjson.loads(storage.read_bytes(_url(run, tracker)))
    except NotFoundError:
        return {}
    return note


def keep_note(run: RunLayout, tracker: str, note: Mapping[str, object]) -> None:
    """Keep something for a tracker in place of what was kept before. Raises StorageError."""
    storage.write_bytes(_url(run, tracker), orjson.dumps(note))


def _url(run: RunLayout, tracker: str) -> str:
    return storage.join(run.track, f"{tracker}.json")
