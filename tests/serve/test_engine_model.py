"""serve.engine_model: adapters over one model, other families of models, and a model that cannot be served."""

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from engine_answers import alone, answer, answers, fresh, random_prompt
from scaletrain.errors import ModelError
from scaletrain.serve.engine import BatchEngine
from tiny import VOCAB_SIZE, tiny_model, tiny_tokenizer


def test_adapters_answer_side_by_side(tmp_path: Path) -> None:
    """Beside one another over one base model, each as the model that it is merged into, and the base as itself."""
    from peft import LoraConfig, get_peft_model

    prompt = list(range(3, 30))
    folders, expected = {}, {}
    for number, name in enumerate(("french", "formal")):
        torch.manual_seed(number)
        config = LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False)
        adapted = get_peft_model(tiny_model(), config)
        adapted.save_pretrained(tmp_path / name)
        folders[name] = tmp_path / name
        expected[name] = alone(adapted.merge_and_unload().eval(), prompt, max_tokens=20)

    async def run() -> list[str]:
        engine = BatchEngine(tiny_model(), tiny_tokenizer(), adapters=folders)
        try:
            with pytest.raises(ModelError, match="formal, french"):
                engine.adapter("german")
            each = [engine.adapter("french"), engine, engine.adapter("formal"), engine.adapter("french")]
            return [got.text for got in await asyncio.gather(*(answer(one, prompt) for one in each))]
        finally:
            await engine.close()

    base = alone(tiny_model(), prompt, max_tokens=20)
    assert asyncio.run(run()) == [expected["french"], base, expected["formal"], expected["french"]]
    assert len({base, *expected.values()}) == 3


def small(name: str) -> Any:
    """A random model of another family."""
    import transformers

    sizes = {
        "vocab_size": VOCAB_SIZE, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 256,
        "initializer_range": 0.3, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
    }  # fmt: skip
    extra: dict[str, Any] = {"Mistral": {"sliding_window": 16}, "Gemma3": {"sliding_window": 16}}
    config = {"Gemma3": "Gemma3TextConfig"}.get(name, f"{name}Config")
    torch.manual_seed(1)
    settings = getattr(transformers, config)(**sizes, **extra.get(name, {}))
    return getattr(transformers, f"{name}ForCausalLM")(settings).eval()


@pytest.mark.parametrize("family", ["Qwen3", "Mistral", "Gemma3", "GPTNeoX", "Phi3", "OPT"])
def test_other_families_answer_as_alone(family: str) -> None:
    """With windows, learned positions, shared keys or none: greedy answers are those of generate()."""
    generator = random.Random(1)
    requests = [(random_prompt(generator, length), {"max_tokens": 30}) for length in (1, 50, 13, 30)]

    async def run() -> list[str]:
        async with fresh(small(family), prefill_tokens=20) as engine:
            return [each.text for each in await answers(engine, requests)]

    model = small(family)
    assert asyncio.run(run()) == [alone(model, prompt, max_tokens=30) for prompt, _ in requests]


def test_a_model_with_another_kind_of_memory_is_refused() -> None:
    """A state-space model has no keys and values: the engine says so instead of answering nonsense."""
    from transformers import MambaConfig, MambaForCausalLM

    model = MambaForCausalLM(MambaConfig(vocab_size=VOCAB_SIZE, hidden_size=32, num_hidden_layers=2, state_size=4))
    with pytest.raises(ModelError, match="MambaForCausalLM cannot be served in batches"):
        BatchEngine(model.eval(), tiny_tokenizer())
