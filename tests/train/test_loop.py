"""loop: the same mathematics at every ZeRO stage and number of workers, on one fixed order of samples."""

from typing import Any

import pytest

from scaletrain.layout import RunLayout
from scaletrain.metrics import read_records
from scaletrain.train import ledger
from workers import Prepared, train


def losses(metrics: list[dict[str, Any]]) -> list[float]:
    return [line["loss"] for line in metrics]


@pytest.fixture(scope="session")
def reference(prepared: Prepared) -> list[dict[str, Any]]:
    """Twenty undisturbed steps of one worker without ZeRO."""
    return train(prepared, "reference", workers=1, zero__stage=0)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_losses_agree_at_every_stage_and_number_of_workers(
    prepared: Prepared, reference: list[dict[str, Any]], stage: int, workers: int
) -> None:
    """The stage and the number of workers change what is stored where, not what is computed."""
    metrics = train(prepared, f"stage-{stage}-{workers}", workers=workers, zero__stage=stage)
    assert losses(metrics) == pytest.approx(losses(reference), abs=1e-4)
    norms = [line["grad_norm"] for line in metrics]
    assert norms == pytest.approx([line["grad_norm"] for line in reference], rel=1e-3)
    assert losses(metrics)[-1] < losses(metrics)[0] - 0.5


def test_a_batch_that_does_not_divide_over_the_workers_is_the_same_batch(
    prepared: Prepared, reference: list[dict[str, Any]]
) -> None:
    """6 micro batches on 4 workers: two of them run one of no weight, and nothing changes but time."""
    metrics = train(prepared, "uneven", workers=4, train__steps=6)
    expected = train(prepared, "even", workers=1, train__steps=6)
    assert losses(metrics) == pytest.approx(losses(expected), abs=1e-5)
    same = ("supervised_tokens", "tokens", "samples_seen")
    assert [[line[key] for key in same] for line in metrics] == [[line[key] for key in same] for line in expected]


def test_the_micro_batch_does_not_change_the_mathematics(prepared: Prepared, reference: list[dict[str, Any]]) -> None:
    """The loss is per supervised token of the whole global batch, however it is cut."""
    metrics = train(prepared, "micro-6", workers=2, train__micro_batch_size=6)
    assert losses(metrics) == pytest.approx(losses(reference), abs=1e-4)


def test_bf16_follows_fp32_at_every_stage(prepared: Prepared, reference: list[dict[str, Any]]) -> None:
    """bf16 weights over fp32 masters (autocast for ZeRO 0) learn the same, to the precision of bf16."""
    for stage in (0, 1, 2, 3):
        metrics = train(prepared, f"bf16-{stage}", workers=2, zero__stage=stage, train__precision="bf16")
        assert losses(metrics) == pytest.approx(losses(reference), abs=0.05)


def test_cpu_offload_changes_nothing_but_the_place(prepared: Prepared, reference: list[dict[str, Any]]) -> None:
    """Optimizer and parameters offloaded to the CPU train the same."""
    for stage, extra in ((2, {}), (3, {"zero__offload_parameters": "cpu"})):
        metrics = train(
            prepared, f"offload-{stage}", workers=2, zero__stage=stage, zero__offload_optimizer="cpu", **extra
        )
        assert losses(metrics) == pytest.approx(losses(reference), abs=1e-4)


def test_the_ledger_names_each_step_once_and_checks(prepared: Prepared, reference: list[dict[str, Any]]) -> None:
    """Twelve samples a step, chained by hash, none twice within an epoch."""
    records = read_records(RunLayout(prepared.root, "reference").ledger)
    assert ledger.check_chain(records)
    first_steps = [sample for record in records[:3] for sample in record["samples"]]  # type: ignore[attr-defined]
    assert len(set(first_steps)) == 36


def test_validation_during_training_is_the_same_at_any_number_of_workers(prepared: Prepared) -> None:
    """The held-out rows are shared out over the workers; fillers count for nothing."""
    found = [
        train(
            prepared, f"validate-{n}", workers=n, train__steps=2, train__evaluate_every_steps=2, train__evaluate_rows=7
        )
        for n in (1, 3)
    ]
    assert "validation_loss" not in found[0][0]
    assert found[0][1]["validation_loss"] == pytest.approx(found[1][1]["validation_loss"], abs=1e-5)
