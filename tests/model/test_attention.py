"""Packed documents do not see each other, in any kind of attention (law 8)."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from scaletrain.errors import ModelError
from scaletrain.model.attention import check_separable, model_inputs
from scaletrain.model.loss import LossModel
from tiny import VOCAB_SIZE, tiny_model

LENGTHS = (7, 1, 12, 4)  # the last four tokens are padding
SMALL: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "initializer_range": 0.2,
}


@pytest.fixture(autouse=True)
def uncompiled() -> Iterator[None]:
    """Flex attention as plain tensor operations: compiling it for a CPU takes a minute."""
    with torch.compiler.set_stance("force_eager"):
        yield


def packed() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two rows of three documents and padding: ids, positions, documents."""
    ids = torch.randint(VOCAB_SIZE, (2, sum(LENGTHS)), generator=torch.Generator().manual_seed(1))
    positions = torch.cat([torch.arange(length) for length in LENGTHS]).expand(2, -1)
    documents = torch.tensor([1] * 7 + [2] + [3] * 12 + [0] * 4).expand(2, -1)
    return ids, positions, documents


def mistral(**changes: Any) -> Any:
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    return MistralForCausalLM(MistralConfig(**SMALL, sliding_window=5, **changes)).eval()


def gemma3() -> Any:
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    torch.manual_seed(0)
    kinds = ["sliding_attention", "full_attention"]
    return Gemma3ForCausalLM(Gemma3TextConfig(**SMALL, sliding_window=5, layer_types=kinds)).eval()


def qwen2() -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    settings = {name: value for name, value in SMALL.items() if name != "head_dim"}
    return Qwen2ForCausalLM(Qwen2Config(**settings)).eval()


def gpt2() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=VOCAB_SIZE, n_embd=32, n_layer=2, n_head=2, n_positions=64)).eval()


MODELS = {
    "llama, sdpa": lambda: tiny_model(attn_implementation="sdpa"),
    "llama, flex": lambda: tiny_model(attn_implementation="flex_attention"),
    "mistral with a sliding window": mistral,
    "gemma3 with layers of two kinds": gemma3,
    "qwen2": qwen2,
    "gpt2": gpt2,
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())
def test_packed_logits_equal_each_documents_own(make: Any) -> None:
    """A document in a packed row is computed as if it were alone."""
    model, (ids, positions, documents) = make(), packed()
    with torch.no_grad():
        together = model(**model_inputs(model.config, ids, positions, documents)).logits
        for row in range(2):
            for document in (1, 2, 3):
                where = documents[row] == document
                alone = model(input_ids=ids[row, where][None]).logits[0]
                torch.testing.assert_close(together[row, where], alone, atol=1e-5, rtol=1e-5)
    assert together.isfinite().all()


@pytest.mark.parametrize("attention", ["sdpa", "flex_attention"])
def test_another_documents_tokens_change_nothing(attention: str) -> None:
    """Every logit of a document is the same whatever its neighbours say."""
    model, (ids, positions, documents) = tiny_model(attn_implementation=attention), packed()
    changed = torch.where(documents == 1, (ids + 1) % VOCAB_SIZE, ids)
    with torch.no_grad():
        before = model(**model_inputs(model.config, ids, positions, documents)).logits
        after = model(**model_inputs(model.config, changed, positions, documents)).logits
    others = documents != 1
    torch.testing.assert_close(after[others], before[others], atol=1e-6, rtol=0)
    assert not torch.allclose(after[~others], before[~others])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="flex attention has a backward on CUDA only")
def test_flex_and_sdpa_train_alike_on_a_gpu() -> None:
    """The compiled kernel with its block mask gives the loss and gradients of the dense mask."""
    ids, positions, documents = (each.cuda() for each in packed())
    labels = torch.where(positions > 0, ids, -100)
    found = []
    for attention in ("sdpa", "flex_attention"):
        model = tiny_model(attn_implementation=attention, hidden_size=64).cuda()
        with torch.compiler.set_stance("default"):
            loss = LossModel(model)(input_ids=ids, labels=labels, positions=positions, documents=documents)
            loss.backward()
        found.append((loss.detach(), model.model.layers[0].self_attn.q_proj.weight.grad))
    torch.testing.assert_close(found[0], found[1], atol=1e-2, rtol=1e-2)


def test_recurrent_layers_are_refused() -> None:
    """A mask cannot separate documents in a layer with a state: better no training than a silent leak."""
    from transformers import Qwen3NextConfig

    config = Qwen3NextConfig(num_hidden_layers=2, layer_types=["linear_attention", "full_attention"])
    with pytest.raises(ModelError, match="linear_attention"):
        check_separable(config, "some model")
