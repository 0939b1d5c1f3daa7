"""plan: which way fits and is the cheapest, what a step takes, what a run costs; and laws that hold for any model."""

from dataclasses import replace
from datetime import date
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapes import LLAMA_70B, llama

from scaletrain.config import Config
from scaletrain.config_file import parse_config
from scaletrain.data.shards import FORMAT_VERSION, DatasetIndex, SplitInfo
from scaletrain.model.shape import ModelShape, shape_of
from scaletrain.plan import choices
from scaletrain.plan.compute import Band, forecast_step, sent_bytes, step_flops
from scaletrain.plan.display import plan_display, settings_of
from scaletrain.plan.forecast import judge_memory, way_of
from scaletrain.plan.machines import Machines, of_type
from scaletrain.plan.memory import GB, Way, forecast_memory
from scaletrain.plan.money import MachinePrices
from scaletrain.plan.planning import Plan, plan_for
from scaletrain.plan.score import compare
from scaletrain.plan.states import states_of
from scaletrain.plan.work import Work, work_of, work_with
from scaletrain.price_table import PriceList, PriceTable, StoragePrice

SHAPE_1B = llama(128256, 2048, 8192, 16, 32, 8, 64)
DAY = date(2026, 1, 1)
PRICES = MachinePrices(
    PriceTable(
        [
            PriceList("test", DAY, "on-demand", {"*": {"g6.xlarge": 1.0, "p5.48xlarge": 60.0, "m7i.xlarge": 0.2}}),
            PriceList("test", DAY, "spot", {"*": {"g6.xlarge": 0.5}}),
        ],
        {"aws": StoragePrice("aws", "test", DAY, 0.02, 0.1)},
    )
)


def config(*overrides: str) -> Config:
    """A run of 100 steps of 64 rows on two workers."""
    text = (
        "name: run\nmodel: {source: m}\ndata: {corpora: [{format: messages, source: t.jsonl}], seq_len: 2048}\n"
        "train: {steps: 100, global_batch_size: 64, micro_batch_size: 1}\nscaling: {workers: 2}\n"
    )
    return parse_config(text, source="test", overrides=overrides)


def plan(shape: ModelShape, machines: Machines, *overrides: str, beside: tuple[Machines, ...] = ()) -> Plan:
    """The plan of such a run without a dataset."""
    loaded = config(*overrides)
    work = Work(loaded.train.steps, loaded.train.global_batch_size, 2048.0, None, "the settings")
    way = way_of(loaded, machines)
    return plan_for(loaded, shape, way, machines, work=work, beside=beside, prices=PRICES)


def test_a_billion_parameters_on_small_gpus_take_fewer_rows() -> None:
    """On two L4s eight rows at once do not fit; the cheapest way that does is named, and how to ask for it."""
    found = plan(SHAPE_1B, of_type("g6.xlarge", market="spot"), "train.micro_batch_size=8")
    assert found.configured.verdict == "does not fit"
    assert found.best is not None
    assert found.best.verdict == "fits"
    assert f"zero.stage={found.best.way.stage}" in settings_of(found.best.way)
    assert all(each.why for each in found.forecasts if each.verdict != "fits")
    cheaper = [each for each in found.forecasts if each.verdict == "fits" and (each.usd or 0) < (found.best.usd or 0)]
    assert cheaper == []


def test_where_nothing_fits_lora_is_offered_by_its_name() -> None:
    """70 billion parameters on one L4 fit in no way; on eight H100s adapters do, and full training does not."""
    big = shape_of(LLAMA_70B)
    assert plan(big, of_type("g6.xlarge"), "scaling.workers=1").best is None
    found = plan(big, of_type("p5.48xlarge"), "scaling.workers=8")
    assert found.best is not None
    assert found.best.way.lora is not None
    assert "model.lora" in settings_of(found.best.way)


def test_where_adapters_do_not_fit_a_base_in_4_bits_is_offered() -> None:
    """Of 70 billion parameters on one H100, also where LoRA was asked for; of 1 billion whole weights fit."""
    big, h100 = shape_of(LLAMA_70B), of_type("p5.48xlarge")
    for overrides in ((), ("model.lora={rank: 8}",)):
        found = plan(big, h100, "scaling.workers=1", *overrides).best
        assert found is not None
        assert found.way.lora is not None
        assert found.way.lora.quantization == "nf4"
        assert "model.lora={rank: " in settings_of(found.way) and "quantization: nf4}" in settings_of(found.way)
        assert found.way.lora.rank == (8 if overrides else 16)
        assert found.way.stage < 3
    ways = plan(SHAPE_1B, h100, "scaling.workers=1", "model.lora={}").forecasts
    assert {each.way.lora.quantization for each in ways if each.way.lora} == {"none"}


