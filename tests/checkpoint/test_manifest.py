"""manifest: it is whole and its own, or it is refused."""

import orjson
import pytest

from saved_checkpoint import save
from scaletrain import checkpoint, storage
from scaletrain.errors import CheckpointError
from scaletrain.layout import RunLayout


def test_a_manifest_from_the_future_is_refused(run: RunLayout) -> None:
    """A format that this version does not know is named, not guessed at."""
    save(run, 10)
    path = storage.local_path(run.checkpoint(10)) / checkpoint.MANIFEST
    path.write_bytes(orjson.dumps({**orjson.loads(path.read_bytes()), "version": 99}))
    with pytest.raises(CheckpointError, match="format version 99"):
        checkpoint.load_manifest(run.checkpoint(10))
