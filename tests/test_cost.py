"""cost: each machine is counted once, attempts add up, a killed one too, and an unknown price is never 0."""

from datetime import UTC, date, datetime
from pathlib import Path

import orjson
import pytest

from scaletrain import storage
from scaletrain.cost import (
    Prices,
    cost_account,
    note_rate,
    old_prices,
    rate_of,
    read_history,
)
from scaletrain.goodput import account
from scaletrain.layout import RunLayout, part_name
from scaletrain.price_table import PriceList, PriceTable
from scaletrain.this_machine import Machine

NOON = 1_800_000_000  # some moment, in seconds since 1970
HEAD = Machine("head", "m5.xlarge", "on-demand", "us-east-1")
SPOT = Machine("spot", "g5.xlarge", "spot", "us-east-1")
OWN = Machine("cellar")


@pytest.fixture
def run(tmp_path: Path) -> RunLayout:
    return RunLayout(str(tmp_path), "run")


def stamp(second: float) -> str:
    return datetime.fromtimestamp(NOON + second, UTC).isoformat(timespec="milliseconds")


def write_attempt(
    run: RunLayout,
    number: int,
    start: float,
    *,
    command: int,
    heartbeat: float | None = None,
    ended: float | None = None,
    failed: bool = False,
) -> None:
    """Leave the files of an attempt: killed after its last heartbeat, or ended."""
    claim = {"started": stamp(start), "host": "h", "machine": "m", "pid": command, "process_started": 1}
    storage.write_bytes(run.attempt(number), orjson.dumps(claim))
    if heartbeat is not None:
        storage.write_bytes(run.attempt_file(number, "heartbeat"), orjson.dumps({"time": stamp(heartbeat)}))
    if ended is not None:
        note = orjson.dumps({"time": stamp(ended), "failed": failed})
        storage.write_bytes(run.attempt_file(number, "ended"), note)


def write_steps(run: RunLayout, number: int, ends: dict[int, float], **more: object) -> None:
    lines = [
        {"step": step, "time": stamp(end), "step_s": 10.0, "data_wait_s": 0.0, "checkpoint_stall_s": 0.0, **more}
        for step, end in ends.items()
    ]
    storage.write_bytes(storage.join(run.metrics, part_name(number, 1)), b"\n".join(map(orjson.dumps, lines)) + b"\n")


def test_each_machine_is_counted_once() -> None:
    """Two workers on one machine, or a worker beside the head, do not pay twice."""
    rate = rate_of([HEAD, SPOT, SPOT, HEAD], Prices())
    assert [each.machine for each in rate.machines] == [HEAD, SPOT]
    assert rate.usd_per_hour == pytest.approx(0.192 + 0.4028)
    assert rate.unknown == ()


def test_a_machine_without_a_price_makes_the_rate_unknown_and_is_named() -> None:
    """Never 0, and never the sum of the others."""
    rate = rate_of([HEAD, OWN, Machine("x", "p5e.48xlarge", "spot", "us-east-2")], Prices())
    assert rate.usd_per_hour is None
    assert rate.unknown == ("a machine of no known cloud", "p5e.48xlarge (spot, us-east-2)")


def test_one_s_own_price_is_every_machine_s() -> None:
    """budget.usd_per_machine_hour is for the machines that no table knows, and holds for all."""
    assert rate_of([HEAD, OWN], Prices(flat=2.5)).usd_per_hour == 5.0
    own = PriceTable([PriceList("mine", date(2026, 5, 1), "spot", {"us-east-1": {"g5.xlarge": 0.1}})])
    assert rate_of([HEAD, SPOT], Prices(own=own)).usd_per_hour == pytest.approx(0.192 + 0.1)


def test_only_prices_in_use_are_called_old() -> None:
    """A table has prices of several days; who uses the fresh ones hears nothing."""
    mine = Prices(own=PriceTable([PriceList("mine", date(2026, 5, 1), "spot", {"us-east-1": {"g5.xlarge": 0.1}})]))
    rate = rate_of([SPOT, OWN], mine)
    assert old_prices(rate, mine, date(2026, 5, 20)) is None
    assert "142 days old (of 2026-05-01, mine)" in str(old_prices(rate, mine, date(2026, 9, 20)))
    assert old_prices(rate_of([SPOT], Prices(flat=1.0)), Prices(flat=1.0), date(2099, 1, 1)) is None


