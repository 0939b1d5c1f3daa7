"""recomputing: less is kept for the backward pass, and not a bit of any loss or gradient changes."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from live_bytes import LiveBytes
from scaletrain.config_model import LoraSection
from scaletrain.config_recomputing import Recomputing
from scaletrain.errors import ModelError
from scaletrain.model.build import add_adapters
from scaletrain.model.loss import LossModel
from scaletrain.model.recomputing import LADDER, ladder, layers_recomputed, recompute
from tiny import VOCAB_SIZE, packed_rows, tiny_model

LAYERS = 4


def llama(**changes: Any) -> Any:
    return tiny_model(num_hidden_layers=LAYERS, attn_implementation="sdpa", **changes)


def gpt_neox() -> Any:
    """Biases, and attention beside the layer's wide part instead of before it."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": LAYERS, "num_attention_heads": 2}
    return GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=VOCAB_SIZE, **sizes, attn_implementation="sdpa"))


def loss_and_gradients(model: Any) -> list[torch.Tensor]:
    """Of one micro batch, dropout drawn from the same seed."""
    torch.manual_seed(3)
    loss = LossModel(model.train())(**packed_rows())
    loss.backward()
    return [loss.detach(), *(each.grad for each in model.parameters() if each.grad is not None)]


@pytest.mark.parametrize("wanted", LADDER[1:])
@pytest.mark.parametrize("family", [llama, gpt_neox])
def test_losses_and_gradients_stay_to_the_bit(family: Any, wanted: Recomputing) -> None:
    """What is computed again is computed by the same kernels, whichever part it is."""
    expected = loss_and_gradients(family())
    model = family()
    recompute(model, wanted)
    found = loss_and_gradients(model)
    assert len(found) == len(expected)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(found, expected, strict=True))


@pytest.mark.parametrize("wanted", ["selective", 0.5, True])
def test_adapters_with_dropout_stay_to_the_bit(wanted: Recomputing) -> None:
    """The dropout of the forward pass is drawn again as it was, and frozen layers pass their gradients on."""
    found = []
    for each in (False, wanted):
        model = llama()
        recompute(model, each)
        found.append(loss_and_gradients(add_adapters(model, LoraSection(rank=4, dropout=0.3), seed=0)))
    assert len(found[0]) == 1 + LAYERS * 7 * 2
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(*found, strict=True))


def test_each_step_of_the_ladder_keeps_less() -> None:
    """Bytes held between forward and backward: of layers as many wholes as are left, of selective ones what is dear."""
    kept = {}
    for wanted in LADDER:
        model = llama()
        recompute(model.train(), wanted)
        inputs = packed_rows()
        with LiveBytes([*model.parameters(), *model.buffers(), *inputs.values()]) as live:
            out = model.model(inputs["input_ids"], use_cache=False).last_hidden_state
            kept[wanted] = live.now
        del out
    a_layer = (kept[False] - kept[True]) / LAYERS
    for share in (0.25, 0.5, 0.75):
        assert kept[share] == pytest.approx(kept[False] - share * LAYERS * a_layer, rel=0.02)
    assert kept[True] < 0.35 * kept[False]
    assert kept[True] < kept["selective"] < 0.75 * kept[False]


class Computed(TorchDispatchMode):
    """As a context: how often each operator is computed meanwhile; what comes out of a cache does not count."""

    def __init__(self) -> None:
        super().__init__()
        self.times: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.times[str(function)] += 1
        return function(*args, **(kwargs or {}))


def test_selective_layers_compute_products_and_attention_once() -> None:
    """They compute no matrix product and no attention again, but activations; a whole layer computes all again."""
    attention = "aten._scaled_dot_product_flash_attention_for_cpu.default"
    found = {}
    for wanted in (False, "selective", True):
        model = llama()
        recompute(model.train(), wanted)
        with Computed() as computed:
            LossModel(model)(**packed_rows()).backward()
        found[wanted] = {name: computed.times[name] for name in ("aten.mm.default", attention, "aten.silu.default")}
    dear = found[False] | {"aten.silu.default": 2 * LAYERS}
    assert found["selective"] == dear
    assert found[True][attention] == 2 * LAYERS
    assert found[True]["aten.mm.default"] > found[False]["aten.mm.default"]


def test_a_share_is_spread_and_rounded_up() -> None:
    """At least the share of the layers recomputes; the last layer is kept, whose backward pass comes first."""
    assert [layers_recomputed(share, 10) for share in (False, 0.01, 0.3, 0.31, 0.5, True)] == [0, 1, 3, 4, 5, 10]
    assert layers_recomputed("selective", 10) == 0
    model = tiny_model(num_hidden_layers=5)
    recompute(model, 0.4)
    assert [layer.gradient_checkpointing for layer in model.model.layers] == [True, False, True, False, False]


def test_a_share_of_a_model_without_layers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is recomputed in silence where the layers cannot be told apart."""
    monkeypatch.setattr("transformers.modeling_layers.GradientCheckpointingLayer", torch.nn.Bilinear)
    with pytest.raises(
        ModelError, match=r"gradient_checkpointing=0.5: a llama does not tell its layers apart; use true"
    ):
        recompute(tiny_model(), 0.5)


def test_auto_leaves_out_what_cannot_be_had() -> None:
    """Selective checkpointing goes with neither ZeRO-3 nor Liger's kernels, so auto does not choose it there."""
    assert ladder(kernels="auto", zero_stage=2) == LADDER
    for kernels, stage in (("auto", 3), ("liger", 2)):
        assert ladder(kernels=kernels, zero_stage=stage) == tuple(each for each in LADDER if each != "selective")


def test_compiled_layers_keep_what_selective_ones_do() -> None:
    """torch.compile splits a layer's forward and backward by the same policy: the same gradients, fewer bytes kept."""
    found, kept = [], []
    for wanted in (False, "selective", True):
        model = llama()
        recompute(model.train(), wanted)
        for layer in model.model.layers:
            layer.compile(backend="aot_eager_decomp_partition")  # all of torch.compile but for writing kernels
        inputs = packed_rows()
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor: _counted(tensor, kept), lambda tensor: tensor):
            kept.append(0)
            loss = LossModel(model)(**inputs)
        loss.backward()
        found.append([each.grad for each in model.parameters()])
    torch.testing.assert_close(found[1], found[0])
    torch.testing.assert_close(found[2], found[0])
    assert kept[2] < kept[1] < kept[0]


def _counted(tensor: torch.Tensor, kept: list[int]) -> torch.Tensor:
    kept[-1] += tensor.nbytes
    return tensor
