"""persister: a save that was handed over survives its worker, and nothing commits what it must not."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from commands import wait_for
from scaletrain import attempts, checkpoint, storage
from scaletrain.checkpoint import Committed, Extent, Failed, Manifest, Save, Setup, SharedImage, Stored, lay_out
from scaletrain.errors import TrainingError
from scaletrain.layout import RunLayout

LENGTH = 1000
LAYOUT = [lay_out([Extent("fp32", "weight", rank * LENGTH, LENGTH)]) for rank in range(2)]


def open_image(run: RunLayout, *, rank: int = 0, world_size: int = 1, attempt: int = 1, nonce: str = "") -> SharedImage:
    layout = LAYOUT[rank]
    setup = Setup(run, {}, attempt, rank, world_size, layout.size_bytes, len(layout.header), keep=3, nonce=nonce)
    image = SharedImage(setup)
    image.memory[: len(layout.header)] = layout.header
    return image


def fill(image: SharedImage, rank: int, value: float) -> None:
    image.memory[len(LAYOUT[rank].header) :] = np.full(LENGTH, value, np.float32).tobytes()


def save(step: int, *, world_size: int = 1, attempt: int = 1) -> Save:
    manifest = Manifest(
        step=step,
        samples_seen=8 * step,
        attempt=attempt,
        world_size=world_size,
        zero_stage=2,
        precision="fp32",
        dataset_url="data/tiny",
        model_url="models/tiny",
        ledger_hash="0" * 64,
        parent_step=None,
        created="2026-01-01T00:00:00+00:00",
        parameters={"weight": (LENGTH * world_size,)},
        scalars={},
        files=(),
    )
    return Save(step, manifest)


def test_two_ranks_commit_together(run: RunLayout) -> None:
    """Rank 0's persister waits for rank 1's, with nobody telling it."""
    images = [open_image(run, rank=rank, world_size=2) for rank in range(2)]
    for rank, image in enumerate(images):
        fill(image, rank, rank + 1.0)
    images[0].order(save(10, world_size=2))
    images[0].allow_commit()
    assert isinstance(images[0].reply(wait_s=30), Stored)
    assert images[0].reply(wait_s=0.5) is None
    images[1].order(Save(10, None))
    assert isinstance(images[1].reply(wait_s=30), Stored)
    assert isinstance(images[0].reply(wait_s=30), Committed)
    found = checkpoint.open_checkpoint(run.checkpoint(10)).read("fp32", "weight")
    np.testing.assert_array_equal(found, np.repeat(np.float32([1, 2]), LENGTH))
    for image in images:
        image.close()


def test_a_record_that_is_written_again_after_the_commit_does_not_stay(run: RunLayout) -> None:
    """As where the answer to the first write was lost, and rank 0 was quicker than the second."""
    images = [open_image(run, rank=rank, world_size=2) for rank in range(2)]
    images[1].order(Save(10, None))
    images[0].order(save(10, world_size=2))
    images[0].allow_commit()
    assert isinstance(images[1].reply(wait_s=30), Stored)
    assert isinstance(images[0].reply(wait_s=30), Stored)
    committed = images[0].reply(wait_s=30)
    assert isinstance(committed, Committed)
    listed = {file.name for file in committed.manifest.files} | {checkpoint.MANIFEST}

    def there() -> set[str]:
        return {info.url.rsplit("/", 1)[-1] for info in storage.list_objects(run.checkpoint(10))}

    wait_for(lambda: there() == listed, "rank 0 has tidied up")
    images[1].order(Save(10, None))
    assert isinstance(images[1].reply(wait_s=30), Stored)
    for image in images:
        image.close()
    assert there() == listed


def test_a_save_outlives_its_worker(run: RunLayout, tmp_path: Path) -> None:
    """A worker that is killed right after it gave the order: the checkpoint is committed all the same."""
    worker = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from test_persister import fill, open_image, save
from scaletrain.layout import RunLayout
image = open_image(RunLayout(sys.argv[2], "run"))
fill(image, 0, 7.0)
image.order(save(10))
image.allow_commit()
os.kill(os.getpid(), signal.SIGKILL)
"""
    paths = os.pathsep.join(sys.path)
    here = str(Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", worker, here, run.root], env={**os.environ, "PYTHONPATH": paths}, check=False
    )
    assert done.returncode == -9
    wait_for(lambda: checkpoint.latest(run), "a commit", limit_s=60)
    assert checkpoint.open_checkpoint(run.checkpoint(10)).read("fp32", "weight")[0] == 7.0


