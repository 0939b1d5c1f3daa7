"""checkpoint: a commit is whole or it is nothing, any range can be read, and no damaged byte is ever used."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from scaletrain import checkpoint, storage
from scaletrain.checkpoint import Manifest, Slice
from scaletrain.errors import CheckpointError, NotFoundError
from scaletrain.layout import RunLayout

SHAPES = {"embed": (40, 10), "norm": (7,)}
VALUES = {name: np.arange(np.prod(shape), dtype=np.float32) + 0.5 for name, shape in SHAPES.items()}


def save(run: RunLayout, step: int, *, world_size: int = 2, parent: int | None = None) -> Manifest:
    """Commit a checkpoint of two parameters, dealt in even shares to `world_size` writers."""
    url = run.checkpoint(step)
    records = []
    for rank in range(world_size):
        slices = []
        for name, values in VALUES.items():
            start, stop = rank * len(values) // world_size, (rank + 1) * len(values) // world_size
            slices += [
                Slice(kind, name, start, sign * values[start:stop]) for kind, sign in (("fp32", 1), ("exp_avg", -1))
            ]
        records.append(checkpoint.write_shard(url, f"rank-{rank:05d}.safetensors", slices))
    manifest = Manifest(
        step=step,
        samples_seen=step * 8,
        attempt=1,
        world_size=world_size,
        zero_stage=2,
        precision="fp32",
        model_url="bucket/models/tiny",
        ledger_hash="0" * 64,
        parent_step=parent,
        created="2026-01-01T00:00:00+00:00",
        parameters=SHAPES,
        scalars={"optimizer_step": step},
        files=tuple(records),
    )
    return checkpoint.commit(url, manifest)


@pytest.fixture
def run(tmp_path: Path) -> RunLayout:
    return RunLayout(str(tmp_path), "run")


def test_a_checkpoint_reads_back_from_every_store(bucket_root: str) -> None:
    """What was written comes back, from a folder, memory and S3."""
    run = RunLayout(bucket_root, "run")
    save(run, 10, world_size=3)
    source = checkpoint.open_checkpoint(run.checkpoint(10))
    assert source.names() == ("embed", "norm")
    assert source.kinds == ("exp_avg", "fp32")
    np.testing.assert_array_equal(source.read("fp32", "embed"), VALUES["embed"])
    np.testing.assert_array_equal(source.read("exp_avg", "norm"), -VALUES["norm"])
    assert checkpoint.verify(run.checkpoint(10)).step == 10


@settings(max_examples=60, deadline=None)
@given(world_size=st.integers(1, 9), data=st.data())
def test_any_range_reads_whoever_wrote_it(
    tmp_path_factory: pytest.TempPathFactory, world_size: int, data: st.DataObject
) -> None:
    """A range may begin and end anywhere, whatever number of ranks wrote the parameter."""
    run = RunLayout(str(tmp_path_factory.mktemp("run")), "run")
    save(run, 1, world_size=world_size)
    source = checkpoint.open_checkpoint(run.checkpoint(1))
    offset = data.draw(st.integers(0, 400))
    length = data.draw(st.integers(0, 400 - offset))
    np.testing.assert_array_equal(
        source.read("fp32", "embed", offset, length), VALUES["embed"][offset : offset + length]
    )


def test_the_files_are_plain_safetensors(run: RunLayout) -> None:
    """Any safetensors reader opens a rank's file; nothing in it is pickled."""
    save(run, 1, world_size=1)
    tensors = load_file(storage.local_path(run.checkpoint(1)) / "rank-00000.safetensors")
    np.testing.assert_array_equal(tensors["fp32:norm:0"], VALUES["norm"])


def test_latest_ignores_an_uncommitted_step(run: RunLayout) -> None:
    """A folder without a manifest was never committed."""
    save(run, 10)
    checkpoint.write_shard(run.checkpoint(20), "rank-00000.safetensors", [])
    newest = checkpoint.latest(run)
    assert newest is not None
    assert newest.step == 10


