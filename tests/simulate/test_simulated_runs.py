"""engine: the laws of simulated runs: time adds up, no commit is lost, losses cost, and closed forms hold."""

import math
import statistics
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import HOUR_S, plain, pool, pools_of_all_kinds, settings_of_all_kinds

from scaletrain import policy
from scaletrain.simulate.engine import play
from scaletrain.simulate.machines import Machines
from scaletrain.simulate.series import Series
from scaletrain.simulate.setting import Outcome, Pool, Setting


def play_all(setting: Setting, pools: list[Pool], runs: int) -> list[Outcome]:
    return [play(setting, pools, seed=0, index=index) for index in range(runs)]


@settings(max_examples=150, deadline=None)
@given(settings_of_all_kinds(), pools_of_all_kinds(), st.integers(0, 3))
def test_time_adds_up_and_no_commit_is_lost(setting: Setting, pools: list[Pool], index: int) -> None:
    """Whatever happens: parts sum to the whole, and each attempt goes on from the newest commit and not from less."""
    outcome = play(setting, pools, seed=1, index=index)
    assert outcome.parts.total_s == pytest.approx(outcome.wall_s, rel=1e-9, abs=1e-6)
    committed, clock_s = 0, 0.0
    for attempt in outcome.attempts:
        assert attempt.resumed_from == committed
        assert committed <= attempt.committed <= attempt.resumed_from + attempt.steps_done
        assert setting.least <= attempt.workers <= setting.most
        assert clock_s <= attempt.began_s <= attempt.ended_s
        committed, clock_s = attempt.committed, attempt.ended_s
    assert (committed == setting.steps) is outcome.finished
    done = sum(attempt.steps_done for attempt in outcome.attempts)
    assert done == committed + outcome.lost_steps


@settings(max_examples=40, deadline=None)
@given(settings_of_all_kinds(), pools_of_all_kinds())
def test_the_same_seed_gives_the_same_run(setting: Setting, pools: list[Pool]) -> None:
    """And every figure of it."""
    assert play(setting, pools, seed=3, index=5) == play(setting, pools, seed=3, index=5)


def test_without_interruptions_the_closed_form_holds() -> None:
    """Machines come, the group starts, steps and stalls, and the last upload; each machine is paid for all the time."""
    setting = plain(stall_s=3, upload_s=20, launch_s=180, start_s=7, head_usd_per_hour=0.5)
    outcome = play(setting, [pool()], seed=0, index=0)
    assert outcome.wall_s == pytest.approx(180 + 7 + 1000 * 2 + 10 * 3 + 20)
    assert (outcome.parts.productive_s, outcome.parts.checkpoint_stall_s) == pytest.approx((2000, 30))
    assert (outcome.parts.waiting_s, outcome.parts.shut_down_s) == pytest.approx((180, 20))
    assert outcome.usd * HOUR_S == pytest.approx(0.5 * outcome.wall_s + 4 * (outcome.wall_s - 180))


def test_saves_wait_for_uploads_that_take_longer_than_their_interval() -> None:
    """One save is under way at a time."""
    outcome = play(plain(every_steps=10, stall_s=1, upload_s=50), [pool()], seed=0, index=0)
    assert outcome.wall_s == pytest.approx(20 + 99 * 51 + 51)


@pytest.mark.parametrize("losses_an_hour", [0.1, 0.5, 2.0])
def test_the_mean_agrees_with_dalys_formula(losses_an_hour: float) -> None:
    """Losses of four machines at exponential times, also during restarts, without notice: Daly's complete model."""
    setting = plain(stall_s=10, start_s=30)
    between_s = HOUR_S / (4 * losses_an_hour)
    walls_s = [each.wall_s for each in play_all(setting, [pool(losses_an_hour)], 1500)]
    expected_s = policy.expected_wall_s(
        2000, interval_s=200, stall_s=10, restart_s=30, between_losses_s=between_s
    ) + between_s * math.expm1(30 / between_s)  # the first start, which may be lost too
    error_s = statistics.stdev(walls_s) / len(walls_s) ** 0.5
    assert abs(statistics.fmean(walls_s) - expected_s) < 3.5 * error_s


@pytest.mark.parametrize("notice_s", [0.0, 30.0])
def test_more_interruptions_never_cost_less(notice_s: float) -> None:
    """On the mean, in hours and in money. (One more may by chance shift a save to just before the next.)"""
    setting = plain(least=2, stall_s=2, upload_s=20, start_s=30, launch_s=120, notice_s=notice_s)
    found = [play_all(setting, [pool(rate)], 150) for rate in (0.0, 0.2, 0.8, 2.5)]
    hours = [statistics.fmean(each.wall_s for each in outcomes) for outcomes in found]
    usd = [statistics.fmean(each.usd for each in outcomes) for outcomes in found]
    assert hours == sorted(hours)
    assert usd == sorted(usd)


