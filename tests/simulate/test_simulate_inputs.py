"""inputs: a run's own steps, stalls and recoveries, read from its bucket, else defaults with where they are from."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from scaletrain import storage
from scaletrain.config import Config
from scaletrain.config_file import parse_config
from scaletrain.errors import ConfigError
from scaletrain.layout import RunLayout, part_name
from scaletrain.simulate.inputs import Measured, make_inputs, read_measured
from scaletrain.simulate.pools import make_pools

START = 1_800_000_000.0
TEXT = """
name: run
storage: {root: ROOT}
model: {init: random, size: {vocab_size: 2048, hidden_size: 128, num_layers: 2, num_heads: 4}}
data: {corpora: [{format: jsonl, source: nowhere.jsonl}], seq_len: 64}
train: {steps: 1000, global_batch_size: 16, micro_batch_size: 2}
scaling: {workers: {min: 1, max: 4}}
"""


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return parse_config(TEXT.replace("ROOT", str(tmp_path)), source="run.yaml")


def stamp(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="milliseconds")


def write_attempt(run: RunLayout, number: int, began_s: float, *, first: int, workers: int, step_s: float) -> float:
    """Ten steps of an attempt that a lost worker ends; the fifth has a stall of half a second more."""
    claim = {"started": stamp(began_s - 20), "host": "h", "machine": "m", "pid": 1, "process_started": 1}
    storage.write_bytes(run.attempt(number), orjson.dumps(claim))
    storage.write_bytes(run.attempt_from(number, first), orjson.dumps({"time": stamp(began_s)}))
    lines: list[dict[str, Any]] = []
    for step in range(first + 1, first + 11):
        stall_s = 0.5 if step == first + 5 else 0.0
        began_s += step_s + stall_s
        seconds = {"step_s": step_s + stall_s, "data_wait_s": 0.0, "checkpoint_stall_s": stall_s}
        lines.append({"step": step, "time": stamp(began_s), "world_size": workers, **seconds})
    lines[0]["step_s"] = 9.0  # the first step of an attempt is slower, and left out
    text = b"\n".join(orjson.dumps(line) for line in lines)
    storage.write_bytes(storage.join(run.metrics, part_name(number, 1)), text)
    storage.write_bytes(run.attempt_file(number, "ended"), orjson.dumps({"time": stamp(began_s), "failed": True}))
    return began_s


def test_a_run_tells_what_its_steps_saves_and_recoveries_take(config: Config) -> None:
    """A step of 8 micro batches: 4.5 s on two workers and 2.5 s on four are half a second and one for each round."""
    run = RunLayout(config.storage.root, config.name)
    ended_s = write_attempt(run, 1, START, first=0, workers=2, step_s=4.5)
    write_attempt(run, 2, ended_s + 30, first=10, workers=4, step_s=2.5)
    measured = read_measured(run)
    assert measured is not None
    assert measured.step_s == {2: pytest.approx(4.5), 4: pytest.approx(2.5)}
    assert measured.pauses == 1
    setting = make_inputs(config, measured, steps=1000, days=None, parameters=1_000_000).setting
    assert (setting.fixed_s, setting.micro_batch_s) == pytest.approx((0.5, 1.0))
    assert [setting.step_s(workers) for workers in (1, 2, 4)] == pytest.approx([8.5, 4.5, 2.5])
    assert setting.stall_s == pytest.approx(0.5)
    assert measured.pause_s == pytest.approx(setting.loss_seen_s + setting.start_s + setting.restore_s)


def test_a_run_that_has_not_trained_tells_nothing(config: Config) -> None:
    """Then days and parameters are asked for, each with what to do."""
    run = RunLayout(config.storage.root, config.name)
    assert read_measured(run) is None
    with pytest.raises(ConfigError, match="give --days"):
        make_inputs(config, None, steps=1000, days=None, parameters=1)
    with pytest.raises(ConfigError, match="give --parameters"):
        make_inputs(config, None, steps=1000, days=1, parameters=None)


def test_days_are_those_of_all_steps_undisturbed(config: Config) -> None:
    """With the most workers; of a run whose step is known they say how many steps there are."""
    setting = make_inputs(config, None, steps=1000, days=2, parameters=10**9).setting
    assert setting.undisturbed_s == pytest.approx(2 * 86_400)
    measured = Measured({4: 10.0}, 1.0, 4, 4_000_000, None, 0, 50)
    inputs = make_inputs(config, measured, steps=1000, days=1, parameters=None)
    assert inputs.setting.steps == 8640
    assert "50 steps of the run" in inputs.origins["a step"]


def test_prices_are_those_of_the_machine_or_nothing_is_said_of_money(config: Config) -> None:
    """A machine that nobody knows has one worker, and an own price counts for all machines."""
    known = make_pools(config, machine="g6.24xlarge", region=None, trace=None, taken_per_month=0.1)
    assert known.knows_prices
    assert (known.pools[0].workers_per_machine, known.gpus_per_machine, known.notice_s) == (4, 4, 120.0)
    unknown = make_pools(config, machine="my-server", region=None, trace="calm", taken_per_month=None)
    assert not unknown.knows_prices
    assert any("nothing is said of money" in note for note in unknown.notes)
    own = parse_config(TEXT + "budget: {usd_per_machine_hour: 2.0}\n", source="run.yaml")
    flat = make_pools(own, machine=None, region=None, trace="calm", taken_per_month=None)
    assert flat.knows_prices
    assert flat.pools[0].usd_per_hour.mean == pytest.approx(0.8, rel=0.2)  # the trace's share of 2 USD
    assert flat.head_usd_per_hour == 0
    headed = make_pools(own, machine=None, region=None, trace="calm", taken_per_month=None, head="m5.xlarge")
    assert headed.head_usd_per_hour == 2


def test_a_trace_without_the_machine_says_what_it_has(config: Config, tmp_path: Path) -> None:
    """So that one of them may be named."""
    path = tmp_path / "trace.csv"
    path.write_text(
        "time,machine_type,zone,price_usd_per_hour,capacity\n"
        "2026-05-01,g6.xlarge,a,0.3,4\n2026-05-01,p5.48xlarge,a,20,2\n"
    )
    with pytest.raises(ConfigError, match=r"has nothing of g5\.xlarge, only g6\.xlarge, p5\.48xlarge"):
        make_pools(config, machine="g5.xlarge", region=None, trace=str(path), taken_per_month=None)
    both = make_pools(config, machine=None, region=None, trace=str(path), taken_per_month=None)
    assert [pool.workers_per_machine for pool in both.pools] == [1, 8]
    assert both.pools[0].speed == 1
    assert both.pools[1].speed > 5  # an H100 beside an L4, by their peaks