@pytest.mark.parametrize("damage", ["garbage", "changed", "empty", "short file", "missing file"])
def test_latest_falls_back_to_the_newest_that_verifies(run: RunLayout, damage: str) -> None:
    """A manifest that is damaged, or whose files are not whole, does not hide the commit before it."""
    save(run, 10)
    save(run, 20)
    folder = storage.local_path(run.checkpoint(20))
    manifest = folder / checkpoint.MANIFEST
    shard = folder / "rank-00001.safetensors"
    if damage == "garbage":
        manifest.write_bytes(b"\x00not json")
    elif damage == "changed":
        manifest.write_bytes(manifest.read_bytes().replace(b'"samples_seen": 160', b'"samples_seen": 168'))
    elif damage == "empty":
        manifest.write_bytes(b"")
    elif damage == "short file":
        shard.write_bytes(shard.read_bytes()[:-1])
    else:
        shard.unlink()
    newest = checkpoint.latest(run)
    assert newest is not None
    assert newest.step == 10


def test_a_manifest_from_the_future_is_refused(run: RunLayout) -> None:
    """A format that this version does not know is named, not guessed at."""
    save(run, 10)
    path = storage.local_path(run.checkpoint(10)) / checkpoint.MANIFEST
    path.write_bytes(orjson.dumps({**orjson.loads(path.read_bytes()), "version": 99}))
    with pytest.raises(CheckpointError, match="format version 99"):
        checkpoint.load_manifest(run.checkpoint(10))


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


def test_a_range_that_nobody_wrote_is_an_error(run: RunLayout) -> None:
    """A hole in a parameter is named; it does not read as zeros."""
    committed = save(run, 10)
    checkpoint.commit(run.checkpoint(10), replace(committed, files=committed.files[:1]))
    with pytest.raises(CheckpointError, match="holds 200 of 400 elements of fp32 of embed"):
        checkpoint.open_checkpoint(run.checkpoint(10)).read("fp32", "embed")


def test_prune_keeps_the_newest_and_sweeps_what_was_never_committed(run: RunLayout) -> None:
    """keep=2 leaves two commits, removes older ones and old leftovers, and spares a save that is under way."""
    for step in (10, 20, 30, 40):
        save(run, step)
    for step in (15, 50):
        checkpoint.write_shard(run.checkpoint(step), "rank-00000.safetensors", [])
    assert checkpoint.prune(run, keep=2) == [20, 15, 10]
    assert storage.list_folders(run.checkpoints) == ["step-00000030", "step-00000040", "step-00000050"]


def test_prune_counts_only_checkpoints_that_can_be_loaded(run: RunLayout) -> None:
    """A damaged commit does not push out the one that a resume would need."""
    for step in (10, 20):
        save(run, step)
    (storage.local_path(run.checkpoint(20)) / "rank-00000.safetensors").unlink()
    checkpoint.prune(run, keep=1)
    newest = checkpoint.latest(run)
    assert newest is not None
    assert newest.step == 10


def test_a_run_without_checkpoints_has_no_latest(run: RunLayout) -> None:
    """Nothing there is an answer, not an error; asking for one by name is."""
    assert checkpoint.latest(run) is None
    with pytest.raises(NotFoundError):
        checkpoint.load_manifest(run.checkpoint(10))


def test_a_chunk_boundary_splits_no_value(run: RunLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranges that lie across chunks, and files of many chunks, read and verify the same."""
    monkeypatch.setattr(checkpoint, "CHUNK_BYTES", 37)
    committed = save(run, 10)
    assert len(committed.files[0].chunks) > 20
    source = checkpoint.open_checkpoint(run.checkpoint(10))
    np.testing.assert_array_equal(source.read("fp32", "embed", 3, 390), VALUES["embed"][3:393])
