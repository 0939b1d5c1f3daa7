"""sweep.clone: a clone is an ordinary run with the donor's bytes, and its ledger is an exact account."""

import pytest

from commands import run, write_tiny
from scaletrain import checkpoint, storage
from scaletrain.config_file import load_config
from scaletrain.cost import Prices, read_history
from scaletrain.layout import RunLayout
from scaletrain.metrics import read_records
from scaletrain.sweep.checking import trial_config
from scaletrain.sweep.clone import clone_run
from scaletrain.verify import verify_run


@pytest.fixture(scope="module")
def donor(tmp_path_factory: pytest.TempPathFactory) -> RunLayout:
    """A run of 8 steps that was stopped at step 4 for a while, with commits at 4 and 8 and a line beyond them none."""
    folder = tmp_path_factory.mktemp("clone")
    config = write_tiny(folder, root=str(folder))
    for stop in (4, 8):
        run("train", config, "--local", "train.steps=12", f"debug.stop_after={stop}", "budget.usd_per_machine_hour=1")
    return RunLayout(str(folder), "tiny")


def test_a_clone_goes_on_from_the_donors_bytes_with_other_values(donor: RunLayout) -> None:
    """Every file is the donor's; the ledger has its eight steps and then the clone's own; both runs verify."""
    config = load_config(donor.config)
    target = RunLayout(donor.root, "tiny.clone-1")
    other = trial_config(config, target.name, {"train.learning_rate": 1e-4, "debug.stop_after": 12})
    made = clone_run(donor, target, other)
    assert made is not None and made.step == 8
    for name in ("manifest.json", *(file.name for file in checkpoint.load_manifest(donor.checkpoint(8)).files)):
        one, two = (storage.read_bytes(storage.join(layout.checkpoint(8), name)) for layout in (donor, target))
        assert one == two, name
    assert clone_run(donor, target, other) == made  # it is there already
    assert verify_run(target).problems == ()

    run("train", target.config, "--local")
    verdict = verify_run(target)
    assert (verdict.problems, verdict.steps, verdict.attempts, verdict.done_again) == ((), 12, 3, 0)
    assert read_records(target.ledger)[:8] == read_records(donor.ledger)
    rates = [record["learning_rate"] for record in read_records(target.metrics)]
    assert max(map(float, map(str, rates[8:]))) < 1e-4 < float(str(rates[7]))
    assert verify_run(donor).problems == () and verify_run(donor).steps == 8


def test_a_clone_knows_what_its_donor_cost_until_then(donor: RunLayout) -> None:
    """That is told with it, and the donor's time keeps its own price where the clone's machines are dearer."""
    target = RunLayout(donor.root, "tiny.clone-3")
    made = clone_run(donor, target, trial_config(load_config(donor.config), target.name, {}), step=4)
    assert made is not None and made.step == 4
    assert made.cost_usd and made.cost_usd == read_records(donor.metrics)[3]["cost_usd"]
    assert read_history(target, 2, Prices(flat=100.0)).rates == {1: 1.0}


def test_an_interrupted_clone_is_no_run_and_is_made_anew(donor: RunLayout) -> None:
    """What it left behind is swept away, and a run without a commit has nothing to clone."""
    config = trial_config(load_config(donor.config), "tiny.clone-2", {})
    target = RunLayout(donor.root, "tiny.clone-2")
    storage.write_bytes(storage.join(target.checkpoint(4), "half"), b"half")
    assert clone_run(RunLayout(donor.root, "nothing"), target, config) is None
    made = clone_run(donor, target, config)
    assert made is not None and not storage.exists(target.checkpoint(4))
    assert verify_run(target).problems == ()
