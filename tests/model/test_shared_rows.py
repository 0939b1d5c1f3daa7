"""sequence_parallel: two workers that share the tokens of packed rows have the loss and gradients of one."""

from typing import Any

import pytest
import torch
from test_attention import FAMILIES, packed
from transformers import AutoConfig

from scaletrain.errors import ConfigError, ModelError
from scaletrain.model.attention import VARLEN, register_varlen
from scaletrain.model.loss import LossModel
from scaletrain.model.sequence_parallel import attention_over, check_settings, form_group
from tiny import tiny_model
from workers import run_processes

LLAMA = "llama with grouped queries"
COMPILED = "llama with three key-value heads, compiled"
MODELS = {
    **FAMILIES,
    "llama with three key-value heads": lambda attention: tiny_model(num_attention_heads=6, num_key_value_heads=3),
    COMPILED: lambda attention: tiny_model(num_attention_heads=6, num_key_value_heads=3),
}


def test_two_workers_have_the_loss_and_gradients_of_one() -> None:
    """In every family, with masks and with document bounds; the third document lies across the cut.

    Compiled layers too: a compiler that looks into an exchange loses its gradients.
    """
    run_processes(2, _compare)


def _compare(worker: Any) -> None:
    import deepspeed

    deepspeed.init_distributed("gloo")
    register_varlen()
    group = form_group(2)
    assert group is not None and (group.size, group.rank) == (2, worker.rank)
    ids, positions, documents = packed()
    assert documents[0, 11] == documents[0, 12]
    labels = torch.where((positions > 0) & (documents > 0), ids, -100)
    inputs = {"input_ids": ids, "labels": labels, "positions": positions, "documents": documents}
    for family, make in MODELS.items():
        for kernel in ("sdpa", VARLEN) if family != COMPILED else ("sdpa",):
            alone, shared = make("sdpa"), make("sdpa")
            shared.set_attn_implementation(attention_over(group, kernel))
            for layer in shared.model.layers if family == COMPILED else ():
                layer.compile(backend="aot_eager")
            whole, part = LossModel(alone)(**inputs), LossModel(shared, group)(**inputs)
            whole.backward()
            part.backward()
            _assert_sums(part.detach(), whole.detach(), f"{family}, {kernel}: the loss")
            for (name, one), other in zip(alone.named_parameters(), shared.parameters(), strict=True):
                _assert_sums(other.grad, one.grad, f"{family}, {kernel}: {name}")
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):  # a CPU has no backward for it
        shared = MODELS[LLAMA]("sdpa")
        shared.set_attn_implementation(attention_over(group, "flex_attention"))
        part = LossModel(shared, group)(**inputs)
        _assert_sums(part, LossModel(MODELS[LLAMA]("sdpa"))(**inputs), "flex attention: the loss")


def _assert_sums(part: torch.Tensor, whole: torch.Tensor, what: str) -> None:
    """The parts of all workers add up to the whole."""
    total = part.clone()
    torch.distributed.all_reduce(total)
    torch.testing.assert_close(total, whole, rtol=1e-4, atol=1e-4, msg=lambda text: f"{what}: {text}")


def test_a_worker_alone_shares_with_nobody() -> None:
    """With --local, or on replay, a run that shared rows goes on in one process."""
    run_processes(1, _alone)


def _alone(worker: Any) -> None:
    assert form_group(2) is None


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        (
            {"model_type": "llama", "hidden_size": 48, "num_attention_heads": 6},
            ConfigError,
            "the 6 attention heads of tiny.*2, 3 or 6",
        ),
        ({"model_type": "gpt2", "n_embd": 48, "n_head": 6}, ConfigError, "=4 does not divide the 6 attention heads"),
        ({"model_type": "gpt_oss"}, ModelError, "attention sinks"),
        ({"model_type": "bloom", "hidden_size": 8, "n_head": 4}, ModelError, "type bloom do not take their attention"),
        (
            {"model_type": "llama", "rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}},
            ModelError,
            "dynamic rotary positions",
        ),
    ],
)
def test_a_model_whose_rows_cannot_be_shared_is_refused(
    settings: dict[str, Any], error: type[Exception], match: str
) -> None:
    """Before anything is started, with the numbers that would do."""
    with pytest.raises(error, match=match):
        check_settings(AutoConfig.for_model(**settings), 4, source="tiny")
