"""A base in 4 bits in training: what its adapters learn, what a checkpoint holds, and how exactly a run goes on."""

from typing import Any

import numpy as np
import pytest
import torch

from scaletrain import checkpoint, storage
from scaletrain.checkpoint import Checkpoint
from scaletrain.data.shards import load_index
from scaletrain.layout import RunLayout
from scaletrain.model import store
from scaletrain.model.export import find_checkpoint, load_trained
from scaletrain.model.loss import LossModel
from scaletrain.train.reference import reference_url
from scaletrain.train.step import counted_in, forward
from scaletrain.train.validation import validate
from scaletrain.train.worker import Worker
from workers import Prepared, make_job, train

KINDS = ("exp_avg", "exp_avg_sq", "fp32")
SAVED_AT = 5


def settings(prepared: Prepared, quantization: str = "nf4", **more: Any) -> dict[str, Any]:
    """Ten steps of LoRA over the shared model, saved at step 5 too."""
    return {
        "model__init": "pretrained",
        "model__source": prepared.model_url,
        "model__size": "null",
        "model__lora": f"{{rank: 4, quantization: {quantization}}}",
        "train__learning_rate": 0.01,
        "train__steps": 10,
        "checkpoint__every_steps": SAVED_AT,
        **more,
    }


def losses(metrics: list[dict[str, Any]]) -> list[float]:
    return [line["loss"] for line in metrics]


def opened(prepared: Prepared, name: str, step: int) -> Checkpoint:
    return checkpoint.open_checkpoint(RunLayout(prepared.root, name).checkpoint(step))


def gone_on(prepared: Prepared, name: str, source: str = "quantized", **more: Any) -> list[float]:
    """The losses of steps 6 to 10 of a run that begins with another's commit of step 5."""
    old, new = (RunLayout(prepared.root, each).checkpoint(SAVED_AT) for each in (source, name))
    for info in storage.list_objects(old):
        storage.write_bytes(storage.join(new, info.url.rsplit("/", 1)[-1]), storage.read_bytes(info.url))
    return losses(train(prepared, name, **settings(prepared, **more)))