def test_many_machines_fail_as_one_process() -> None:
    """In ten hours 50 spot machines that are taken 0.1 times an hour are lost as often as each alone would be."""
    setting, counts = plain(most=50, least=50), []
    for index in range(300):
        machines = Machines(setting, pool(0.1), Random(index), offset_s=0.0)
        machines.ask(50)
        machines.advance(0.0)
        count = 0
        while machines.now_s < 10 * HOUR_S:
            if loss := machines.advance(10 * HOUR_S):
                machines.lose(loss)
                machines.ask(50)
                count += 1
        counts.append(count)
    assert statistics.fmean(counts) == pytest.approx(50, abs=4 * (50 / 300) ** 0.5)
    assert statistics.variance(counts) == pytest.approx(50, rel=0.35)  # a Poisson process: its variance is its mean


def test_a_notice_saves_what_would_be_lost() -> None:
    """With time enough no step is done again; with too little, no more is saved than without a notice."""
    told = play_all(plain(upload_s=20, stall_s=1, notice_s=120), [pool(1.0)], 40)
    assert sum(each.lost_steps for each in told) == 0
    assert sum(each.saved_in_time for each in told) > 40
    too_late = play_all(plain(upload_s=20, stall_s=1, notice_s=10), [pool(1.0)], 40)
    assert sum(each.saved_in_time for each in too_late) == 0
    assert sum(each.lost_steps for each in too_late) > 1000


def test_what_the_policy_says_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rules are asked, not repeated: with others, runs go otherwise."""
    setting, taken = plain(least=2, upload_s=20, notice_s=120, launch_s=60, start_s=5), [pool(1.0)]
    with monkeypatch.context() as patch:
        patch.setattr(policy, "save_fits", lambda left_s, **_: False)
        assert sum(each.saved_in_time for each in play_all(setting, taken, 20)) == 0
    assert sum(each.growths for each in play_all(setting, taken, 20)) > 10
    with monkeypatch.context() as patch:
        patch.setattr(policy, "should_grow", lambda **_: False)
        assert sum(each.growths for each in play_all(setting, taken, 20)) == 0
    with monkeypatch.context() as patch:
        patch.setattr(policy, "gives_up", lambda fruitless: fruitless >= 1)
        lost_often = [pool(20.0)]
        assert sum(each.commands for each in play_all(plain(start_s=60), lost_often, 2)) > 10


def test_with_fewer_workers_a_run_goes_on_and_grows_again() -> None:
    """After each loss with one machine less, until the new one is there and another start is worth it."""
    setting = plain(least=2, launch_s=120, start_s=10)
    outcome = play(setting, [pool(0.5)], seed=0, index=1)
    workers = [attempt.workers for attempt in outcome.attempts]
    assert outcome.finished
    assert 3 in workers
    assert workers[0] == 4
    assert any(attempt.why == "grew" for attempt in outcome.attempts)


def test_no_more_machines_are_held_than_there_is_capacity_for() -> None:
    """Six machines by day, two by night: a run of two to six workers goes on with two."""
    capacity = Series([0.0, 12 * HOUR_S], [6, 2], 24 * HOUR_S)
    setting = plain(steps=100_000, most=6, least=2, notice_s=120, launch_s=60)
    outcome = play(setting, [pool(capacity=capacity)], seed=0, index=0)
    assert outcome.finished
    assert {attempt.workers for attempt in outcome.attempts} == {2, 6}
    assert outcome.lost_steps == 0


def test_where_nothing_comes_the_next_pool_is_asked() -> None:
    """Each for its share of the wait; where none has any, the command ends and is typed again."""
    none = pool(capacity=Series.constant(0.0))
    outcome = play(plain(wait_s=600), [none, pool()], seed=0, index=0)
    assert outcome.finished
    assert outcome.parts.waiting_s == pytest.approx(300)
    hopeless = play(plain(wait_s=600, by_hand_s=60), [none], seed=0, index=0)
    assert not hopeless.finished
    assert hopeless.commands > 10


def test_on_demand_machines_are_never_taken() -> None:
    """They cost more, and a run of them alone is as if there were no interruptions."""
    setting = plain(on_demand_share=1.0)
    outcome = play(setting, [pool(5.0)], seed=0, index=0)
    assert (outcome.losses, outcome.wall_s) == (0, 2000)
    assert outcome.usd == pytest.approx(4 * 3.0 * 2000 / HOUR_S)