def test_a_base_in_4_bits_is_planned_below_zero_3() -> None:
    """The ways beside a configured QLoRA run keep its base, at the stages that it goes with."""
    found = plan(SHAPE_1B, of_type("p5.48xlarge"), "model.lora={quantization: nf4}")
    assert {each.way.stage for each in found.forecasts} <= {1, 2}
    assert all(each.way.lora == found.configured.way.lora for each in found.forecasts)
    assert found.record()["configured"]["quantization"] == "nf4"
    assert "over 4 bits" in _displayed(found)


def test_auto_is_the_most_rows_that_fit() -> None:
    """One row more at once would not fit, where it divides the batch."""
    found = plan(SHAPE_1B, of_type("p5.48xlarge"), "train.micro_batch_size=auto").configured
    assert found.verdict == "fits"
    assert found.way.micro_batch_size in (8, 16, 32)
    double = replace(found.way, micro_batch_size=2 * found.way.micro_batch_size)
    assert judge_memory(forecast_memory(SHAPE_1B, double), double, found.machines)[0] != "fits"


def test_micro_batches_divide_the_batch_and_leave_one_for_each_worker() -> None:
    """The most first; a batch smaller than the workers still has one row."""
    assert choices.micro_batches(64, num_workers=4) == [16, 8, 4, 2, 1]
    assert choices.micro_batches(6, num_workers=1, most=4) == [3, 2, 1]
    assert choices.micro_batches(2, num_workers=8) == [1]


def test_the_measured_step_is_inside_its_band() -> None:
    """A step of 65,309 tokens of the 1B shape took 0.962 s on an H100 (benchmarks/results/step.md)."""
    way = Way(stage=2, num_workers=1, micro_batch_size=16, seq_len=2048)
    flops = step_flops(
        SHAPE_1B, way, rows=32, tokens_per_row=65309 / 32, supervised_share=25397 / 65309, document_tokens=65309 / 105
    )
    step = forecast_step(SHAPE_1B, way, of_type("p5.48xlarge"), global_batch_size=32, flops=flops)
    assert step is not None
    assert step.total_s.low < 65309 / 67902 < step.total_s.high
    assert flops == pytest.approx(0.460 * 989e12 * 65309 / 67902, rel=0.03)


def test_zero_3_sends_half_as_much_again() -> None:
    """Its communication is 1.5 times that of plain data parallelism where one type is sent (arXiv:1910.02054, 7.2)."""
    way = Way(stage=0, num_workers=64, micro_batch_size=1, seq_len=128, precision="fp32")
    plain = sent_bytes(SHAPE_1B, way, rounds=1)
    assert sent_bytes(SHAPE_1B, replace(way, stage=3), rounds=1) == pytest.approx(1.5 * plain)


def test_money_is_hours_times_prices() -> None:
    """Two machines and the head; storage and egress by the bucket's cloud; unknown where a price is."""
    machines = of_type("g6.xlarge", market="spot", region="us-east-1", head_type="m7i.xlarge")
    cost = plan(SHAPE_1B, machines).configured.cost
    assert cost is not None
    assert (cost.on_demand_usd_per_hour, cost.spot_usd_per_hour) == (pytest.approx(2.2), pytest.approx(1.2))
    assert cost.on_demand_usd is not None
    assert cost.on_demand_usd.low == pytest.approx(2.2 * cost.hours.low)
    assert cost.spot_hours.high > cost.hours.high
    assert cost.storage_usd_per_month == pytest.approx(3 * 12 * SHAPE_1B.numel / GB * 0.02)
    assert cost.egress_usd == pytest.approx(2 * SHAPE_1B.numel / GB * 0.1)
    unknown = plan(SHAPE_1B, of_type("g5.xlarge")).configured.cost
    assert unknown is not None
    assert unknown.on_demand_usd is None


def test_a_plan_is_shown_and_kept() -> None:
    """Every part is in the terminal's text, old prices are said to be, and the record is plain data."""
    import orjson

    found = plan(SHAPE_1B, of_type("g6.xlarge", market="spot"), beside=(of_type("p5.48xlarge"),))
    text = _displayed(found)
    for words in ("GPU: optimizer", "exact", "checkpointing", "p5.48xlarge", "151 days old", "Young, Daly"):
        assert words in text
    record = orjson.loads(orjson.dumps(found.record()))
    assert record["configured"]["memory"]["device"]["optimizer"] == {"low": 12 * _half(), "high": 12 * _half()}


