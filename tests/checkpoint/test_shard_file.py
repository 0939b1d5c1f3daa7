"""shard_file: plain safetensors, and no damaged byte is ever used."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from saved_checkpoint import VALUES, flip_one_bit_once, save
from scaletrain import checkpoint, storage
from scaletrain.checkpoint import shard_file, shard_image
from scaletrain.checkpoint.shard_file import VerifiedFile
from scaletrain.errors import CheckpointError, NotFoundError
from scaletrain.layout import RunLayout


def test_the_files_are_plain_safetensors(run: RunLayout) -> None:
    """Any safetensors reader opens a rank's file; nothing in it is pickled."""
    save(run, 1, world_size=1)
    tensors = load_file(storage.local_path(run.checkpoint(1)) / "rank-00000.safetensors")
    np.testing.assert_array_equal(tensors["fp32:norm:0"], VALUES["norm"])


def test_every_flipped_bit_is_found_before_use(run: RunLayout) -> None:
    """Reading a checkpoint with one bit flipped, anywhere in a rank's file, raises; it never gives other numbers."""
    save(run, 10)
    path = storage.local_path(run.checkpoint(10)) / "rank-00000.safetensors"
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    for position, bit in zip(random.integers(0, len(whole), 200), random.integers(0, 8, 200), strict=True):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << bit
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="does not match its checksum"):
            source = checkpoint.open_checkpoint(run.checkpoint(10))
            for kind in source.kinds:
                for name in source.names():
                    source.read(kind, name)
        with pytest.raises(CheckpointError):
            checkpoint.verify(run.checkpoint(10))


def test_one_bad_transfer_is_no_damaged_file(run: RunLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    """A header or a chunk that does not match its checksum is read again before the commit is given up."""
    (record,) = save(run, 10, world_size=1).files
    file = VerifiedFile(storage.join(run.checkpoint(10), record.name), record)
    flip_one_bit_once(monkeypatch)
    assert [key for key, _, _ in file.tensors()]
    flip_one_bit_once(monkeypatch)
    assert file.chunk(0) == storage.read_bytes(file.url)


def test_a_chunk_that_could_not_be_read_can_be_asked_for_again(run: RunLayout) -> None:
    """The failure is not kept in the cache."""
    (record,) = save(run, 10, world_size=1).files
    file = VerifiedFile(storage.join(run.checkpoint(10), record.name), record)
    path = storage.local_path(file.url)
    away = path.rename(path.with_suffix(".away"))
    with pytest.raises(NotFoundError):
        file.chunk(0)
    away.rename(path)
    assert file.chunk(0) == path.read_bytes()


def test_a_chunk_boundary_splits_no_value(run: RunLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranges that lie across chunks, and files of many chunks, read and verify the same."""
    for module in (shard_file, shard_image):
        monkeypatch.setattr(module, "CHUNK_BYTES", 37)
    committed = save(run, 10)
    assert len(committed.files[0].chunks) > 20
    source = checkpoint.open_checkpoint(run.checkpoint(10))
    np.testing.assert_array_equal(source.read("fp32", "embed", 3, 390), VALUES["embed"][3:393])
