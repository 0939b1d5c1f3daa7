"""manifest: it is whole and its own, or it is refused."""

from dataclasses import replace

import orjson
import pytest

from saved_checkpoint import flip_one_bit_once, save
from scaletrain import checkpoint, storage
from scaletrain.errors import CheckpointError, NewerFormatError
from scaletrain.layout import RunLayout


def test_a_manifest_from_the_future_is_refused(run: RunLayout) -> None:
    """A format that this version does not know is named, not guessed at; nor is it passed over, for it is sound."""
    committed = save(run, 10)
    save(run, 20)
    storage.remove(storage.join(run.checkpoint(20), checkpoint.MANIFEST))
    checkpoint.commit(run.checkpoint(20), replace(committed, step=20, version=99))
    with pytest.raises(NewerFormatError, match="format version 99"):
        checkpoint.latest(run)
    with pytest.raises(NewerFormatError, match="use the version that wrote it"):
        checkpoint.commit(run.checkpoint(20), replace(committed, step=20))


def test_a_version_that_was_damaged_is_no_newer_one(run: RunLayout) -> None:
    """The manifest does not match its own hash, so it is passed over as any other damage."""
    save(run, 10)
    path = storage.local_path(run.checkpoint(10)) / checkpoint.MANIFEST
    path.write_bytes(orjson.dumps({**orjson.loads(path.read_bytes()), "version": 99}))
    with pytest.raises(CheckpointError, match="does not match its own hash"):
        checkpoint.load_manifest(run.checkpoint(10))
    assert checkpoint.newest_whole(run) is None


def test_one_bad_transfer_is_no_damaged_manifest(run: RunLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not match its hash is read again before the commit is given up."""
    committed = save(run, 10)
    flip_one_bit_once(monkeypatch)
    assert checkpoint.load_manifest(run.checkpoint(10)) == committed
