"""Packed documents do not see each other, in any kind of attention (law 8)."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from scaletrain.errors import ModelError
from scaletrain.model.attention import VARLEN, attend_documents, check_separable, model_inputs, register_varlen
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


def llama(attention: str) -> Any:
    return tiny_model(attn_implementation=attention, num_key_value_heads=2)


def mistral(attention: str) -> Any:
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    return MistralForCausalLM(MistralConfig(**SMALL, sliding_window=5, attn_implementation=attention)).eval()


def gemma3(attention: str) -> Any:
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    torch.manual_seed(0)
    kinds = ["sliding_attention", "full_attention"]
    config = Gemma3TextConfig(**SMALL, sliding_window=5, layer_types=kinds, attn_implementation=attention)
    return Gemma3ForCausalLM(config).eval()


def qwen2(attention: str) -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    settings = {name: value for name, value in SMALL.items() if name != "head_dim"}
    return Qwen2ForCausalLM(Qwen2Config(**settings, attn_implementation=attention)).eval()


def gpt_neox(attention: str) -> Any:
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    torch.manual_seed(0)
    settings = {name: value for name, value in SMALL.items() if name not in ("head_dim", "num_key_value_heads")}
    return GPTNeoXForCausalLM(GPTNeoXConfig(**settings, attn_implementation=attention)).eval()


def gpt2(attention: str) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64}
    dropout = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
    return GPT2LMHeadModel(GPT2Config(vocab_size=VOCAB_SIZE, **sizes, **dropout, attn_implementation=attention)).eval()


FAMILIES = {
    "llama with grouped queries": llama,
    "mistral with a sliding window": mistral,
    "gemma3 with layers of two kinds": gemma3,
    "qwen2": qwen2,
    "gpt-neox": gpt_neox,
    "gpt2": gpt2,
}


@pytest.fixture(autouse=True, scope="module")
def varlen() -> None:
    register_varlen()


@pytest.mark.parametrize("attention", ["sdpa", VARLEN])
@pytest.mark.parametrize("make", FAMILIES.values(), ids=FAMILIES.keys())
def test_packed_losses_and_gradients_equal_each_documents_own(make: Any, attention: str) -> None:
    """A document in a packed row is trained as if it were alone, in every family and each kind of attention."""
    model, (ids, positions, documents) = make(attention), packed()
    labels = torch.where((positions > 0) & (documents > 0), ids, -100)
    together = LossModel(model)(input_ids=ids, labels=labels, positions=positions, documents=documents)
    together.backward()
    found = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}

    model.zero_grad()
    alone = make("sdpa")
    total = torch.zeros(())
    for row in range(2):
        for document in (1, 2, 3):
            tokens = ids[row, documents[row] == document]
            logits = alone(input_ids=tokens[None]).logits[0]
            total = total + torch.nn.functional.cross_entropy(logits[:-1], tokens[1:], reduction="sum")
    total.backward()
    torch.testing.assert_close(together, total, atol=1e-3, rtol=1e-5)
    for name, parameter in alone.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, atol=1e-3, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("attention", ["sdpa", "flex_attention", VARLEN])
def test_packed_logits_equal_each_documents_own(attention: str) -> None:
    """A document in a packed row is computed as if it were alone."""
    model, (ids, positions, documents) = llama(attention), packed()
    with torch.no_grad():
        together = model(**model_inputs(model.config, ids, positions, documents)).logits
        model = llama("sdpa")
        for row in range(2):
            for document in (1, 2, 3):
                where = documents[row] == document
                alone = model(input_ids=ids[row, where][None]).logits[0]
                torch.testing.assert_close(together[row, where], alone, atol=1e-5, rtol=1e-5)
    assert together.isfinite().all()


@pytest.mark.parametrize("attention", ["sdpa", "flex_attention", VARLEN])
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


@pytest.mark.parametrize("asked", [{}, {"s_aux": torch.zeros(2)}, {"softcap": 30.0}], ids=["nothing", "sinks", "cap"])
def test_varlen_attention_refuses_what_it_would_ignore(asked: dict[str, Any]) -> None:
    """Sinks, caps or unknown bounds of documents end in one clear error, never in other mathematics."""
    bounds = {"cu_seq_lens_q": torch.tensor([0, 4]), "max_length_q": 4} if asked else {}
    heads = torch.zeros(1, 2, 4, 8)
    with pytest.raises(ModelError, match=r"use model\.attention: flex"):
        attend_documents(torch.nn.Identity(), heads, heads, heads, None, **bounds, **asked)


def test_recurrent_layers_are_refused() -> None:
    """A mask cannot separate documents in a layer with a state: better no training than a silent leak."""
    from transformers import Qwen3NextConfig

    config = Qwen3NextConfig(num_hidden_layers=2, layer_types=["linear_attention", "full_attention"])
    with pytest.raises(ModelError, match="linear_attention"):
        check_separable(config, "some model")
