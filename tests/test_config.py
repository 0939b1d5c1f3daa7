"""config: the sections' rules between fields, and defaults that stand on their own."""

from typing import Any

import pytest
from pydantic import ValidationError

from scaletrain.config import Config, ScalingSection, StorageSection, TrainSection, WorkerRange, ZeroSection
from scaletrain.config_data import Corpus, DataSection
from scaletrain.config_model import LoraSection, ModelSection, ModelSize
from scaletrain.config_section import BrokenRulesError, Section


def config(**sections: Any) -> Config:
    return Config.model_validate(
        {
            "name": "a",
            "model": {"source": "x"},
            "data": {"corpora": [{"format": "messages", "source": "x"}]},
            "train": {"steps": 1},
        }
        | sections
    )


def test_a_run_needs_four_things() -> None:
    """A name, a model, a corpus and a length make a configuration; everything else has a default."""
    assert config().zero.stage == 2


def test_sections_are_frozen_and_know_their_keys() -> None:
    """A section cannot be changed after it was made, and takes no key that it does not know."""
    with pytest.raises(ValidationError, match="frozen"):
        config().seed = 5  # type: ignore[misc]
    with pytest.raises(ValidationError, match="Extra inputs"):
        ZeroSection(stages=3)  # type: ignore[call-arg]


BROKEN: list[tuple[type[Section], dict[str, Any], list[str]]] = [
    (TrainSection, {}, ["steps"]),
    (TrainSection, {"steps": 1, "epochs": 1}, ["steps"]),
    (TrainSection, {"steps": 1, "global_batch_size": 60, "micro_batch_size": 8}, ["micro_batch_size"]),
    (TrainSection, {"global_batch_size": 60, "micro_batch_size": 8}, ["steps", "micro_batch_size"]),
    (TrainSection, {"steps": 1, "schedule": "constant", "min_learning_rate_ratio": 0.1}, ["min_learning_rate_ratio"]),
    (ModelSection, {}, ["source"]),
    (ModelSection, {"source": "x", "size": {}}, ["size"]),
    (ModelSection, {"init": "random"}, ["size"]),
    (ModelSection, {"init": "random", "size": {}, "source": "x", "lora": {}}, ["source", "lora"]),
    (ModelSection, {"init": "random", "size": {}, "revision": "main"}, ["revision"]),
    (ModelSize, {"hidden_size": 100, "num_heads": 3}, ["num_heads"]),
    (ModelSize, {"hidden_size": 60, "num_heads": 4}, ["hidden_size"]),
    (ModelSize, {"vocab_size": 258}, ["vocab_size"]),
    (ModelSize, {"num_heads": 4, "num_kv_heads": 3}, ["num_kv_heads"]),
    (ZeroSection, {"stage": 0, "offload_optimizer": "cpu"}, ["offload_optimizer"]),
    (ZeroSection, {"stage": 2, "offload_parameters": "cpu"}, ["offload_parameters"]),
    (WorkerRange, {"min": 3, "max": 2}, ["min"]),
    (StorageSection, {"options": {"secret": "x"}}, ["options.secret"]),
    (DataSection, {"corpora": [{"format": "messages", "source": name} for name in "ab"]}, ["corpora.1.name"]),
]


@pytest.mark.parametrize(("section", "fields", "blamed"), BROKEN)
def test_fields_that_do_not_go_together_are_named(
    section: type[Section], fields: dict[str, Any], blamed: list[str]
) -> None:
    """Every broken rule of a section is reported, with the field to change and what to do."""
    with pytest.raises(ValidationError) as raised:
        section.model_validate(fields)
    rules = raised.value.errors()[0]["ctx"]["error"]
    assert isinstance(rules, BrokenRulesError)
    assert [field for field, _ in rules.broken] == blamed
    assert all(";" in message for _, message in rules.broken)


@pytest.mark.parametrize(
    "sections",
    [
        {"train": {"steps": 1, "evaluate_every_steps": 5}, "data": config().data.model_dump() | {"validation": 0}},
        {"train": {"steps": 1, "device": "cpu"}, "scaling": {"gpus_per_worker": 1}},
        {"train": {"steps": 1, "device": "cuda"}, "scaling": {"gpus_per_worker": 0}},
        {"train": {"steps": 1}, "zero": {"communication": "bf16"}},
        {"train": {"steps": 1, "optimizer": "adamw_8bit"}, "zero": {"offload_optimizer": "cpu"}},
    ],
)
def test_sections_that_contradict_each_other_are_refused(sections: dict[str, Any]) -> None:
    """A setting that another section makes meaningless is an error, not ignored."""
    with pytest.raises(ValidationError, match="remove"):
        config(**sections)


