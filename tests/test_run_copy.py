"""run_copy: a run that was copied is whole and goes on to the same end, or it is no run at all."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import commands
from scaletrain import attempts, checkpoint, storage
from scaletrain.config_file import dump_config, load_config
from scaletrain.errors import ConfigError, DamagedError, TrainingError
from scaletrain.layout import RunLayout
from scaletrain.metrics import read_records
from scaletrain.run_copy import copy_run
from scaletrain.run_inputs import inputs_of
from scaletrain.verify import verify_run
from workers import Prepared, make_job, make_prepared, train

SETTINGS = {"train__steps": 8, "checkpoint__every_steps": 2}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """A bucket with a run that was stopped after step 4 of 8, on two workers."""
    prepared = make_prepared(tmp_path_factory.mktemp("bucket"))
    run = RunLayout(prepared.root, "run")
    attempt = attempts.claim(run)
    with attempts.Heartbeat(run, attempt):  # which says at the end that the attempt has ended
        train(prepared, "run", attempt=attempt, debug__stop_after=4, **SETTINGS)
    storage.write_text(run.config, dump_config(make_job(prepared, "run", **SETTINGS).config))
    return prepared


@pytest.fixture
def source(trained: Prepared, tmp_path: Path) -> RunLayout:
    """The run in a bucket of its own, which a test may change."""
    shutil.copytree(trained.root, tmp_path / "source")
    return RunLayout(str(tmp_path / "source"), "run")


def test_a_copied_run_verifies_wherever_it_is(source: RunLayout, bucket_root: str) -> None:
    """Dataset and model come along, so that the copy is proved without the place it came from."""
    target = RunLayout(bucket_root, "run")
    copied = copy_run(source, target)
    assert (copied.step, copied.found) == (4, 0)
    shutil.rmtree(source.root)
    found = verify_run(target)
    assert (found.problems, found.steps, found.checkpoints) == ((), 4, (2, 4))
    assert load_config(target.config).storage.root == bucket_root


def test_a_copied_run_goes_on_to_the_same_bits(source: RunLayout, trained: Prepared, tmp_path: Path) -> None:
    """From its own dataset and model, with the losses of the run that stayed."""
    target = RunLayout(str(tmp_path / "target"), "run")
    copy_run(source, target)
    newest = checkpoint.latest(target)
    assert newest is not None
    inputs = inputs_of(target, newest)
    assert inputs.dataset_url.startswith(target.root) and inputs.model_url.startswith(target.root)
    moved = Prepared(target.root, inputs.dataset_url, inputs.model_url)
    losses = []
    for prepared in (moved, Prepared(source.root, trained.dataset_url, trained.model_url)):
        run = RunLayout(prepared.root, "run")
        train(prepared, "run", attempt=attempts.claim(run), **SETTINGS)
        losses.append([record["loss"] for record in read_records(run.metrics)])
    assert len(losses[0]) == 8 and losses[0] == losses[1]
    assert verify_run(target).problems == ()


def test_an_interrupted_copy_is_no_run_and_is_finished(source: RunLayout, tmp_path: Path) -> None:
    """What is there already is left alone; config.yaml, which makes it a run, comes last."""
    target = RunLayout(str(tmp_path / "target"), "run")
    damaged = storage.local_path(source.checkpoint(4))
    (shard,) = damaged.glob("*rank-00001*")
    sound = shard.read_bytes()
    shard.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    with pytest.raises(DamagedError, match=rf"chunk 0 of {shard} does not match its checksum"):
        copy_run(source, target)
    assert not storage.exists(target.config)
    assert checkpoint.latest(target).step == 2  # type: ignore[union-attr]
    shard.write_bytes(sound)
    assert copy_run(source, target).found > 5
    assert verify_run(target).problems == ()


def test_a_file_of_the_same_size_is_not_taken_for_the_same(source: RunLayout, bucket_root: str) -> None:
    """One that an interrupted copy brought, of what the source has replaced since, or that is damaged there."""
    target = RunLayout(bucket_root, "run")
    copied = copy_run(source, target)
    storage.remove(target.config)
    (shard,) = (file.url for file in storage.list_objects(target.checkpoint(4)) if "rank-00001" in file.url)
    hint = target.newest_hint
    for url in (shard, hint, storage.join(target.checkpoint(2), checkpoint.MANIFEST)):
        sound = storage.read_bytes(url)
        storage.write_bytes(url, sound[:-1] + bytes([sound[-1] ^ 1]))
    again = copy_run(source, target)
    assert again.found == copied.files - 1 - 3
    assert verify_run(target).problems == ()
    assert storage.read_text(hint) == "4"


def test_a_copy_between_two_places_of_one_store_is_finished_without_reading_it_again(
    source: RunLayout, s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store itself says that the files are the same."""
    between, target = RunLayout(f"{s3_bucket}/a", "run"), RunLayout(f"{s3_bucket}/b", "run")
    copied = copy_run(source, between)
    copy_run(between, target)
    storage.remove(target.config)
    fetched: list[str] = []
    download_file = storage.download_file
    monkeypatch.setattr(storage, "download_file", lambda url, path: (fetched.append(url), download_file(url, path)))
    assert copy_run(between, target).found == copied.files - 1
    assert fetched == []


def test_what_was_never_committed_stays_behind(source: RunLayout, tmp_path: Path) -> None:
    """A folder without a manifest is no checkpoint, here or there."""
    storage.remove(storage.join(source.checkpoint(4), checkpoint.MANIFEST))
    target = RunLayout(str(tmp_path / "target"), "run")
    assert copy_run(source, target).step == 2
    assert storage.list_folders(target.checkpoints) == ["step-00000002"]


def test_a_run_is_never_written_over(source: RunLayout, tmp_path: Path) -> None:
    """Another run of the same name, the run itself, and another name are refused before anything is written."""
    target = RunLayout(str(tmp_path / "target"), "run")
    with pytest.raises(ConfigError, match="a run keeps its name"):
        copy_run(source, RunLayout(target.root, "other"))
    with pytest.raises(ConfigError, match="that is where the run is"):
        copy_run(source, source)
    copy_run(source, target)
    with pytest.raises(ConfigError, match="there is a run of this name already"):
        copy_run(source, target)


def test_a_run_that_is_being_trained_is_not_copied(source: RunLayout, tmp_path: Path) -> None:
    """Its newest steps would be missing, and two of them would go on."""
    claim = "import sys, time; from scaletrain import attempts, layout\n"
    claim += "print(attempts.claim(layout.RunLayout(sys.argv[1], 'run')), flush=True); time.sleep(600)"
    other = subprocess.Popen([sys.executable, "-c", claim, source.root], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None and other.stdout.readline() == "2\n"
        with pytest.raises(TrainingError, match=f"is being trained at this moment: attempt 2, process {other.pid}"):
            copy_run(source, RunLayout(str(tmp_path / "target"), "run"))
    finally:
        other.kill()
        other.communicate()


def test_the_command_says_how_to_go_on(source: RunLayout, tmp_path: Path) -> None:
    """A storage root is enough as the target; the answer names the copy."""
    told = commands.run("runs", "copy", source.url, str(tmp_path / "target"))
    assert f"{tmp_path}/target/runs/run is at step 4" in told
    assert f"scaletrain train {tmp_path}/target/runs/run/config.yaml" in told
