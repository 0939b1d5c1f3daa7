"""The log-probabilities of answers, packed and chunked, against plain transformers on each document alone."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_loss import VOCAB_SIZE, assert_close, batch, gradients

from scaletrain.config_model import LoraSection
from scaletrain.model import loss
from scaletrain.model.answer_log_probs import AnswerModel, answer_lengths, linear_losses
from scaletrain.model.build import add_adapters
from tiny import tiny_model

WEIGHTS = torch.linspace(-1, 2, 16)  # how much the answer of each document counts


def alone(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Each document's answer by itself through plain transformers, [M]."""
    found = []
    for row in range(len(inputs["input_ids"])):
        for document in (1, 2):
            where = inputs["documents"][row] == document
            ids, labels = inputs["input_ids"][row, where].long(), inputs["labels"][row, where].long()
            logits = model(input_ids=ids[None]).logits[0]
            found.append(-torch.nn.functional.cross_entropy(logits[:-1], labels[1:], reduction="sum"))
    return torch.stack(found)


@pytest.mark.parametrize("tied", [True, False])
def test_answers_and_gradients_equal_those_of_each_document_alone(tied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever each answer counts, packing and making logits in chunks of five rows change nothing."""
    monkeypatch.setattr(loss, "_CHUNK_ELEMENTS", 5 * VOCAB_SIZE)
    model, inputs = tiny_model(tie_word_embeddings=tied), batch()
    expected = alone(model, inputs)
    (expected * WEIGHTS).sum().backward()
    expected_gradients = gradients(model)
    model.zero_grad()
    found = AnswerModel(model)(**inputs)
    (found * WEIGHTS).sum().backward()
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-6)
    assert_close(gradients(model), expected_gradients, 1e-4)


def test_a_row_among_others_has_the_answers_it_has_alone() -> None:
    """What a micro batch is made of changes no answer beyond rounding, so a reference holds for any micro batch."""
    model, inputs = AnswerModel(tiny_model()), batch()
    together = model(**inputs)
    one_by_one = [model(**{name: value[row : row + 1] for name, value in inputs.items()}) for row in range(8)]
    torch.testing.assert_close(torch.cat(one_by_one), together, atol=1e-5, rtol=1e-6)


def test_a_head_with_a_bias_and_bf16_weights_gets_its_gradients() -> None:
    """In bf16 losses and the weights' gradients are added up in fp32; each comes back in its parameter's type."""
    generator = torch.Generator().manual_seed(0)
    make: Callable[..., torch.Tensor] = lambda *shape: torch.randn(shape, generator=generator).bfloat16()  # noqa: E731
    hidden, weight, bias = (each.requires_grad_() for each in (make(30, 16), make(50, 16), make(50)))
    targets = torch.arange(30)
    weights = torch.linspace(0, 1, 30)
    logits = torch.nn.functional.linear(hidden.double(), weight.double(), bias.double())
    expected = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    expected_gradients = torch.autograd.grad((expected * weights).sum(), (hidden, weight, bias))
    found = linear_losses(hidden, weight, bias, targets)
    found_gradients = torch.autograd.grad((found * weights).sum(), (hidden, weight, bias))
    assert (found.dtype, found_gradients[1].dtype) == (torch.float32, torch.bfloat16)
    torch.testing.assert_close(found.double(), expected, atol=0.05, rtol=0.01)
    for gradient, right in zip(found_gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, right, atol=0.05, rtol=0.05)


def test_adapters_begin_as_the_model_without_them() -> None:
    """LoRA: before the first step an adapted model gives every answer exactly what its base gives it."""
    model, inputs = tiny_model(), batch()
    before = AnswerModel(model)(**inputs)
    adapted = AnswerModel(add_adapters(model, LoraSection(rank=4, dropout=0.5), seed=0).eval())
    assert torch.equal(adapted(**inputs), before)


def test_answers_are_counted_row_by_row() -> None:
    """Rows may have different numbers of documents; padding belongs to none."""
    labels = torch.tensor([[-100, 5, 6, -100, 7, -100], [-100, 1, -100, -100, -100, -100]])
    documents = torch.tensor([[1, 1, 1, 2, 2, 0], [1, 1, 0, 0, 0, 0]])
    assert answer_lengths(labels, documents).tolist() == [2, 1, 1]
