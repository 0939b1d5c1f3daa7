"""Damaged checkpoints: no flipped bit is ever loaded, and a run goes on from the newest commit that is whole."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pytest
from attempts_on_processes import finish
from invariants import assert_recovered

from scaletrain import attempts, checkpoint, storage
from scaletrain.checkpoint.shard_file import VerifiedFile
from scaletrain.errors import CheckpointError, DamagedError
from scaletrain.layout import RunLayout
from workers import Prepared

pytestmark = pytest.mark.long

FLIPS = 10_000


def test_ten_thousand_flipped_bits_are_all_found(
    prepared: Prepared, undisturbed: RunLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One bit of any file of a checkpoint, at random: reading that place raises, or (in a manifest) means the same."""
    url = undisturbed.checkpoint(12)
    manifest = checkpoint.load_manifest(url)
    whole = {info.url: storage.read_bytes(info.url) for info in storage.list_objects(url)}
    files, records = sorted(whole), {storage.join(url, file.name): file for file in manifest.files}
    now = dict(whole)

    def read(url: str, *, start: int = 0, length: int | None = None) -> bytes:
        return now[url][start:][:length]

    monkeypatch.setattr(storage, "read_bytes", read)
    sizes = np.array([len(whole[file]) for file in files])
    random = np.random.default_rng(0)
    for place in random.integers(0, sizes.sum(), FLIPS):
        number = int(np.searchsorted(sizes.cumsum(), place, side="right"))
        file, offset = files[number], int(place - sizes[:number].sum())
        damaged = bytearray(whole[file])
        damaged[offset] ^= 1 << int(random.integers(0, 8))
        now = {**whole, file: bytes(damaged)}
        if file in records:
            with pytest.raises(DamagedError, match="does not match its checksum"):
                _load(VerifiedFile(file, records[file]), offset, header_bytes=records[file].header_bytes)
        else:
            assert _means_the_same(url, manifest)


def _load(file: VerifiedFile, offset: int, *, header_bytes: int) -> None:
    """Load what a byte belongs to, as a resume does: the header, or the slice it lies in."""
    slices = list(file.tensors())
    [(start, stop)] = [(start, stop) for _, start, stop in slices if start <= offset < stop]
    file.read(start, stop - start)


def _means_the_same(url: str, manifest: checkpoint.Manifest) -> bool:
    """Whether a changed manifest is refused, or reads as before (an e of an exponent may become an E)."""
    try:
        return checkpoint.load_manifest(url) == manifest
    except CheckpointError:
        return True


def _edit_manifest(folder: Path, change: Callable[[bytes], bytes]) -> None:
    manifest = folder / checkpoint.MANIFEST
    manifest.write_bytes(change(manifest.read_bytes()))


def _first_shard(folder: Path) -> Path:
    return min(folder.glob("*.safetensors"))


DAMAGES: dict[str, Callable[[Path, Path], object]] = {
    "empty manifest": lambda folder, other: _edit_manifest(folder, lambda data: b""),
    "half a manifest": lambda folder, other: _edit_manifest(folder, lambda data: data[: len(data) // 2]),
    "garbage manifest": lambda folder, other: _edit_manifest(folder, lambda data: b"\x00\xff" * 500),
    "missing shard": lambda folder, other: _first_shard(folder).unlink(),
    "empty shard": lambda folder, other: _first_shard(folder).write_bytes(b""),
    "shard of another run": lambda folder, other: shutil.copyfile(_first_shard(other), _first_shard(folder)),
}


@pytest.fixture(scope="module")
def other_run(prepared: Prepared) -> Path:
    """A checkpoint of the same step, model and size, of a run with another seed."""
    finish(prepared, "of-another-seed", seed=7, debug__stop_after=9)
    return storage.local_path(RunLayout(prepared.root, "of-another-seed").checkpoint(9))


@pytest.fixture(scope="module")
def stopped_at_nine(prepared: Prepared) -> str:
    finish(prepared, "stopped-at-nine", debug__stop_after=9)
    return "stopped-at-nine"


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_run_goes_on_from_the_commit_before_a_damaged_one(
    prepared: Prepared, undisturbed: RunLayout, stopped_at_nine: str, other_run: Path, damage: str
) -> None:
    """Step 9 is damaged; all workers load step 6 and train again, commit step 9 anew, and end with the same bits."""
    name = damage.replace(" ", "-")
    run = _copy_run(prepared, stopped_at_nine, name)
    DAMAGES[damage](storage.local_path(run.checkpoint(9)), other_run)
    finish(prepared, name, went_on_from=6)
    assert attempts.read_attempts(run).resumed_from == {1: 0, 2: 6}
    assert_recovered(prepared, name, undisturbed)


def test_a_checkpoint_of_a_newer_version_ends_the_run(prepared: Prepared, undisturbed: RunLayout) -> None:
    """It is sound, so it is neither passed over nor replaced: whoever upgraded some machines only is told."""
    run = _copy_run(prepared, undisturbed.name, "of-the-future")
    manifest = run.checkpoint(12) + "/" + checkpoint.MANIFEST
    future = replace(checkpoint.load_manifest(run.checkpoint(12)), version=99)
    storage.remove(manifest)
    checkpoint.commit(run.checkpoint(12), future)
    before = storage.read_bytes(manifest)
    with pytest.raises(CheckpointError, match="has format version 99; this scaletrain reads up to 1"):
        checkpoint.latest(run)
    assert storage.read_bytes(manifest) == before and orjson.loads(before)["version"] == 99


def _copy_run(prepared: Prepared, name: str, copy: str) -> RunLayout:
    run = RunLayout(prepared.root, copy)
    shutil.copytree(RunLayout(prepared.root, name).url, run.url)
    return run
