"""state: a checkpoint comes back at any number of workers and any ZeRO stage, with every moment and counter."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from scaletrain import checkpoint
from scaletrain.checkpoint import Checkpoint
from scaletrain.errors import CheckpointError
from scaletrain.layout import RunLayout
from workers import Prepared, train

SAVED_AT = 10
KINDS = ("exp_avg", "exp_avg_sq", "fp32")


@dataclass(frozen=True)
class Saved:
    """A run that was saved at step 10 and went on undisturbed to step 20."""

    name: str
    losses: list[float]


def losses(metrics: list[dict[str, Any]]) -> list[float]:
    return [line["loss"] for line in metrics]


def opened(prepared: Prepared, name: str, step: int) -> Checkpoint:
    return checkpoint.open_checkpoint(RunLayout(prepared.root, name).checkpoint(step))


def copy_commit(prepared: Prepared, source: str, target: str) -> None:
    """Give a new run the commit of step 10 of another one."""
    from scaletrain import storage

    old, new = RunLayout(prepared.root, source), RunLayout(prepared.root, target)
    for info in storage.list_objects(old.checkpoint(SAVED_AT)):
        storage.write_bytes(
            storage.join(new.checkpoint(SAVED_AT), info.url.rsplit("/", 1)[-1]), storage.read_bytes(info.url)
        )


@pytest.fixture(scope="module")
def saved(prepared: Prepared) -> Saved:
    """Two workers with ZeRO-2."""
    metrics = train(prepared, "saved", workers=2, zero__stage=2)
    return Saved("saved", losses(metrics))


@pytest.mark.parametrize(("workers", "stage"), [(2, 2), (1, 2), (3, 2), (2, 1), (2, 3), (2, 0), (3, 3), (1, 0)])
def test_the_next_steps_are_those_of_the_undisturbed_run(
    prepared: Prepared, saved: Saved, workers: int, stage: int
) -> None:
    """Saved by 2 workers with ZeRO-2, the next ten losses are the same at any other number and stage."""
    name = f"loaded-{workers}-{stage}"
    copy_commit(prepared, saved.name, name)
    metrics = train(prepared, name, workers=workers, zero__stage=stage)
    assert [line["step"] for line in metrics] == list(range(SAVED_AT + 1, 21))
    tolerance = 0.0 if (workers, stage) == (2, 2) else 1e-5
    assert losses(metrics) == pytest.approx(saved.losses[SAVED_AT:], abs=tolerance)


@pytest.mark.parametrize(("workers", "stage"), [(1, 0), (1, 3), (3, 1), (3, 3)])
def test_every_moment_and_counter_comes_back(prepared: Prepared, saved: Saved, workers: int, stage: int) -> None:
    """One step after loading, masters, both moments and all counters are what they are without the detour."""
    name = f"again-{workers}-{stage}"
    copy_commit(prepared, saved.name, name)
    train(prepared, name, workers=workers, zero__stage=stage, debug__stop_after=SAVED_AT + 1, checkpoint__every_steps=1)
    before, after = opened(prepared, saved.name, SAVED_AT), opened(prepared, name, SAVED_AT + 1)
    assert after.kinds == before.kinds == KINDS
    assert after.names() == before.names()
    assert after.manifest.scalars["optimizer_step"] == before.manifest.scalars["optimizer_step"] + 1
    assert after.manifest.parent_step == SAVED_AT
    straight = f"straight-{workers}-{stage}"
    train(prepared, straight, workers=2, zero__stage=2, debug__stop_after=SAVED_AT + 1)
    expected = opened(prepared, straight, SAVED_AT + 1)
    for kind in KINDS:
        for name_ in expected.names():
            np.testing.assert_allclose(after.read(kind, name_), expected.read(kind, name_), rtol=1e-4, atol=1e-7)


def test_bf16_goes_on_within_a_stated_tolerance_at_another_number_and_stage(prepared: Prepared) -> None:
    """Masters, moments and gradients are fp32: in bf16 another number of workers moves a loss by less than 2e-3."""
    metrics = train(prepared, "bf16-saved", workers=2, zero__stage=2, train__precision="bf16")
    for workers, stage in ((1, 3), (3, 1)):
        name = f"bf16-loaded-{workers}-{stage}"
        copy_commit(prepared, "bf16-saved", name)
        found = train(prepared, name, workers=workers, zero__stage=stage, train__precision="bf16")
        assert losses(found) == pytest.approx(losses(metrics)[SAVED_AT:], abs=2e-3)


def test_a_resumed_run_is_bit_for_bit_the_undisturbed_one(prepared: Prepared, saved: Saved) -> None:
    """Stopped after step 7, which is no checkpoint step, and gone on: the final weights are the same bits."""
    train(prepared, "resumed", workers=2, zero__stage=2, debug__stop_after=7)
    train(prepared, "resumed", workers=2, zero__stage=2, attempt=2)
    expected, found = opened(prepared, saved.name, 20), opened(prepared, "resumed", 20)
    for kind in KINDS:
        for name in expected.names():
            np.testing.assert_array_equal(found.read(kind, name), expected.read(kind, name))
    assert found.manifest.ledger_hash == expected.manifest.ledger_hash
    assert dict(found.manifest.scalars) == dict(expected.manifest.scalars)


def test_a_checkpoint_of_another_model_is_refused(prepared: Prepared, saved: Saved) -> None:
    """The mismatch is named; nothing is trained on it."""
    copy_commit(prepared, saved.name, "other-model")
    url = RunLayout(prepared.root, "other-model").checkpoint(SAVED_AT)
    manifest = checkpoint.load_manifest(url)
    shapes = {name: (shape[0] + 1, *shape[1:]) for name, shape in manifest.parameters.items()}
    from dataclasses import replace

    checkpoint.commit(url, replace(manifest, parameters=shapes))
    with pytest.raises(CheckpointError, match="is of another model"):
        train(prepared, "other-model", workers=1)


def test_lora_saves_its_adapters_only_and_comes_back(prepared: Prepared) -> None:
    """The frozen base is not written; the adapters go on at another number of workers and stage."""
    lora = {"model__init": "pretrained", "model__source": prepared.model_url, "model__size": "null"}
    lora |= {"model__lora": "{rank: 4}", "train__learning_rate": 0.01}
    metrics = train(prepared, "lora", workers=2, zero__stage=2, **lora)
    source = opened(prepared, "lora", SAVED_AT)
    assert all("lora" in name for name in source.names())
    for workers, stage in ((1, 1), (3, 3)):
        name = f"lora-{workers}-{stage}"
        copy_commit(prepared, "lora", name)
        found = train(prepared, name, workers=workers, zero__stage=stage, **lora)
        assert losses(found) == pytest.approx(losses(metrics)[SAVED_AT:], abs=1e-5)


def test_dropout_draws_after_a_resume_what_it_would_have_drawn(prepared: Prepared) -> None:
    """Dropout is a function of (seed, step, rank): resumed in the middle, the losses are the same bits."""
    lora = {"model__init": "pretrained", "model__source": prepared.model_url, "model__size": "null"}
    lora |= {"model__lora": "{rank: 4, dropout: 0.2}", "train__learning_rate": 0.01, "train__steps": 8}
    straight = train(prepared, "dropout-straight", workers=2, **lora)
    train(prepared, "dropout-resumed", workers=2, debug__stop_after=3, **lora)
    resumed = train(prepared, "dropout-resumed", workers=2, attempt=2, **lora)
    assert losses(resumed) == losses(straight)
