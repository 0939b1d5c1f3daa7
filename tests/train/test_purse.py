"""purse: a run counts what it costs, warns by forecast, and stops, saved, before its budget is passed."""

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from scaletrain import attempts, checkpoint
from scaletrain.config_budget import BudgetSection
from scaletrain.cost import Prices, Rate, Spent, check_budget, cost_account, rate_of
from scaletrain.errors import BudgetError
from scaletrain.goodput import account
from scaletrain.layout import RunLayout
from scaletrain.metrics import read_attempt_records
from scaletrain.this_machine import Machine
from scaletrain.train.job import Accounting
from scaletrain.train.purse import Purse
from workers import Prepared, make_job, run_processes

ALWAYS: Callable[[float], bool] = lambda left_s: True  # noqa: E731


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def rate(usd_per_hour: float | None) -> Rate:
    return rate_of([Machine("one")], Prices(flat=usd_per_hour))


def make_purse(
    clock: Clock,
    *,
    before: Spent | None = None,
    price: float | None = 3600.0,
    warn: Callable[[str], object] = print,
    **budget: float,
) -> Purse:
    """A purse of a run of 100 steps whose machines cost a dollar a second."""
    section, spent = BudgetSection.model_validate(budget), before or Spent(0.0, 0.0)
    return Purse(section, rate(price), spent, total_steps=100, warn=warn, clock=clock)


def make_steps(purse: Purse, clock: Clock, steps: range, *, step_s: float = 2.0) -> list[Any]:
    found = []
    for step in steps:
        clock.now += step_s
        found.append(purse.step_ended(step, step_s))
    return found


def test_money_is_counted_by_the_clock_from_what_was_spent_before() -> None:
    """Waiting and saving cost as much as steps."""
    clock = Clock()
    purse = make_purse(clock, before=Spent(7.0, 70.0))
    clock.now += 30
    assert purse.spent() == Spent(37.0, 100.0)


def test_an_unknown_price_leaves_the_hours() -> None:
    """The cost is absent, never 0, and hours are counted all the same."""
    clock = Clock()
    purse = make_purse(clock, price=None, hours=1.0)
    clock.now += 30
    assert purse.spent() == Spent(None, 30.0)
    assert not purse.must_stop(ALWAYS)
    clock.now += 3600
    assert purse.must_stop(ALWAYS)


def test_the_forecast_is_what_is_spent_and_the_steps_that_are_left() -> None:
    """It waits for some steps, since the first one has the start in it."""
    clock = Clock()
    forecasts = make_steps(make_purse(clock), clock, range(1, 6))
    assert forecasts[:4] == [None] * 4
    assert forecasts[4].usd == pytest.approx(10 + 95 * 2)
    assert forecasts[4].hours == pytest.approx(200 / 3600)


def test_one_warning_says_that_the_budget_will_not_do() -> None:
    """With what it will need; a budget that does is not spoken of."""
    clock, told = Clock(), []
    make_steps(make_purse(clock, warn=told.append, usd=201.0, hours=1.0), clock, range(1, 10))
    assert told == []
    make_steps(make_purse(clock, warn=told.append, usd=150.0, hours=0.05), clock, range(1, 10))
    (line,) = told
    assert "200.00 USD (budget.usd=150) and 0.06 h (budget.hours=0.05) until step 100" in line


def test_it_stops_while_a_save_still_fits() -> None:
    """The step under way, another one, and the save have to go into what is left."""
    clock = Clock()
    purse = make_purse(clock, usd=30.0)
    make_steps(purse, clock, range(1, 11))  # 20 USD by now
    asked: list[float] = []
    assert not purse.must_stop(lambda left_s: asked.append(left_s) or True)
    assert asked == [pytest.approx(30 - 20 - 2 * 2)]
    purse.check_spent(10)
    assert purse.must_stop(lambda left_s: left_s > 7)
    with pytest.raises(BudgetError, match=r"stopped at step 11 of 100, saved: .*20.00 USD of budget.usd=30; the same"):
        purse.check_spent(11)


