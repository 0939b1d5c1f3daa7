"""The fast path on a GPU gives the losses and gradients of the plain one."""

from typing import Any

import pytest
import torch

from scaletrain.config_recomputing import Recomputing
from scaletrain.model.attention import VARLEN, register_varlen
from scaletrain.model.kernels import use_kernels
from scaletrain.model.loss import LossModel, linear_cross_entropy
from scaletrain.model.recomputing import recompute
from tiny import VOCAB_SIZE, tiny_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU"),
]

LENGTHS = (70, 1, 333, 2, 106)


@pytest.fixture(autouse=True)
def fresh_compiler() -> None:
    """A process trains one model: what others had compiled is nothing that its layers could meet."""
    torch._dynamo.reset()


def packed() -> dict[str, torch.Tensor]:
    """Two rows of four documents and padding on the GPU; labels and documents on the CPU, as in training."""
    ids = torch.randint(VOCAB_SIZE, (2, sum(LENGTHS)), generator=torch.Generator().manual_seed(1))
    positions = torch.cat([torch.arange(length) for length in LENGTHS]).expand(2, -1)
    documents = torch.cat([torch.full((n,), d) for n, d in zip(LENGTHS, (1, 2, 3, 4, 0), strict=True)]).expand(2, -1)
    labels = torch.where((positions > 0) & (documents > 0), ids, -100)
    return {"input_ids": ids.cuda(), "labels": labels, "positions": positions.cuda(), "documents": documents}


def loss_and_gradients(
    *,
    attention: str,
    kernels: Any = "plain",
    dtype: torch.dtype = torch.bfloat16,
    recomputing: Recomputing = False,
) -> tuple[float, dict[str, torch.Tensor]]:
    shape = {"hidden_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2}
    model = tiny_model(attn_implementation=attention, **shape).to("cuda", dtype).train()
    recompute(model, recomputing)
    use_kernels(model, kernels)
    inputs = packed()
    loss = LossModel(model)(**inputs)
    loss.backward()
    return loss.item(), {name: p.grad.float() for name, p in model.named_parameters()}


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("attention", ["sdpa", "flex_attention", VARLEN])
@pytest.mark.parametrize("kernels", ["plain", "liger", "compile"])
def test_bf16_kernels_are_as_close_to_fp32_as_plain_bf16(attention: str, kernels: str) -> None:
    """Loss and every gradient: no further from the fp32 reference than twice what plain bf16 with a dense mask is."""
    register_varlen()
    expected_loss, expected = loss_and_gradients(attention="sdpa", dtype=torch.float32)
    plain_loss, plain = loss_and_gradients(attention="sdpa")
    found_loss, found = loss_and_gradients(attention=attention, kernels=kernels)
    assert found_loss == pytest.approx(expected_loss, rel=max(2 * abs(plain_loss / expected_loss - 1), 2e-3))
    for name, gradient in expected.items():
        bound = max(2 * relative_error(plain[name], gradient), 1e-2)
        assert relative_error(found[name], gradient) < bound, name


@pytest.mark.parametrize(
    ("kernels", "recomputing"),
    [("liger", True), ("liger", 0.5), ("compile", True), ("compile", 0.5), ("compile", "selective")],
)
def test_recomputing_layers_gives_the_same_gradients(kernels: str, recomputing: Recomputing) -> None:
    """Gradient checkpointing goes with each kind of kernels."""
    register_varlen()
    _, kept = loss_and_gradients(attention=VARLEN, kernels=kernels)
    _, recomputed = loss_and_gradients(attention=VARLEN, kernels=kernels, recomputing=recomputing)
    for name, gradient in kept.items():
        assert relative_error(recomputed[name], gradient) < 1e-2, name


def test_compiled_selective_layers_keep_less() -> None:
    """Bytes that are there between forward and backward: fewer than without, more than with whole layers recomputed."""
    register_varlen()
    kept: dict[Recomputing, int] = {}
    for recomputing in (False, "selective", True):
        model = tiny_model(attn_implementation=VARLEN, hidden_size=128).to("cuda", torch.bfloat16).train()
        recompute(model, recomputing)
        use_kernels(model, "compile")
        for _ in range(2):  # the first pass compiles
            before = torch.cuda.memory_allocated()
            loss = LossModel(model)(**packed())
            kept[recomputing] = torch.cuda.memory_allocated() - before
            loss.backward()
            model.zero_grad()
    assert kept[True] < kept["selective"] < kept[False]


def test_a_sliding_window_is_kept_by_every_attention() -> None:
    """Windows shorter than documents: the same losses."""
    from transformers import MistralConfig, MistralForCausalLM

    register_varlen()
    losses = []
    for attention in ("sdpa", "flex_attention", VARLEN):
        torch.manual_seed(0)
        config = MistralConfig(
            vocab_size=VOCAB_SIZE,
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=32,
            sliding_window=40,
            initializer_range=0.2,
            attn_implementation=attention,
        )
        model = MistralForCausalLM(config).to("cuda", torch.bfloat16)
        losses.append(LossModel(model)(**packed()).item())
    assert losses[1] == pytest.approx(losses[0], rel=2e-3)
    assert losses[2] == pytest.approx(losses[0], rel=2e-3)


def test_the_linear_loss_in_chunks_equals_torchs_own_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    """bf16 inputs, chunks of 100 rows: loss and gradients near those of fp32 on the same numbers."""
    monkeypatch.setattr("scaletrain.model.loss._CUDA_CHUNK_ELEMENTS", 100 * 5000)
    generator = torch.Generator("cuda").manual_seed(0)
    hidden = torch.randn(1030, 64, device="cuda", generator=generator).bfloat16().requires_grad_()
    weight = (torch.randn(5000, 64, device="cuda", generator=generator) / 8).bfloat16().requires_grad_()
    targets = torch.randint(5000, (1030,), device="cuda", generator=generator)
    found = linear_cross_entropy(hidden, weight, None, targets)
    found.backward()
    inputs = [each.detach().float().requires_grad_() for each in (hidden, weight)]
    expected = torch.nn.functional.cross_entropy(inputs[0] @ inputs[1].T, targets, reduction="sum")
    expected.backward()
    assert found.item() == pytest.approx(expected.item(), rel=1e-3)
    for mine, theirs in zip((hidden, weight), inputs, strict=True):
        assert mine.grad is not None and theirs.grad is not None
        assert relative_error(mine.grad.float(), theirs.grad) < 1e-2
