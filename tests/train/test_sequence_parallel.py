"""scaling.sequence_parallel: workers that share rows train as one, at any ZeRO stage, through shrinking and growing."""

from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest

from scaletrain import checkpoint
from scaletrain.config_file import check_resume
from scaletrain.data.loader import rows_in_order
from scaletrain.data.prepare import prepare
from scaletrain.data.shards import load_index
from scaletrain.errors import ConfigError
from scaletrain.layout import RunLayout
from scaletrain.replay import _ranks
from scaletrain.train.growth import Growth
from scaletrain.train.waiting import WorkerGroup
from workers import Prepared, tiny_config, train

STEPS = 4
SETTINGS = {
    "model__size__num_kv_heads": 1,  # fewer than workers, so that they are repeated
    "train__steps": STEPS,
    "train__global_batch_size": 6,  # three micro batches: among two groups, one runs a filler
    "train__evaluate_every_steps": STEPS,
    "train__evaluate_rows": 6,
    "zero__stage": 2,
}
EXACT = ("step", "tokens", "supervised_tokens", "samples_seen")


@pytest.fixture(scope="module")
def grouped(prepared: Prepared) -> Prepared:
    """The rows of all training tests, and a model with grouped queries."""
    found = prepare(tiny_config(prepared.root, **SETTINGS), use_ray=False)
    assert found.dataset_url == prepared.dataset_url
    return replace(prepared, model_url=found.model_url)


@pytest.fixture(scope="module")
def alone(grouped: Prepared) -> list[dict[str, Any]]:
    """The same steps by one worker."""
    return train(grouped, "alone", workers=1, **SETTINGS)


def test_the_rows_are_such_as_tell(grouped: Prepared) -> None:
    """There are rows of several documents, and documents that lie across the middle, where two workers cut."""
    index = load_index(grouped.dataset_url)
    rows = next(
        rows_in_order(grouped.dataset_url, index, split="train", rank=0, world_size=1, micro_batch_size=24, max_rows=24)
    )
    middle = index.seq_len // 2
    across = rows.documents[:, middle] == rows.documents[:, middle - 1]
    assert (across & (rows.documents.max(axis=1) > 1)).any()


def test_two_groups_of_two_train_as_one_worker(grouped: Prepared, alone: list[dict[str, Any]]) -> None:
    """Losses, norms, validation, counts, samples and final weights are those of one worker."""
    found = train(grouped, "groups", workers=4, scaling__sequence_parallel=2, **SETTINGS)
    assert [(line["world_size"], line["sequence_parallel"]) for line in found] == [(4, 2)] * STEPS
    _assert_same(grouped, "groups", found, alone)


def test_two_workers_share_at_zero_3_and_one_goes_on(grouped: Prepared, alone: list[dict[str, Any]]) -> None:
    """A checkpoint knows nothing of who shared what; recomputed activations are exchanged again, by both alike."""
    settings = {**SETTINGS, "zero__stage": 3, "model__gradient_checkpointing": True}
    train(grouped, "shrunk", workers=2, scaling__sequence_parallel=2, debug__stop_after=2, **settings)
    found = train(grouped, "shrunk", workers=1, attempt=2, **SETTINGS)
    assert [line.get("sequence_parallel") for line in found] == [2, 2, None, None]
    _assert_same(grouped, "shrunk", found, alone)


def _assert_same(grouped: Prepared, name: str, found: list[dict[str, Any]], alone: list[dict[str, Any]]) -> None:
    for key in EXACT:
        assert [line[key] for line in found] == [line[key] for line in alone]
    assert [line["loss"] for line in found] == pytest.approx([line["loss"] for line in alone], abs=1e-5)
    assert [line["grad_norm"] for line in found] == pytest.approx([line["grad_norm"] for line in alone], rel=1e-4)
    assert found[-1]["validation_loss"] == pytest.approx(alone[-1]["validation_loss"], abs=1e-5)
    runs = [RunLayout(grouped.root, each) for each in (name, "alone")]
    ours, theirs = (checkpoint.open_checkpoint(run.checkpoint(STEPS)) for run in runs)
    assert ours.manifest.ledger_hash == theirs.manifest.ledger_hash
    for parameter in theirs.names():
        np.testing.assert_allclose(ours.read("fp32", parameter), theirs.read("fp32", parameter), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scaling__workers": 3}, "scaling.workers: got 3, which scaling.sequence_parallel=2 does not divide; use 4"),
        ({"scaling__workers": "{min: 1, max: 4}"}, "scaling.workers.min: got 1, .* use 2"),
        ({"data__seq_len": 65}, "scaling.sequence_parallel: got 2, which does not divide data.seq_len=65"),
        ({"model__size__num_heads": 1}, "which does not divide model.size.num_heads=1; use 1"),
        (
            {"train__objective": "dpo", "data__corpora": "[{format: preferences, source: x}]"},
            "got 2; in preference training .* use 1",
        ),
    ],
)
def test_what_cannot_be_shared_is_refused(changes: dict[str, object], message: str) -> None:
    """Each with the field, what was got and what to do."""
    with pytest.raises(ConfigError, match=message):
        tiny_config("bucket", **{"scaling__workers": 2, "scaling__sequence_parallel": 2, **changes})


def test_it_may_change_when_a_run_goes_on() -> None:
    """It is no part of the mathematics."""
    check_resume(tiny_config("bucket"), tiny_config("bucket", scaling__sequence_parallel=2))


def test_an_elastic_run_grows_and_shrinks_by_whole_groups() -> None:
    """One more worker is of no use to groups of two, and three may have to be given back as four would."""
    step = orjson.dumps({"step": 1, "step_s": 1.0})
    growing = Growth(WorkerGroup(2, {"CPU": 1}, most=3, together=2), last_step=1000)
    growing.show([step])  # asks nobody: Ray is not even there
    assert not growing.must_regroup()
    shrinking = Growth(WorkerGroup(4, {"CPU": 1}, most=4, together=2), last_step=1000, most_workers=lambda: 3)
    shrinking.show([step])
    assert shrinking.must_regroup()


def test_replay_names_the_first_worker_of_the_group_that_had_a_row() -> None:
    """Micro batches of two rows are dealt round the groups in order."""
    config = tiny_config("bucket", train__global_batch_size=6)
    assert _ranks(config, 4, 2) == [0, 0, 2, 2, 0, 0]
    assert _ranks(config, 4, 1) == [0, 0, 1, 1, 2, 2]