def test_the_start_is_refused_where_nothing_is_left_or_nothing_is_known() -> None:
    """In money and in hours, with the setting to change."""
    check_budget(BudgetSection(usd=5.0, hours=2.0), Spent(4.9, 7000.0), rate(1.0))  # type: ignore[call-arg]
    check_budget(BudgetSection(hours=2.0), Spent(None, 7000.0), rate(None))  # type: ignore[call-arg]
    with pytest.raises(BudgetError, match=r"budget.usd=5 is spent: the run has cost 5.00 USD so far; raise it"):
        check_budget(BudgetSection(usd=5.0), Spent(5.0, 0.0), rate(1.0))  # type: ignore[call-arg]
    with pytest.raises(BudgetError, match=r"budget.hours=2 are spent: the run has taken 2.00 h"):
        check_budget(BudgetSection(hours=2.0), Spent(None, 7200.0), rate(None))  # type: ignore[call-arg]
    for usd in (None, 0.0):  # a run that was not begun has cost nothing, but what it will cost is not known
        with pytest.raises(
            BudgetError, match=r"no price for a machine of no known cloud; set budget.usd_per_machine_h"
        ):
            check_budget(BudgetSection(usd=5.0), Spent(usd, 0.0), rate(None))  # type: ignore[call-arg]


# --- real runs, whose machines cost so much that a budget is spent in a moment ----------------------------------------


def _train(worker: Any, job: Any, dies_at: int) -> int:
    from scaletrain.train.loop import train

    calls = 0

    def must_leave() -> bool:
        nonlocal calls
        calls += 1
        if dies_at and calls >= dies_at and worker.rank == 1:
            os._exit(1)
        return False

    return train(job, worker, should_stop=lambda: False, must_leave=must_leave)


def run_attempt(prepared: Prepared, name: str, *, dies_at: int = 0, **settings: object) -> RunLayout:
    """Run an attempt of two workers on this machine, beside a driver on another one, at 3600 USD an hour each.

    In step `dies_at` one of them is killed.
    """
    run = RunLayout(prepared.root, name)
    attempt = attempts.claim(run)
    job = make_job(prepared, name, attempt=attempt, train__steps=8, checkpoint__every_steps=2, **settings)
    accounting = Accounting(Machine("head"), Prices(flat=3600.0), asks_cloud=False)
    with attempts.Heartbeat(run, attempt):
        run_processes(2, _train, replace(job, accounting=accounting), dies_at)
    return run


def test_a_run_is_stopped_by_its_budget_and_goes_on_with_a_higher_one(prepared: Prepared) -> None:
    """After one step, saved; what it cost before is the beginning of what it costs then."""
    with pytest.raises(BudgetError, match=r"stopped at step 1 of 8, saved: .* of budget.usd=0.001; the same command"):
        run_attempt(prepared, "budget", budget__usd=0.001)
    with pytest.raises(BudgetError, match=r"budget.usd=0.001 is spent: the run has cost"):
        run_attempt(prepared, "budget", budget__usd=0.001)
    run = run_attempt(prepared, "budget", budget__usd=1e6)
    newest = checkpoint.latest(run)
    assert newest is not None and newest.step == 8
    lines = [
        line for _, steps in sorted(read_attempt_records(run.metrics).items()) for _, line in sorted(steps.items())
    ]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert {line["usd_per_hour"] for line in lines} == {7200.0}
    costs = [float(str(line["cost_usd"])) for line in lines]
    assert costs == sorted(costs) and costs[0] > 0.001
    found = cost_account(run, account(run))
    assert found.usd is not None and found.usd >= 0.99 * costs[-1]


def test_what_a_killed_attempt_cost_is_part_of_the_run_s_cost(prepared: Prepared) -> None:
    """Its steps after the last commit are lost work, in money too."""
    with pytest.raises((AssertionError, RuntimeError)):
        run_attempt(prepared, "killed", dies_at=6)
    run = run_attempt(prepared, "killed")
    records = read_attempt_records(run.metrics)
    costs = [
        [float(str(line["cost_usd"])) for _, line in sorted(steps.items())] for _, steps in sorted(records.items())
    ]
    assert len(costs) == 2 and costs[0] and costs[1][0] > costs[0][-1] > 0
    found = cost_account(run, account(run))
    assert found.usd is not None and found.lost_work_usd is not None
    assert found.usd >= found.lost_work_usd > 0


def test_without_a_price_lines_have_no_cost(prepared: Prepared) -> None:
    """Absent, so that nobody adds it up as 0."""
    run = RunLayout(prepared.root, "unpriced")
    job = make_job(prepared, "unpriced", attempt=attempts.claim(run), workers=1, train__steps=2)
    accounting = Accounting(Machine("head"), Prices(), asks_cloud=False)
    run_processes(1, _train, replace(job, accounting=accounting), 0)
    (steps,) = read_attempt_records(run.metrics).values()
    assert all("cost_usd" not in line and "usd_per_hour" not in line for line in steps.values())