@pytest.mark.parametrize("wanted", [False, True, 0.5, 0, 1, "selective", "auto"])
def test_gradient_checkpointing_is_a_switch_a_share_or_a_word(wanted: object) -> None:
    """true and false stay what they are, and are not taken for the shares 1 and 0."""
    found = ModelSection.model_validate({"source": "x", "gradient_checkpointing": wanted}).gradient_checkpointing
    assert (type(found), found) == (float if type(wanted) is int else type(wanted), wanted)


@pytest.mark.parametrize(
    ("wanted", "said"), [(1.5, "less than or equal to 1"), ("half", "give true, false, selective, auto, or a share")]
)
def test_gradient_checkpointing_has_bounds(wanted: object, said: str) -> None:
    """More than all layers, and words that mean nothing, are refused."""
    with pytest.raises(ValidationError, match=said):
        ModelSection.model_validate({"source": "x", "gradient_checkpointing": wanted})


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"zero": {"stage": 3}}, "zero.stage=3 gathers weights inside the layers; use true, or a share"),
        ({"model": {"kernels": "liger"}}, "kernels=liger writes over what would be kept; use kernels: auto, true"),
    ],
)
def test_selective_checkpointing_is_refused_where_it_would_be_wrong(sections: dict[str, Any], said: str) -> None:
    """A share of the layers and auto go with both."""
    for wanted in ("selective", 0.5, "auto"):
        model = {"source": "x", **sections.get("model", {}), "gradient_checkpointing": wanted}
        if wanted == "selective":
            with pytest.raises(ValidationError, match=said):
                config(**{**sections, "model": model})
        else:
            assert config(**{**sections, "model": model}).model.gradient_checkpointing == wanted


def test_what_the_rules_suggest_is_right() -> None:
    """The micro batch that the message suggests is accepted."""
    with pytest.raises(ValidationError, match="use 6"):
        TrainSection(steps=1, global_batch_size=60, micro_batch_size=7)
    TrainSection(steps=1, global_batch_size=60, micro_batch_size=6)


@pytest.mark.parametrize(("global_batch_size", "micro_batch_size"), [(1, 1), (2, 2), (3, 3), (6, 3), (10, 2), (64, 4)])
def test_the_micro_batch_fits_the_global_batch_by_default(global_batch_size: int, micro_batch_size: int) -> None:
    """A small global batch size alone is no error."""
    assert TrainSection(steps=1, global_batch_size=global_batch_size).micro_batch_size == micro_batch_size


@pytest.mark.parametrize("number", [True, False])
def test_a_boolean_is_no_number(number: bool) -> None:
    """Python's true and false are the numbers 1 and 0; the configuration does not take them for numbers."""
    for section, fields in [(TrainSection, {"steps": number}), (ZeroSection, {"stage": number})]:
        with pytest.raises(ValidationError, match="give a number"):
            section.model_validate(fields)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_are_finite(value: float) -> None:
    """A learning rate that is not finite is refused."""
    with pytest.raises(ValidationError, match="finite"):
        TrainSection(steps=1, learning_rate=value)


def test_workers_are_a_number_or_a_range() -> None:
    """Both ways to give workers are understood."""
    assert ScalingSection(workers=3).workers == 3
    assert ScalingSection.model_validate({"workers": {"min": 1, "max": 2}}).workers == WorkerRange(min=1, max=2)
    assert ScalingSection(workers=WorkerRange(min=1, max=2)).workers == WorkerRange(min=1, max=2)


def test_a_base_in_4_bits_goes_with_zero_0_to_2() -> None:
    """ZeRO-3 would partition codes: one problem, which names both; below it nothing is said."""
    model = {"source": "x", "lora": {"quantization": "nf4"}}
    with pytest.raises(ValidationError) as raised:
        config(model=model, zero={"stage": 3})
    broken = raised.value.errors()[0]["ctx"]["error"].broken
    assert [path for path, _ in broken] == ["model.lora.quantization"]
    assert "goes with zero.stage 0 to 2; lower the stage, or use none" in broken[0][1]
    for stage in (0, 1, 2):
        assert config(model=model, zero={"stage": stage}).model.lora.quantization == "nf4"  # type: ignore[union-attr]


def test_lora_modules_are_all_or_named() -> None:
    """LoRA adapts all linear layers, or those in a list."""
    assert LoraSection().target_modules == "all-linear"
    assert LoraSection.model_validate({"target_modules": ["q_proj"]}).target_modules == ("q_proj",)


def test_two_corpora_of_one_format_need_names() -> None:
    """Corpora with names of their own may share a format."""
    corpora = tuple(Corpus(format="messages", source="x", name=name) for name in "ab")
    assert len(DataSection(corpora=corpora).corpora) == 2
