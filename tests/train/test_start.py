"""start: an attempt goes on from the newest commit whose bytes verify, on whichever rank they do not."""

import re
from pathlib import Path

import pytest

from scaletrain import attempts, checkpoint, storage
from scaletrain.errors import CheckpointError
from scaletrain.layout import RunLayout
from scaletrain.metrics import read_records
from workers import Prepared, train

SETTINGS = {"train__steps": 9, "checkpoint__every_steps": 3, "train__schedule": "constant"}


def flip_a_bit(file: Path, position: int) -> None:
    content = bytearray(file.read_bytes())
    content[position] ^= 1
    file.write_bytes(content)


def damage(run: RunLayout, step: int, rank: int) -> None:
    """Flip a bit in one rank's values, where only loading can find it."""
    (file,) = storage.local_path(run.checkpoint(step)).glob(f"*rank-{rank:05d}*.safetensors")
    flip_a_bit(file, file.stat().st_size - 3)


@pytest.mark.parametrize(("workers", "stage"), [(2, 2), (2, 3), (1, 2)])
def test_damaged_bytes_are_passed_over_by_all_ranks(prepared: Prepared, workers: int, stage: int) -> None:
    """Step 9 is damaged in what rank 1 wrote; all ranks go on from step 6, and step 9 is committed anew."""
    name = f"damaged-{workers}-{stage}"
    run = RunLayout(prepared.root, name)
    train(prepared, name, workers=2, zero__stage=stage, **SETTINGS)
    before = [line["loss"] for line in read_records(run.metrics)]
    damage(run, 9, rank=1)
    longer = {**SETTINGS, "train__steps": 10}
    after = [line["loss"] for line in train(prepared, name, workers=workers, attempt=2, zero__stage=stage, **longer)]
    assert after[:9] == pytest.approx(before, abs=1e-5)
    assert attempts.read_attempts(run).resumed_from == {1: 0, 2: 6}
    assert checkpoint.verify(run.checkpoint(9)).attempt == 2


def test_a_run_whose_checkpoints_are_all_damaged_is_not_begun_anew(prepared: Prepared) -> None:
    """Starting from nothing would throw away what may still be mended; every file is named."""
    run = RunLayout(prepared.root, "all-damaged")
    train(prepared, "all-damaged", workers=2, **SETTINGS)
    for step in (3, 6, 9):
        damage(run, step, rank=0)
    with pytest.raises(CheckpointError, match=re.escape("no checkpoint of")) as caught:
        train(prepared, "all-damaged", workers=2, attempt=2, **{**SETTINGS, "train__steps": 12})
    assert all(f"step-{step:08d}" in str(caught.value) for step in (3, 6, 9))
    next(storage.local_path(run.checkpoint(6)).glob("*.safetensors")).unlink()
    storage.write_bytes(storage.join(run.checkpoint(3), checkpoint.MANIFEST), b"garbage")
    with pytest.raises(CheckpointError, match=re.escape("no checkpoint of")) as caught:
        train(prepared, "all-damaged", workers=2, attempt=3, **{**SETTINGS, "train__steps": 12})
    assert all(f"step-{step:08d}" in str(caught.value) for step in (3, 6, 9))