def _half() -> int:
    return SHAPE_1B.numel // 2


def test_a_run_is_scored_against_its_forecast() -> None:
    """Figures inside and outside their bounds, and what could not be compared."""
    record = plan(SHAPE_1B, of_type("g6.xlarge", market="spot")).record()
    step_s, memory = record["configured"]["step_s"]["high"], record["configured"]["memory"]["measured_as"]
    lines: list[dict[str, Any]] = [
        {"step": step, "step_s": 10 * step_s if step == 1 else step_s, "memory_bytes": 2 * memory["high"]}
        for step in range(1, 101)
    ]
    score = compare("run", record, lines, wall_s=3600 * record["configured"]["cost"]["hours"]["low"])
    inside = {each.what: each.inside for each in score.points}
    assert inside == {"a step": True, "a worker's memory": False, "hours": True}
    assert [line.partition(":")[0] for line in score.unknown] == ["MFU", "money"]
    assert compare("run", record, lines[:9], wall_s=1.0).unknown[-1].endswith("9 of 100 steps are there")


SIZES = st.builds(
    lambda layers, heads, vocab: llama(32 * vocab, 64 * heads, 160 * heads, layers, heads, heads, 64),
    st.integers(1, 6),
    st.integers(1, 8),
    st.integers(1, 40),
)


@settings(max_examples=60, deadline=None)
@given(shape=SIZES, stage=st.sampled_from([0, 1, 2, 3]), workers=st.integers(1, 64), bf16=st.booleans())
def test_states_are_partitioned_never_lost(shape: ModelShape, stage: int, workers: int, bf16: bool) -> None:
    """All workers together hold at least one whole of everything, and no worker more than one alone would."""
    precision = "bf16" if bf16 else "fp32"
    many = states_of(shape.parameters, (), stage=stage, num_workers=workers, precision=precision)  # type: ignore[arg-type]
    alone = states_of(shape.parameters, (), stage=stage, num_workers=1, precision=precision)  # type: ignore[arg-type]
    padding = 12 * 4 * workers  # two groups, each padded to twice the workers
    for part in ("parameters", "gradients", "optimizer"):
        assert getattr(many, part) <= getattr(alone, part) + padding
        assert workers * getattr(many, part) >= getattr(alone, part) - padding


@settings(max_examples=60, deadline=None)
@given(shape=SIZES, rows=st.integers(1, 16), stage=st.sampled_from([1, 2, 3]), checkpointing=st.booleans())
def test_more_rows_take_more_and_bounds_are_in_order(
    shape: ModelShape, rows: int, stage: int, checkpointing: bool
) -> None:
    """Memory grows with the rows; checkpointing never takes more; low is never above high."""
    way = Way(
        stage=stage,  # type: ignore[arg-type]
        num_workers=2,
        micro_batch_size=rows,
        seq_len=256,
        gradient_checkpointing=checkpointing,
    )
    found, more = forecast_memory(shape, way), forecast_memory(shape, replace(way, micro_batch_size=rows + 1))
    plain = forecast_memory(shape, replace(way, gradient_checkpointing=False))
    assert found.on_device.low < more.on_device.low
    assert found.device["activations"].high <= plain.device["activations"].high + 2 * way.tokens * shape.hidden_size
    assert all(part.low <= part.high for part in (*found.device.values(), *found.host.values()))


def test_steps_are_told_by_the_prepared_dataset(tmp_path: Path) -> None:
    """epochs become steps once the dataset is there; tokens and the supervised share are its own."""
    loaded = config("train.steps=null", "train.epochs=2", f"storage.root={tmp_path}")
    assert work_of(loaded).steps is None
    split = SplitInfo((), rows=96, tokens=96_000, supervised_tokens=24_000)
    index = DatasetIndex(FORMAT_VERSION, "some", 2048, 4, 0, ("a",), "none", {"train": split})
    work = work_with(loaded, "data/some", index)
    assert (work.steps, work.tokens_per_row, work.supervised_share) == (3, 1000.0, 0.25)


def test_the_middle_of_a_band_is_geometric() -> None:
    """Twice as long and half as long are as far from it."""
    assert Band(2.0, 8.0).middle == 4.0


def _displayed(found: Plan) -> str:
    from rich.console import Console

    console = Console(width=160, record=True, file=StringIO())
    console.print(plan_display(found, today=date(2026, 6, 1)))
    return console.export_text()
