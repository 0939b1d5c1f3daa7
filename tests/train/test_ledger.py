"""ledger: nothing can be lost, repeated or changed without the chain of hashes showing it."""

import numpy as np
import pytest

from scaletrain.errors import CheckpointError
from scaletrain.train import ledger


def chain(steps: int) -> list[dict[str, object]]:
    records, previous = [], ledger.GENESIS
    for step in range(1, steps + 1):
        line = ledger.next_line(previous, step, np.arange(4 * step, 4 * step + 4))
        records.append(line.record())
        previous = line.hash
    return records


def test_a_whole_chain_checks() -> None:
    """The last hash stands for every sample before it."""
    records = chain(5)
    assert ledger.check_chain(records) == records[-1]["hash"]


@pytest.mark.parametrize("step", [1, 3, 5])
def test_one_changed_sample_is_found_and_named(step: int) -> None:
    """The step that was changed is named, not only that something is wrong."""
    records = chain(5)
    records[step - 1]["samples"][2] += 1  # type: ignore[index]
    with pytest.raises(CheckpointError, match=f"step {step} "):
        ledger.check_chain(records)


def test_a_missing_step_is_found_and_named() -> None:
    """A gap is not bridged."""
    records = chain(5)
    del records[2]
    with pytest.raises(CheckpointError, match="lacks step 3"):
        ledger.check_chain(records)


def test_the_batch_digest_adds_up_over_any_deal() -> None:
    """Micro batches on any ranks add up to the digest of the batch, as an exact float64."""
    samples = np.random.default_rng(0).permutation(64)
    whole = ledger.batch_digest(samples, 640)
    parts = sum(ledger.batch_digest(samples[i : i + 8], 640 + i) for i in range(0, 64, 8))
    assert parts == whole
    assert int(float(whole)) == whole


@pytest.mark.parametrize("fault", ["swapped", "repeated", "lost"])
def test_the_batch_digest_shows_a_sample_out_of_place(fault: str) -> None:
    """Another order, a repeated sample or a lost one gives another number."""
    samples = np.arange(64)
    wrong = samples.copy()
    if fault == "swapped":
        wrong[[3, 40]] = wrong[[40, 3]]
    elif fault == "repeated":
        wrong[3] = wrong[4]
    else:
        wrong = wrong[:-1]
    assert ledger.batch_digest(wrong, 0) != ledger.batch_digest(samples, 0)
