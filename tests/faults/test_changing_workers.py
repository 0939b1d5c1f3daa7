"""The number of workers changes through kills, and the losses do not; `verify` proves it, or says what is wrong."""

import shutil
from pathlib import Path

import orjson
import pytest
from changing_workers import STEPS, draw, train_through_kills
from invariants import assert_recovered

from scaletrain import storage
from scaletrain.layout import RunLayout
from scaletrain.verify import verify_run
from workers import Prepared

pytestmark = pytest.mark.long


def test_losses_through_two_one_two_and_three_workers(prepared: Prepared) -> None:
    """Every step's loss is that of the undisturbed run to 1e-5, and each step's samples are proved."""
    losses = train_through_kills(prepared)
    assert losses.largest_difference < 1e-5
    assert_recovered(prepared, "changing", None, step=STEPS)
    sizes = [size for size, _ in verify_run(RunLayout(prepared.root, "changing")).world_sizes]
    # Where two workers died before their first commit was done, the next ones did their steps again.
    assert sizes in ([2, 1, 2, 3], [1, 2, 3], [2, 1, 3])
    assert draw(losses).count("<circle") == STEPS + 3


@pytest.mark.parametrize(("step", "harm"), [(20, "sample"), (STEPS, "byte")])
def test_one_changed_sample_or_byte_of_that_run_is_named(
    prepared: Prepared, tmp_path: Path, step: int, harm: str
) -> None:
    """On a copy of the run that went through four kills, `verify` names the step."""
    shutil.copytree(prepared.root, tmp_path / "copy")
    run = RunLayout(str(tmp_path / "copy"), "changing")
    assert verify_run(run).problems == ()
    if harm == "byte":
        file = max(storage.local_path(run.checkpoint(step)).glob("*.safetensors"))
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    else:
        _change_a_sample(run, step)
    problems = verify_run(run).problems
    assert problems and all(f"step {step}" in problem for problem in problems)


def _change_a_sample(run: RunLayout, step: int) -> None:
    """Make the first sample of a step another one, in every part of the ledger that has the step."""
    for part in storage.list_objects(run.ledger):
        lines = [orjson.loads(line) for line in storage.read_bytes(part.url).splitlines()]
        for line in lines:
            if line["step"] == step:
                line["samples"][0] += 1
        storage.write_bytes(part.url, b"".join(orjson.dumps(line) + b"\n" for line in lines))
