"""plan: what gradient checkpointing saves and costs, against a measured pass, and when it is proposed."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from shapes import llama
from transformers import AutoConfig, AutoModelForCausalLM

from live_bytes import LiveBytes
from scaletrain.config import Config
from scaletrain.config_file import parse_config
from scaletrain.config_model import LoraSection, quantizes
from scaletrain.config_recomputing import Recomputing
from scaletrain.model.loss import LossModel
from scaletrain.model.quantization import load_quantized, quantized_layers
from scaletrain.model.recomputing import LADDER, recompute
from scaletrain.model.shape import shape_of
from scaletrain.plan.choices import automatic_ways
from scaletrain.plan.compute import recomputing_factor
from scaletrain.plan.forecast import way_of
from scaletrain.plan.machines import of_type
from scaletrain.plan.memory import Amount, Way, forecast_memory
from scaletrain.plan.money import MachinePrices
from scaletrain.plan.planning import Plan, plan_for
from scaletrain.plan.work import Work
from scaletrain.price_table import PriceTable
from scaletrain.train.micro_batch import make_a_pass
from tiny import tiny_model

SHAPE_1B = llama(128256, 2048, 8192, 16, 32, 8, 64)
SHAPE_3B = llama(128256, 3072, 8192, 28, 24, 8, 128)


def config(*overrides: str) -> Config:
    """A run of rows of 4,096 tokens on one worker."""
    text = (
        "name: run\nmodel: {source: m}\ndata: {corpora: [{format: messages, source: t.jsonl}], seq_len: 4096}\n"
        "train: {steps: 100, global_batch_size: 64, micro_batch_size: 1}\n"
    )
    return parse_config(text, source="test", overrides=overrides)


def plan(*overrides: str, machine: str = "p5.48xlarge") -> Plan:
    loaded, machines = config(*overrides), of_type(machine)
    work = Work(loaded.train.steps, loaded.train.global_batch_size, 4096.0, None, "the settings")
    prices = MachinePrices(PriceTable([], {}))
    way = way_of(loaded, machines)
    return plan_for(loaded, SHAPE_1B, way, machines, work=work, beside=(), prices=prices)


@pytest.mark.parametrize("wanted", LADDER)
@pytest.mark.parametrize("lora", [None, LoraSection(rank=4), LoraSection(rank=4, quantization="nf4")])
def test_a_measured_pass_is_inside_the_bounds(wanted: Recomputing, lora: LoraSection | None, tmp_path: Path) -> None:
    """The most bytes of a forward and backward pass on the CPU, for each step of the ladder."""
    from scaletrain.model.build import add_adapters

    sizes = {"hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 6, "num_attention_heads": 2}
    model = tiny_model(**sizes)
    shape = shape_of(model.config.to_dict())
    if quantizes(lora):
        model.save_pretrained(tmp_path)
        model = load_quantized(tmp_path, computing=torch.float32, device=torch.device("cpu"))
    recompute(model, wanted)
    if lora is not None:
        model = add_adapters(model, lora, seed=0)
    trained = LossModel(model.train())
    scales = [each.weight.quant_state.absmax for each in quantized_layers(trained)]
    with LiveBytes([*trained.parameters(), *trained.buffers(), *scales]) as live:
        make_a_pass(trained, rows=2, seq_len=128)
    way = Way(
        stage=2,
        num_workers=1,
        micro_batch_size=2,
        seq_len=128,
        device="cpu",
        precision="fp32",
        gradient_checkpointing=wanted,
        lora=lora,
    )
    parts = forecast_memory(shape, way, supervised_share=1.0).host
    expected = parts["activations"] + parts["logits and loss"]
    if quantizes(lora):  # the matrix that is whole may be there when memory is fullest
        expected += Amount(0, parts["buffers"].high)
    assert expected.low <= live.most <= expected.high


@pytest.mark.parametrize(
    ("kind", "setting"), [("cohere", {"logit_scale": 0.0625}), ("granite", {"logits_scaling": 8.0}), ("llama", {})]
)
def test_logits_that_the_model_changes_are_there_as_a_whole(
    kind: str, setting: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass that cannot make its loss a chunk of logits at a time needs more, and is forecast to."""
    monkeypatch.setattr("scaletrain.model.loss._CHUNK_ELEMENTS", 2**18)
    monkeypatch.setattr("scaletrain.plan.memory._CPU_CHUNK_BYTES", 2**20)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    settings = {"model_type": kind, "vocab_size": 8192, "tie_word_embeddings": True, **sizes, **setting}
    torch.manual_seed(0)
    trained = LossModel(AutoModelForCausalLM.from_config(AutoConfig.for_model(**settings)).train())
    with LiveBytes([*trained.parameters(), *trained.buffers()]) as live:
        make_a_pass(trained, rows=2, seq_len=128)
    way = Way(stage=2, num_workers=1, micro_batch_size=2, seq_len=128, device="cpu", precision="fp32")
    parts = forecast_memory(shape_of(settings), way, supervised_share=1.0).host
    expected = parts["activations"] + parts["logits and loss"]
    assert expected.low <= live.most <= expected.high
    assert (live.most > 4 * 256 * 8192) == bool(setting)