def test_a_clean_up_that_fails_ends_nothing(run: RunLayout) -> None:
    """A checkpoint of a newer version, which it does not dare to touch, stops the clean-up; commits go on."""
    order = save(5).manifest
    assert order is not None
    checkpoint.commit(run.checkpoint(5), replace(order, version=99))
    image = open_image(run)
    for step in (10, 20):
        image.order(save(step))
        image.allow_commit()
        assert isinstance(image.reply(wait_s=30), Stored)
        assert isinstance(image.reply(wait_s=30), Committed)
    assert image.reply(wait_s=1) is None
    image.close()


def test_nothing_is_committed_without_leave(run: RunLayout) -> None:
    """The ledger of these steps has to be in the bucket first; a worker that dies before leaves no commit."""
    image = open_image(run)
    image.order(save(10))
    assert isinstance(image.reply(wait_s=30), Stored)
    image.close()
    time.sleep(1)
    assert checkpoint.latest(run) is None


def test_an_attempt_that_was_taken_over_commits_nothing(run: RunLayout) -> None:
    """A newer attempt was claimed while the save was under way."""
    assert [attempts.claim(run), attempts.claim(run)] == [1, 2]
    image = open_image(run)
    image.order(save(10))
    image.allow_commit()
    assert isinstance(image.reply(wait_s=30), Stored)
    failed = image.reply(wait_s=30)
    assert isinstance(failed, Failed) and isinstance(failed.error, TrainingError)
    assert "attempt 2 has taken the run over" in str(failed.error)
    assert checkpoint.latest(run) is None
    image.close()


def test_a_save_of_a_run_that_was_removed_and_begun_anew_changes_nothing(run: RunLayout) -> None:
    """Both have attempt 1: the old one's file stands beside the new one's, and its manifest does not come."""
    attempts.claim(run, nonce="old")
    old = open_image(run, nonce="old")
    fill(old, 0, 1.0)
    storage.remove(run.url)
    attempts.claim(run, nonce="new")
    new = open_image(run, nonce="new")
    fill(new, 0, 2.0)
    for image in (new, old):
        image.order(save(10))
        image.allow_commit()
    stored, committed, failed = new.reply(wait_s=30), new.reply(wait_s=30), old.reply(wait_s=30)
    assert isinstance(stored, Stored) and isinstance(committed, Committed)
    if isinstance(failed, Stored):  # unless the new one has swept it away before it was whole
        failed = old.reply(wait_s=30)
    assert isinstance(failed, Failed) and "its claim is that of process" in str(failed.error)
    assert checkpoint.verify(run.checkpoint(10)) == committed.manifest
    assert checkpoint.open_checkpoint(run.checkpoint(10)).read("fp32", "weight")[0] == 2.0
    for image in (old, new):
        image.close()


def test_a_takeover_ends_the_wait_for_another_rank(run: RunLayout) -> None:
    """What rank 0 waits for may never come: a newer attempt sweeps it away."""
    assert [attempts.claim(run), attempts.claim(run)] == [1, 2]
    image = open_image(run, world_size=2)
    image.order(save(10, world_size=2))
    assert isinstance(image.reply(wait_s=30), Stored)
    failed = image.reply(wait_s=30)
    assert isinstance(failed, Failed) and "attempt 2 has taken the run over" in str(failed.error)
    image.close()


def test_a_disk_that_cannot_be_written_is_told(run: RunLayout) -> None:
    """The error names the file; nothing is left half-written, and the next save may succeed."""
    blocked = storage.local_path(run.checkpoint(10))
    blocked.parent.mkdir(parents=True)
    blocked.write_text("a file where the folder should be")
    image = open_image(run)
    image.order(save(10))
    failed = image.reply(wait_s=30)
    assert isinstance(failed, Failed) and "step-00000010" in str(failed.error)
    blocked.unlink()
    image.order(save(10))
    image.allow_commit()
    assert isinstance(image.reply(wait_s=30), Stored)
    assert isinstance(image.reply(wait_s=30), Committed)
    image.close()


def test_a_persister_that_was_killed_is_told(run: RunLayout) -> None:
    """The worker learns of it at its next look, and how it ended."""
    image = open_image(run)
    image._process.kill()
    failed = image.reply(wait_s=30)
    assert isinstance(failed, Failed) and "signal 9" in str(failed.error)
    image.close()


@pytest.mark.parametrize("rounds", [3])
def test_the_memory_is_used_again(run: RunLayout, rounds: int) -> None:
    """Each checkpoint has the values of its own moment; older ones than `keep` go."""
    image = open_image(run)
    for step in range(1, rounds + 3):
        fill(image, 0, float(step))
        image.order(save(step))
        image.allow_commit()
        assert isinstance(image.reply(wait_s=30), Stored)
        assert isinstance(image.reply(wait_s=30), Committed)
    image.close()
    wait_for(lambda: len(storage.list_folders(run.checkpoints)) == rounds, "older checkpoints are gone")
    for step in range(3, rounds + 3):
        assert checkpoint.open_checkpoint(run.checkpoint(step)).read("fp32", "weight")[0] == step
