"""quantization: the codes of a base in 4 bits follow from its weights, and packed rows train on what they stand for."""

from pathlib import Path
from typing import Any

import pytest
import torch

from live_bytes import LiveBytes
from scaletrain import devices
from scaletrain.config_model import LoraSection, ModelSection
from scaletrain.errors import ConfigError, DeviceError
from scaletrain.model import store
from scaletrain.model.build import add_adapters, load_model
from scaletrain.model.kernels import use_kernels
from scaletrain.model.loss import LossModel
from scaletrain.model.quantization import cast, check_model, load_dequantized, quantized_layers
from tiny import LENGTHS, packed_rows, tiny_model, tiny_model_folder

LORA = LoraSection(rank=4, quantization="nf4")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A random Llama in fp32."""
    return published(tmp_path)


def published(tmp_path: Path, **changes: Any) -> Path:
    tiny_model_folder(tmp_path / "plain", **changes)
    store.publish(tmp_path / "plain", str(tmp_path / "model"), source="tiny")
    return tmp_path / "model"


def loaded(folder: Path, dtype: torch.dtype = torch.float32, **settings: Any) -> Any:
    """As a worker loads it, with adapters that do something."""
    section = ModelSection(source="x", lora=LORA, **settings)
    return stirred(load_model(str(folder), section, dtype=dtype, attention="sdpa"))


def stirred(model: Any) -> Any:
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def quantized_by_hand(dtype: torch.dtype = torch.float32) -> Any:
    """The same model with each matrix of its layers put through bitsandbytes there and back, and plain LoRA on top."""
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    model = tiny_model(attn_implementation="sdpa")
    for layer in model.model.layers.modules():
        if isinstance(layer, torch.nn.Linear):
            codes, state = quantize_4bit(layer.weight.data, compress_statistics=True, quant_type="nf4")
            layer.weight.data = dequantize_4bit(codes, state)
    cast(model, dtype)
    return stirred(add_adapters(model, LORA, seed=0)).train()


def document_losses(model: Any) -> torch.Tensor:
    """Each document of `packed_rows` on its own through plain transformers, summed."""
    ids, total = packed_rows()["input_ids"], torch.zeros(())
    for row in ids:
        for document in row.split(LENGTHS)[:-1]:
            logits = model(input_ids=document[None]).logits[0].float()
            total = total + torch.nn.functional.cross_entropy(logits[:-1], document[1:], reduction="sum")
    return total


def gradients(model: Any) -> dict[str, torch.Tensor]:
    return {name: each.grad.float() for name, each in model.named_parameters() if each.grad is not None}


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def test_packed_loss_and_gradients_are_those_of_whole_weights_document_by_document(folder: Path) -> None:
    """In fp32, to 1e-5 of each: bitsandbytes' layers with peft's LoRA against plain layers that were rounded."""
    model, reference = loaded(folder), quantized_by_hand()
    found, expected = LossModel(model)(**packed_rows()), document_losses(reference)
    found.backward()
    expected.backward()
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    mine, theirs = gradients(model), gradients(reference)
    assert mine.keys() == theirs.keys()
    assert all("lora_" in name for name in mine)
    for name, gradient in theirs.items():
        assert relative_error(mine[name], gradient) < 1e-5, name


def test_bf16_computes_with_the_weights_rounded_to_bf16(folder: Path) -> None:
    """Codes from the stored fp32 weights, made whole in bf16: the loss to 1e-3, gradients to 0.02 of plain layers."""
    model, reference = loaded(folder, torch.bfloat16), quantized_by_hand(torch.bfloat16)
    assert {each.dtype for each in model.parameters()} == {torch.uint8, torch.bfloat16}
    losses = [LossModel(each)(**packed_rows()) for each in (model, reference)]
    for loss in losses:
        loss.backward()
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-3)
    for name, gradient in gradients(reference).items():
        assert relative_error(gradients(model)[name], gradient) < 0.02, name


def test_codes_follow_from_the_stored_weights_alone(folder: Path) -> None:
    """Loaded again, or for another precision: the same bytes."""
    first, again, bf16 = (codes(loaded(folder, each)) for each in (torch.float32, torch.float32, torch.bfloat16))
    assert len(first) == 2 * 7 * 3
    assert all(torch.equal(*each) for each in zip(first, again, strict=True))
    assert all(torch.equal(*each) for each in zip(first, bf16, strict=True))


def codes(model: Any) -> list[torch.Tensor]:
    """Of every layer: its codes, those of its scales, and the scales of these."""
    found = []
    for layer in quantized_layers(model):
        state = layer.weight.quant_state
        found += [layer.weight.data, state.absmax, state.state2.absmax]
    return found


@pytest.mark.parametrize("tied", [True, False])
def test_embeddings_and_the_output_layer_stay_as_they_are(tied: bool, tmp_path: Path) -> None:
    """All linear layers of the decoder are quantised, and nothing else; ties hold."""
    model = loaded(published(tmp_path, tie_word_embeddings=tied)).get_base_model()
    whole = tiny_model(tie_word_embeddings=tied)
    assert len(quantized_layers(model)) == 2 * 7
    assert type(model.lm_head) is torch.nn.Linear
    assert torch.equal(model.lm_head.weight, whole.lm_head.weight)
    assert torch.equal(model.model.embed_tokens.weight, whole.model.embed_tokens.weight)
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied


@pytest.mark.parametrize("wanted", ["selective", 0.5, True])
def test_recomputing_changes_no_bit(folder: Path, wanted: Any) -> None:
    """Products are recomputed or kept by the same kernels; layers that are recomputed as a whole keep less."""
    found, kept = [], []
    for recomputing in (False, wanted):
        model, inputs = loaded(folder, gradient_checkpointing=recomputing), packed_rows()
        with LiveBytes([*model.parameters(), *model.buffers(), *inputs.values()]) as live:
            loss = LossModel(model)(**inputs)
            kept.append(live.now)
        loss.backward()
        found.append([loss, *gradients(model).values()])
    assert all(torch.equal(*each) for each in zip(*found, strict=True))
    assert kept[1] < kept[0] or wanted == "selective"  # which keeps the adapters' products beside the layer's


@pytest.mark.parametrize("wanted", [False, "selective"])
def test_compiled_layers_give_the_same_gradients(folder: Path, wanted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.compile takes a whole layer, bitsandbytes' product and adapters in it; all of it but writing kernels."""
    plain, compiled = loaded(folder), loaded(folder, gradient_checkpointing=wanted)
    LossModel(plain)(**packed_rows()).backward()
    torch._dynamo.reset()
    compile_module = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module,
        "compile",
        lambda module: compile_module(module, backend="aot_eager_decomp_partition", fullgraph=True),
    )
    use_kernels(compiled, "compile")
    LossModel(compiled)(**packed_rows()).backward()
    for name, gradient in gradients(plain).items():
        assert relative_error(gradients(compiled)[name], gradient) < 1e-5, name


