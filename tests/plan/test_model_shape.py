"""model/shape.py and model/settings.py: what a model is made of, told by its config.json alone."""

import json
from pathlib import Path
from typing import Any

import pytest
from shapes import LLAMA_70B

from scaletrain.config_model import LoraSection, ModelSection
from scaletrain.errors import ModelError
from scaletrain.model.build import add_adapters
from scaletrain.model.settings import read_shape
from scaletrain.model.shape import random_settings, shape_of, split_trained

_SMALL: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def _on_meta(settings: dict[str, Any]) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(**settings))


@pytest.mark.parametrize(
    "settings",
    [
        {"model_type": "llama", "tie_word_embeddings": True},
        {"model_type": "llama", "tie_word_embeddings": False, "attention_bias": True, "mlp_bias": True},
        {"model_type": "mistral", "head_dim": 16},
        {"model_type": "qwen2", "tie_word_embeddings": True},
        {"model_type": "qwen3", "head_dim": 16},
        {"model_type": "qwen3", "attention_bias": True},
        {"model_type": "gemma2", "head_dim": 16},
        {"model_type": "gpt_neox"},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_parameters_are_those_of_the_real_model(settings: dict[str, Any]) -> None:
    """Names, shapes and order of every parameter, for families that are written down and for one that is not."""
    settings = {**_SMALL, **settings}
    model = _on_meta(settings)
    expected = [(name, tuple(each.shape)) for name, each in model.named_parameters()]
    shape = shape_of(settings)
    assert [(each.name, each.shape) for each in shape.parameters] == expected
    assert shape.numel == sum(each.numel() for each in model.parameters())


def test_adapters_are_those_that_peft_makes() -> None:
    """LoRA's factors on all linear layers and on named ones: as many elements as peft trains."""
    from peft import LoraConfig, TaskType, get_peft_model

    settings = {**_SMALL, "model_type": "llama", "tie_word_embeddings": False}
    for targets in ("all-linear", ("q_proj", "v_proj")):
        section = LoraSection.model_validate({"rank": 4, "target_modules": targets})
        modules = targets if isinstance(targets, str) else list(targets)
        adapted = get_peft_model(
            _on_meta(settings), LoraConfig(task_type=TaskType.CAUSAL_LM, r=4, target_modules=modules)
        )
        trained, frozen = split_trained(shape_of(settings), section)
        assert sum(each.numel for each in trained) == sum(p.numel() for p in adapted.parameters() if p.requires_grad)
        assert sum(each.numel for each in frozen) == shape_of(settings).numel


def test_a_random_start_has_the_shape_that_is_written(tmp_path: Path) -> None:
    """The sizes of `init: random` give the parameters of the model that materialise writes."""
    from scaletrain.model.build import materialise

    section = ModelSection.model_validate(
        {"init": "random", "size": {"vocab_size": 300, "hidden_size": 32, "num_layers": 1, "num_heads": 2}}
    )
    url = materialise(section, root=str(tmp_path), seed=0, corpus_texts=lambda: ["Hello there, how are you?"] * 20)
    written = json.loads((Path(url) / "config.json").read_text())
    assert section.size is not None
    assert shape_of(random_settings(section.size)).parameters == shape_of(written).parameters


def test_a_folder_needs_its_config_alone(tmp_path: Path) -> None:
    """70 billion parameters are counted from a file of a kilobyte; its published size is 70.6 billion."""
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_70B))
    found = read_shape(ModelSection.model_validate({"source": str(tmp_path)}), root=str(tmp_path / "bucket"))
    assert found.numel == 70_553_706_496


def test_what_cannot_be_read_is_said_with_what_to_do(tmp_path: Path) -> None:
    """No config.json, a broken one, a family that nobody knows."""
    (tmp_path / "README.md").write_text("a model")
    with pytest.raises(ModelError, match=r"has no config\.json"):
        read_shape(ModelSection.model_validate({"source": str(tmp_path)}), root=str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match="is not JSON"):
        read_shape(ModelSection.model_validate({"source": str(tmp_path)}), root=str(tmp_path))
    with pytest.raises(ModelError, match="no model_type"):
        shape_of({"hidden_size": 8}, source="mine")


def test_a_model_on_an_unreachable_hub_can_be_planned_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message says how to go on: a folder with the config.json alone."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    section = ModelSection.model_validate({"source": "nobody/has-this-model"})
    with pytest.raises(ModelError, match=r"config\.json alone is enough"):
        read_shape(section, root=str(tmp_path))


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe"])
@pytest.mark.parametrize("targets", ["all-linear", ("q_proj", "v_proj")])
def test_adapters_of_experts_are_counted_as_peft_makes_them(family: str, targets: Any) -> None:
    """Experts lie in one tensor of three dimensions, and have most of a mixture's adapters."""
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16}
    experts = {"num_experts" if family == "qwen3_moe" else "num_local_experts": 4, "num_experts_per_tok": 2}
    settings = {"model_type": family, **sizes, **heads, **experts, "moe_intermediate_size": 16}
    lora = LoraSection(rank=4, target_modules=targets)
    adapted = add_adapters(_on_meta(settings), lora, seed=0)
    expected = sum(each.numel() for each in adapted.parameters() if each.requires_grad)
    trained, _ = split_trained(shape_of(settings), lora)
    assert sum(each.numel for each in trained) == expected