@pytest.fixture(scope="module")
def prepared(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """The shared dataset, and the shared model with ten times the weights in its layers: rounding them shows."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("sharp")
    model = AutoModelForCausalLM.from_pretrained(prepared.model_url)
    with torch.no_grad():
        for layer in model.model.layers.modules():
            if isinstance(layer, torch.nn.Linear):
                layer.weight *= 10
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(prepared.model_url).save_pretrained(folder)
    url = f"{prepared.root}/models/sharp"
    store.publish(folder, url, source="test")
    return Prepared(prepared.root, prepared.dataset_url, url)


@pytest.fixture(scope="module")
def undisturbed(prepared: Prepared) -> list[float]:
    """Two workers with ZeRO-2."""
    return losses(train(prepared, "quantized", workers=2, zero__stage=2, **settings(prepared)))


def test_it_learns_as_adapters_of_whole_weights_do(prepared: Prepared, undisturbed: list[float]) -> None:
    """The loss falls, near that of plain LoRA and not on it: the base was rounded."""
    plain = losses(train(prepared, "whole", workers=1, zero__stage=2, **settings(prepared, "none")))
    assert undisturbed[-1] < undisturbed[0] - 0.05
    assert undisturbed != plain
    assert undisturbed == pytest.approx(plain, abs=0.02)


def test_checkpoints_hold_the_adapters_alone(prepared: Prepared, undisturbed: list[float]) -> None:
    """No weight of the base, quantised or not, is written; it is made again from the model in the bucket."""
    found = opened(prepared, "quantized", SAVED_AT)
    assert found.names()
    assert all("lora_" in name for name in found.names())


def test_a_resumed_run_is_bit_for_bit_the_undisturbed_one(prepared: Prepared, undisturbed: list[float]) -> None:
    """Gone on from step 5, and from step 7 with an evaluation on the way: the same weights and moments."""
    assert gone_on(prepared, "quantized-resumed", workers=2, zero__stage=2) == undisturbed[SAVED_AT:]
    evaluating = settings(prepared, train__evaluate_every_steps=3, zero__stage=2)
    train(prepared, "quantized-evaluated", workers=2, debug__stop_after=7, **evaluating)
    train(prepared, "quantized-evaluated", workers=2, attempt=2, **evaluating)
    theirs = opened(prepared, "quantized", 10)
    for name in ("quantized-resumed", "quantized-evaluated"):
        mine = opened(prepared, name, 10)
        assert mine.kinds == KINDS
        for kind in KINDS:
            for parameter in theirs.names():
                np.testing.assert_array_equal(mine.read(kind, parameter), theirs.read(kind, parameter))


@pytest.mark.parametrize(
    ("workers", "more"),
    [
        (1, {"zero__stage": 1}),
        (2, {"zero__stage": 0}),
        (3, {"zero__stage": 2, "zero__offload_optimizer": "cpu"}),
    ],
)
def test_it_goes_on_at_another_number_and_stage(
    prepared: Prepared, undisturbed: list[float], workers: int, more: dict[str, Any]
) -> None:
    """The same base is under the adapters there: losses to 1e-5."""
    name = f"quantized-{workers}-{more['zero__stage']}-{len(more)}"
    assert gone_on(prepared, name, workers=workers, **more) == pytest.approx(undisturbed[SAVED_AT:], abs=1e-5)


def test_bf16_goes_on_at_another_stage(prepared: Prepared) -> None:
    """ZeRO-0 keeps fp32 weights and computes in bf16: the same codes, and losses to 2e-3 of those of ZeRO-2."""
    bf16 = {"train__precision": "bf16"}
    expected = losses(train(prepared, "quantized-bf16", workers=2, zero__stage=2, **settings(prepared, **bf16)))
    for stage in (0, 1):
        found = gone_on(prepared, f"bf16-{stage}", "quantized-bf16", workers=1, zero__stage=stage, **bf16)
        assert found == pytest.approx(expected[SAVED_AT:], abs=2e-3)


def test_what_is_exported_and_evaluated_is_what_was_trained(prepared: Prepared) -> None:
    """The merged model's loss on held-out rows is that of the trained one, to 1e-5; over the plain base it is not."""
    more = settings(prepared, train__evaluate_every_steps=10)
    measured = train(prepared, "quantized-held-out", workers=2, zero__stage=2, **more)[-1]["validation_loss"]
    job = make_job(prepared, "quantized-held-out", workers=1, **more)
    assert held_out_loss(job, "nf4") == pytest.approx(measured, abs=1e-5)
    assert abs(held_out_loss(job, "none") - measured) > 1e-4


def held_out_loss(job: Any, quantization: str) -> float:
    """The validation loss of the newest checkpoint as it is exported, its adapters over this base."""
    lora = job.config.model.lora.model_copy(update={"quantization": quantization})
    section = job.config.model.model_copy(update={"lora": lora})
    config = job.config.model_copy(update={"model": section})
    model = LossModel(load_trained(job.run, find_checkpoint(job.run), config))
    worker = Worker(0, 1, 0, 1, torch.device("cpu"))
    return validate(
        lambda micro: forward(job, worker, model, micro),
        lambda micro: counted_in(job, micro),
        job.dataset_url,
        load_index(job.dataset_url),
        config.train,
        worker,
    ).loss


def test_preferences_are_compared_with_the_quantised_base(prepared: Prepared) -> None:
    """What a run compares with was computed by the model it begins with, not by the same one in whole weights."""
    index = load_index(prepared.dataset_url)
    jobs = [make_job(prepared, "dpo", workers=1, **settings(prepared, each)) for each in ("none", "nf4")]
    urls = [reference_url(job, index) for job in jobs]
    assert urls[0] != urls[1]
    assert urls[0] == reference_url(make_job(prepared, "dpo", workers=1), index)