def test_an_evaluation_in_between_changes_nothing(folder: Path) -> None:
    """A pass without gradients leaves the codes as they are, on every kind of CPU."""
    model = loaded(folder)
    before = LossModel(model)(**packed_rows()).item()
    with torch.no_grad():
        evaluated = LossModel(model.eval())(**packed_rows()).item()
    assert not any(
        getattr(each.weight.quant_state, "packing_format_for_cpu", False) for each in quantized_layers(model)
    )
    assert not any(each.support_avx512bf16_for_cpu for each in quantized_layers(model))
    assert LossModel(model.train())(**packed_rows()).item() == evaluated == before


def test_made_whole_it_is_a_plain_model(folder: Path) -> None:
    """What is exported: ordinary layers in fp32 with the rounded weights, and no mark of quantisation."""
    whole = load_dequantized(folder, computing=torch.float32)
    expected = quantized_by_hand().unload()
    assert quantized_layers(whole) == []
    assert "quantization_config" not in whole.config.to_dict()
    for name, parameter in expected.named_parameters():
        assert torch.equal(whole.get_parameter(name), parameter), name


def test_without_bitsandbytes_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is started; nothing is asked for where nothing is quantised."""
    monkeypatch.setattr(devices, "find_spec", lambda name: None)
    devices.check_quantization("none")
    with pytest.raises(DeviceError, match=r"quantization=nf4.*pip install bitsandbytes"):
        devices.check_quantization("nf4")


def test_a_model_of_other_layers_is_refused(tmp_path: Path) -> None:
    """Experts in one block, and GPT-2's transposed layers: nothing would be saved, or not be exported right."""
    from transformers import GPT2Config, MixtralConfig

    check_model(str(tiny_model_folder(tmp_path / "llama")))
    GPT2Config(n_layer=1, n_embd=8, n_head=2).save_pretrained(tmp_path / "gpt2")
    sizes = {"hidden_size": 16, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    MixtralConfig(num_local_experts=8, num_key_value_heads=2, vocab_size=64, **sizes).save_pretrained(tmp_path / "moe")
    for name in ("gpt2", "moe"):
        with pytest.raises(ConfigError, match=r"keeps its weights in other layers.*use none"):
            check_model(str(tmp_path / name))
