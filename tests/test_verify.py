"""verify: a run that lost nothing is proved, and whatever was lost, repeated or changed is named."""

import shutil
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from scaletrain import attempts, checkpoint, storage
from scaletrain.config_file import dump_config
from scaletrain.layout import RunLayout
from scaletrain.verify import Verdict, verify_run
from workers import Prepared, make_job, make_prepared, train

SETTINGS = {"train__steps": 12, "checkpoint__every_steps": 2}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """A dataset, and a run that went from 2 workers to 1 to 3, each time with steps that nobody had committed."""
    prepared = make_prepared(tmp_path_factory.mktemp("bucket"))
    run = RunLayout(prepared.root, "run")
    for workers, stop_after in ((2, 5), (1, 8), (3, 12)):
        attempt = attempts.claim(run)
        train(prepared, "run", workers=workers, attempt=attempt, debug__stop_after=stop_after, **SETTINGS)
        if stop_after < 12:  # what was committed last was lost
            storage.remove(run.checkpoint(stop_after))
    config = make_job(prepared, "run", **SETTINGS).config
    storage.write_text(run.config, dump_config(config))
    return prepared


@pytest.fixture
def verify_changed(prepared: Prepared, tmp_path: Path) -> Callable[[Callable[[RunLayout], None]], Verdict]:
    """Verify a copy of the bucket in which something was changed."""

    def verify(change: Callable[[RunLayout], None]) -> Verdict:
        shutil.copytree(prepared.root, tmp_path / "copy")
        run = RunLayout(str(tmp_path / "copy"), "run")
        change(run)
        return verify_run(run)

    return verify


def change_line(run: RunLayout, step: int, change: Callable[[dict[str, object]], dict[str, object] | None]) -> None:
    """Change a step's line in every part of the ledger that has it; None takes it out."""
    for info in storage.list_objects(run.ledger):
        lines = [orjson.loads(line) for line in storage.read_bytes(info.url).splitlines()]
        changed = [change(line) if line["step"] == step else line for line in lines]
        storage.write_bytes(info.url, b"".join(orjson.dumps(line) + b"\n" for line in changed if line is not None))


def test_a_run_on_two_then_one_then_three_workers_is_proved(prepared: Prepared) -> None:
    """Three attempts, steps that were done again, and every byte of every checkpoint."""
    found = verify_run(RunLayout(prepared.root, "run"))
    assert found.problems == ()
    assert (found.steps, found.samples, found.attempts) == (12, 144, 3)
    assert found.world_sizes == ((2, 4), (1, 2), (3, 6))
    assert found.done_again == 1 + 2
    assert found.checkpoints == (8, 10, 12)


def test_a_changed_sample_is_named_with_its_step(
    verify_changed: Callable[[Callable[[RunLayout], None]], Verdict],
) -> None:
    """One sample id of step 7 is another: neither the hash nor the order fits."""

    def change(run: RunLayout) -> None:
        change_line(run, 7, lambda line: {**line, "samples": [99999, *line["samples"][1:]]})  # type: ignore[misc]

    found = verify_changed(change)
    assert any("step 7: its samples do not fit its hash" in problem for problem in found.problems)
    assert any("step 7: has not the samples of its place" in problem for problem in found.problems)


def test_a_lost_step_is_named(verify_changed: Callable[[Callable[[RunLayout], None]], Verdict]) -> None:
    """A step without a line was lost, whatever else is there."""
    found = verify_changed(lambda run: change_line(run, 3, lambda line: None))
    assert "step 3: the ledger has no line of it" in found.problems


def test_a_changed_byte_of_a_checkpoint_is_named(
    verify_changed: Callable[[Callable[[RunLayout], None]], Verdict],
) -> None:
    """One bit of one rank's file of step 10."""

    def change(run: RunLayout) -> None:
        file = max(storage.local_path(run.checkpoint(10)).glob("*.safetensors"))
        content = bytearray(file.read_bytes())
        content[-5] ^= 4
        file.write_bytes(content)

    found = verify_changed(change)
    assert len(found.problems) == 1
    assert "checkpoint of step 10: chunk 0 of" in found.problems[0]
    assert found.checkpoints == (8, 12)


def test_a_dataset_that_is_gone_is_no_proof(
    verify_changed: Callable[[Callable[[RunLayout], None]], Verdict], prepared: Prepared
) -> None:
    """Without the order of the data, nobody can say that no sample was lost."""

    def change(run: RunLayout) -> None:
        storage.remove(storage.join(run.root, "data"))
        newest = checkpoint.latest(run)
        assert newest is not None and newest.dataset_url.startswith(prepared.root)
        manifest = storage.join(run.checkpoint(12), checkpoint.MANIFEST)
        moved = checkpoint.load_manifest(run.checkpoint(12))
        storage.remove(manifest)
        from dataclasses import replace

        checkpoint.commit(run.checkpoint(12), replace(moved, dataset_url=f"{run.root}/data/gone"))

    found = verify_changed(change)
    assert len(found.problems) == 1
    assert "the order of the samples cannot be checked" in found.problems[0]