def test_attempts_of_one_command_add_up_with_the_time_between_them(run: RunLayout) -> None:
    """Ten minutes at 6 USD, five of waiting at the next attempt's 3 USD, and that attempt's twenty at 3 USD."""
    prices = Prices(flat=3.0)
    write_attempt(run, 1, 0, command=1, ended=600, failed=True)
    note_rate(run, 1, rate_of([HEAD, SPOT], prices))
    write_attempt(run, 2, 900, command=1, heartbeat=2100)
    note_rate(run, 2, rate_of([HEAD], prices))
    write_attempt(run, 3, 2100, command=1)
    history = read_history(run, 3, prices)
    assert history.claimed == NOON + 2100
    spent = history.spent(3.0)
    assert spent.usd == pytest.approx(6 * 600 / 3600 + 3 * 300 / 3600 + 3 * 1200 / 3600)
    assert spent.seconds == 2100


def test_the_time_between_two_commands_costs_nothing(run: RunLayout) -> None:
    """A night between them is nobody's, in money and in hours."""
    prices = Prices(flat=3.0)
    write_attempt(run, 1, 0, command=1, ended=600)
    note_rate(run, 1, rate_of([HEAD], prices))
    write_attempt(run, 2, 40_000, command=2)
    spent = read_history(run, 2, prices).spent(3.0)
    assert (spent.usd, spent.seconds) == (pytest.approx(0.5), 600)


def test_what_was_told_is_never_taken_back(run: RunLayout) -> None:
    """A killed attempt's last line of metrics is younger than its last heartbeat."""
    write_attempt(run, 1, 0, command=1, heartbeat=590)
    note_rate(run, 1, rate_of([HEAD], Prices(flat=3.0)))
    write_steps(run, 1, {1: 600}, cost_usd=0.5)
    write_attempt(run, 2, 1000, command=2)
    assert read_history(run, 2, Prices(flat=3.0)).spent(3.0).usd == 0.5


def test_an_attempt_that_died_before_it_knew_its_cost_is_counted_with_the_others_rate(run: RunLayout) -> None:
    """Machines that came and went within the start have cost money too."""
    write_attempt(run, 1, 0, command=1, ended=600, failed=True)
    write_attempt(run, 2, 600, command=1)
    assert read_history(run, 2, Prices(flat=3.0)).spent(6.0).usd == pytest.approx(1.0)


def test_a_price_that_comes_later_is_put_on_what_was_unknown(run: RunLayout) -> None:
    """A run that was begun without a price need not stay without."""
    write_attempt(run, 1, 0, command=1, ended=600)
    note_rate(run, 1, rate_of([OWN], Prices()))
    write_attempt(run, 2, 900, command=2)
    assert read_history(run, 2, Prices()).spent(None).usd is None
    assert read_history(run, 2, Prices(flat=6.0)).spent(6.0).usd == pytest.approx(1.0)
    assert cost_account(run, account(run)).usd == pytest.approx(1.0)


def test_the_account_puts_money_on_every_part_but_idle(run: RunLayout) -> None:
    """Lost work among them; the parts are the whole."""
    write_attempt(run, 1, 0, command=1, ended=60, failed=True)
    storage.write_bytes(run.attempt_from(1, 0), orjson.dumps({"time": stamp(5)}))
    write_steps(run, 1, {1: 20, 2: 30, 3: 40})
    note_rate(run, 1, rate_of([HEAD], Prices(flat=360.0)))
    write_attempt(run, 2, 100, command=1, ended=200)
    storage.write_bytes(run.attempt_from(2, 1), orjson.dumps({"time": stamp(110)}))
    write_steps(run, 2, {2: 130, 3: 140})
    note_rate(run, 2, rate_of([HEAD, OWN], Prices(flat=360.0)))
    found = cost_account(run, account(run))
    assert found.by_part is not None and found.usd is not None
    assert found.lost_work_usd == pytest.approx(20 * 0.1)
    assert found.by_part["productive"] == pytest.approx(10 * 0.1 + 20 * 0.2)
    assert found.by_part["idle"] == 0.0
    assert found.usd == pytest.approx(sum(found.by_part.values())) == pytest.approx(60 * 0.1 + 140 * 0.2)


def test_without_a_price_the_account_is_unknown(run: RunLayout) -> None:
    """Nothing is shown rather than 0."""
    write_attempt(run, 1, 0, command=1, ended=60)
    assert cost_account(run, account(run)).record() == {"usd": None, "lost_work_usd": None, "by_part": None}
    note_rate(run, 1, rate_of([OWN], Prices()))
    assert cost_account(run, account(run)).usd is None
