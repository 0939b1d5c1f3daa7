"""What holds after every fault: whole checkpoints, an exact ledger, equal bits, and nothing left behind."""

import numpy as np
from attempts_on_processes import wait_for_persisters

from scaletrain import checkpoint, storage
from scaletrain.layout import RunLayout, step_of
from scaletrain.metrics import read_records
from scaletrain.train import ledger
from scaletrain.verify import verify_run
from workers import Prepared


def assert_recovered(prepared: Prepared, found: str, expected: RunLayout | None, *, step: int = 12) -> None:
    """A run came to its last step as if nothing had happened: with the bits of `expected`, where one is given."""
    run = RunLayout(prepared.root, found)
    wait_for_persisters(run)
    verdict = verify_run(run)
    assert verdict.problems == ()
    assert verdict.steps == step
    newest = checkpoint.load_manifest(run.checkpoint(step))
    assert ledger.check_chain(read_records(run.ledger)[:step]) == newest.ledger_hash
    if expected is not None:
        assert_equal_bits(run, expected, step=step)
    assert_nothing_left(run)


def assert_equal_bits(run: RunLayout, other: RunLayout, *, step: int) -> None:
    """Weights and moments of two runs are the same after a step, to the last bit."""
    one, two = checkpoint.open_checkpoint(run.checkpoint(step)), checkpoint.open_checkpoint(other.checkpoint(step))
    assert one.kinds == two.kinds and one.names() == two.names()
    for kind in two.kinds:
        for name in two.names():
            np.testing.assert_array_equal(one.read(kind, name), two.read(kind, name))


def assert_nothing_left(run: RunLayout) -> None:
    """No folder of a step that was never committed, no half-written file, no file that its manifest does not list."""
    for name in storage.list_folders(run.checkpoints):
        assert step_of(name) is not None
        folder = storage.join(run.checkpoints, name)
        listed = {file.name for file in checkpoint.verify(folder).files} | {checkpoint.MANIFEST}
        there = {info.url.rsplit("/", 1)[-1] for info in storage.list_objects(folder)}
        assert there == listed, f"{name}: {sorted(there ^ listed)}"
    if storage.is_local(run.url):
        assert list(storage.local_path(run.url).rglob("*.partial")) == []