@pytest.mark.parametrize("shape", [SHAPE_1B, SHAPE_3B], ids=["1B", "3B"])
def test_the_ladder_falls_in_memory_and_rises_in_computing(shape: object) -> None:
    """Each share needs less than the one before and computes more; selective lies between nothing and everything."""
    way = Way(stage=2, num_workers=1, micro_batch_size=4, seq_len=2048)
    ways = {step: replace(way, gradient_checkpointing=step) for step in LADDER}
    memory = {step: forecast_memory(shape, each).allocated.middle for step, each in ways.items()}  # type: ignore[arg-type]
    computing = {step: recomputing_factor(shape, each) for step, each in ways.items()}  # type: ignore[arg-type]
    shares: tuple[Recomputing, ...] = (False, 0.25, 0.5, 0.75, True)
    assert [memory[each] for each in shares] == sorted((memory[each] for each in shares), reverse=True)
    assert memory[True] < memory["selective"] < memory[False]
    assert list(computing.values()) == sorted(computing.values())
    assert computing[True] == pytest.approx(4 / 3)


def test_with_frozen_weights_a_forward_pass_is_half_of_a_step() -> None:
    """No gradient is computed for them, so to recompute everything takes half as much again."""
    way = Way(stage=2, num_workers=1, micro_batch_size=4, seq_len=2048, lora=LoraSection(), gradient_checkpointing=True)
    assert recomputing_factor(SHAPE_1B, way) == pytest.approx(1.5)


def test_less_recomputing_is_proposed_before_more() -> None:
    """Where 12 rows at once need recomputing, the plan lists parts of it, with fewer rows each than all of it."""
    found = [each for each in plan().forecasts if each.way.stage == 2 and not each.way.offload_optimizer]
    rows = {each.way.gradient_checkpointing: each.way.micro_batch_size for each in found}
    assert {False, True} < set(rows)
    assert all(rows[False] < count <= rows[True] for step, count in rows.items() if step is not False)
    proposed = plan("train.micro_batch_size=64").best
    assert proposed is not None
    assert proposed.way.gradient_checkpointing is False


def test_a_part_that_brings_nothing_is_left_out() -> None:
    """A model that fits with all rows at once is offered nothing and everything, for who wants to see, and no more."""
    loaded, machines = config(), of_type("p5.48xlarge")
    small, way = llama(320, 64, 128, 2, 1, 1, 64), way_of(config(), of_type("p5.48xlarge"))
    work = Work(loaded.train.steps, 64, 4096.0, None, "the settings")
    prices = MachinePrices(PriceTable([], {}))
    found = plan_for(loaded, small, way, machines, work=work, beside=(), prices=prices).forecasts
    assert {each.way.gradient_checkpointing for each in found} == {False, True}


def test_auto_is_the_least_recomputing_with_which_the_micro_batch_fits() -> None:
    """The step before it on the ladder does not fit; with both left open one row decides, then as many as fit."""
    found = plan("model.gradient_checkpointing=auto", "train.micro_batch_size=16").configured
    assert found.verdict == "fits"
    assert found.way.micro_batch_size == 16
    step = LADDER.index(found.way.gradient_checkpointing)
    assert step > 0
    less = plan(f"model.gradient_checkpointing={str(LADDER[step - 1]).lower()}", "train.micro_batch_size=16").configured
    assert less.verdict != "fits"
    both = plan("model.gradient_checkpointing=auto", "train.micro_batch_size=auto").configured
    assert both.way.gradient_checkpointing is False
    assert both.way == plan("train.micro_batch_size=auto").configured.way


def test_zero_3_and_ligers_kernels_are_never_offered_selective() -> None:
    """What a configuration would be refused for is not proposed."""
    way = replace(way_of(config(), of_type("p5.48xlarge")), num_workers=8)
    for overrides in (("zero.stage=3",), ("model.kernels=liger",)):
        loaded = config("model.gradient_checkpointing=auto", *overrides)
        ways = automatic_ways(loaded, replace(way, stage=loaded.zero.stage), rows=[2, 1])
        assert [each.gradient_checkpointing for each in ways] == [False, 0.25, 0.5, 0.75, True]
    offered = plan("scaling.workers=8", "model.kernels=liger").forecasts
    assert all(each.way.gradient_checkpointing != "selective" for each in offered)
