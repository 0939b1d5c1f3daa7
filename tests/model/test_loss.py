"""The training loss against torch's own cross-entropy on all logits."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from scaletrain.config_model import LoraSection
from scaletrain.model import loss
from scaletrain.model.build import add_adapters
from scaletrain.model.loss import LossModel, supervised_losses
from tiny import VOCAB_SIZE, tiny_model

ROWS, LENGTH = 8, 24


def batch(*, rows: int = ROWS, seed: int = 0) -> dict[str, torch.Tensor]:
    """Rows of two documents and some padding, about half of the tokens supervised."""
    generator = torch.Generator().manual_seed(seed)
    input_ids = torch.randint(VOCAB_SIZE, (rows, LENGTH), generator=generator, dtype=torch.int32)
    supervised = torch.rand((rows, LENGTH), generator=generator) < 0.5
    lengths = (10, 9, 5)
    documents = torch.cat([torch.full((n,), d, dtype=torch.int32) for n, d in zip(lengths, (1, 2, 0), strict=True)])
    positions = torch.cat([torch.arange(n, dtype=torch.int32) for n in lengths])
    labels = torch.where(supervised & (documents > 0) & (positions > 0), input_ids, loss.IGNORED)
    return {
        "input_ids": input_ids,
        "labels": labels,
        "positions": positions.expand(rows, -1),
        "documents": documents.expand(rows, -1),
    }


def reference_loss(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Each document on its own through plain transformers, summed."""
    total = torch.zeros(())
    for row in range(len(inputs["input_ids"])):
        for document in (1, 2):
            where = inputs["documents"][row] == document
            ids, labels = inputs["input_ids"][row, where].long(), inputs["labels"][row, where].long()
            logits = model(input_ids=ids[None]).logits[0]
            total = total + torch.nn.functional.cross_entropy(logits[:-1], labels[1:], reduction="sum")
    return total


def gradients(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_close(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor], tolerance: float) -> None:
    assert left.keys() == right.keys()
    for name, value in left.items():
        torch.testing.assert_close(value, right[name], atol=tolerance, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("tied", [True, False])
def test_loss_and_gradients_equal_cross_entropy_of_each_document_alone(tied: bool) -> None:
    """Packing, selecting supervised tokens and chunking change neither the loss nor any gradient."""
    model, inputs = tiny_model(tie_word_embeddings=tied), batch()

    expected = reference_loss(model, inputs)
    expected.backward()
    expected_gradients = gradients(model)
    model.zero_grad()
    found = LossModel(model)(**inputs)
    found.backward()

    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-6)
    assert_close(gradients(model), expected_gradients, 1e-4)


def test_loss_does_not_depend_on_the_chunk_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """One chunk of all tokens and chunks of three rows give the same sum."""
    model, inputs = tiny_model(), batch()
    whole = LossModel(model)(**inputs)
    monkeypatch.setattr(loss, "_CHUNK_ELEMENTS", 3 * VOCAB_SIZE)
    torch.testing.assert_close(LossModel(model)(**inputs), whole)


def test_one_batch_of_eight_and_two_of_four_give_the_same_gradients() -> None:
    """The loss is a sum over tokens, so how rows are dealt to micro batches does not matter."""
    model, inputs = tiny_model(), batch()
    LossModel(model)(**inputs).backward()
    together = gradients(model)
    model.zero_grad()
    for half in (slice(0, 4), slice(4, 8)):
        LossModel(model)(**{name: value[half] for name, value in inputs.items()}).backward()
    assert_close(gradients(model), together, 1e-4)


def test_a_batch_without_supervised_tokens_gives_every_parameter_a_zero_gradient() -> None:
    """A filler micro batch takes part in every collective and changes nothing."""
    model, inputs = tiny_model(), batch()
    inputs["labels"] = torch.full_like(inputs["labels"], loss.IGNORED)
    found = LossModel(model)(**inputs)
    found.backward()
    assert found.item() == 0.0
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


def test_an_adapted_model_trains_its_adapters_only() -> None:
    """LoRA: the wrapped model's loss is the base's at first, and only adapters get gradients."""
    model, inputs = tiny_model(), batch()
    before = LossModel(model)(**inputs).item()
    adapted = add_adapters(model, LoraSection(rank=4), seed=0)
    found = LossModel(adapted)(**inputs)
    found.backward()
    assert found.item() == pytest.approx(before)
    assert all("lora_" in name for name in gradients(adapted))


def test_soft_capped_logits_are_trained_as_they_are() -> None:
    """An architecture that does more after its output layer (a soft cap, here) gets its own loss."""
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    torch.manual_seed(0)
    config = Gemma3TextConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        final_logit_softcapping=2.0,
        initializer_range=0.2,
    )
    model, inputs = Gemma3ForCausalLM(config).eval(), batch(rows=2)
    expected = reference_loss(model, inputs)
    expected.backward()
    expected_gradients = gradients(model)
    model.zero_grad()
    found = LossModel(model)(**inputs)
    found.backward()
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-5)
    assert_close(gradients(model), expected_gradients, 1e-3)


def test_bf16_logits_lose_no_precision_in_the_sum() -> None:
    """Softmax and sum are made in fp32 also where the model computes in bf16."""
    logits = torch.randn(64, VOCAB_SIZE, generator=torch.Generator().manual_seed(0)).bfloat16()
    targets = torch.arange(64)
    expected = torch.nn.functional.cross_entropy(logits.double(), targets, reduction="none")
    torch.testing.assert_close(supervised_losses(logits, targets).double(), expected, atol=1e-5, rtol=1e-5)


class Products(TorchDispatchMode):
    """Records the shapes of all matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.mm.default:
            self.shapes.add(tuple(out.shape))
        return out


def test_no_gradient_is_computed_where_nobody_asks_for_one() -> None:
    """Validation has the same loss, without the output layer's gradient in fp32."""
    model, inputs = tiny_model(), batch()
    trained = LossModel(model)
    with Products() as products:
        expected = trained(**inputs)
    of_weight = tuple(model.lm_head.weight.shape)
    assert of_weight in products.shapes
    with torch.no_grad(), Products() as products:
        assert torch.equal(trained(**inputs), expected)
    assert of_weight not in products.shapes
