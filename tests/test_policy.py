"""policy: when a run saves, grows and gives up, as pure functions; the intervals are those of the papers."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaletrain import policy


@pytest.mark.parametrize(("hours", "minutes"), [(24, 117), (6, 57), (0.25, 9.1)])
def test_the_best_interval_is_that_of_dalys_examples(hours: float, minutes: float) -> None:
    """Daly 2006, figures 3 to 5: a dump of 5 minutes, and losses every 24 h, 6 h and 15 min."""
    half_a_digit = 0.05 if minutes < 10 else 0.5
    assert policy.best_interval_s(300, hours * 3600) / 60 == pytest.approx(minutes, abs=half_a_digit)


@given(st.floats(0.1, 100), st.floats(1_000, 1e6), st.floats(0, 500))
def test_no_other_interval_has_a_shorter_expected_time(stall_s: float, mean_s: float, restart_s: float) -> None:
    """The formula's interval is within 0.1% of the best that the complete model has."""

    def wall_s(interval_s: float) -> float:
        return policy.expected_wall_s(
            1e5, interval_s=interval_s, stall_s=stall_s, restart_s=restart_s, between_losses_s=mean_s
        )

    best_s = policy.best_interval_s(stall_s, mean_s)
    assert wall_s(best_s) <= 1.001 * min(wall_s(best_s * factor) for factor in (0.5, 0.8, 0.9, 1.1, 1.25, 2))


def test_the_best_interval_at_its_ends() -> None:
    """Nothing lost: never; saves without a stall: as fast as uploads go; saves longer than machines live: M."""
    assert policy.best_interval_s(10, math.inf) == math.inf
    assert policy.best_interval_s(0, 3600, upload_s=40) == 40
    assert policy.best_interval_s(0.001, 100, upload_s=40) == 40
    assert policy.best_interval_s(300, 100) == 100
    assert policy.young_interval_s(2, 100) == 20


def test_the_expected_time_without_losses_is_work_and_saves() -> None:
    """A tenth of each interval's length is saving."""
    expected = policy.expected_wall_s(1000, interval_s=100, stall_s=10, restart_s=5, between_losses_s=math.inf)
    assert expected == pytest.approx(1100)
    nearly = policy.expected_wall_s(1000, interval_s=100, stall_s=10, restart_s=5, between_losses_s=1e9)
    assert nearly == pytest.approx(1100, rel=1e-5)


@given(st.integers(0, 500), st.integers(1, 50))
def test_the_next_save_is_the_first_that_is_due(step: int, every_steps: int) -> None:
    """And where the attempt ends, any step is saved."""
    due = next(
        each for each in range(step + 1, step + 51) if policy.save_is_due(each, every_steps=every_steps, ending=False)
    )
    assert policy.next_save_step(step, every_steps=every_steps) == due
    assert policy.save_is_due(step, every_steps=every_steps, ending=True)


@pytest.mark.parametrize(
    ("left_s", "takes_s", "under_way_for_s", "fits"),
    [
        (0, None, None, True),  # nobody knows yet
        (30, 30, None, True),
        (29, 30, None, False),
        (50, 30, 10, True),  # 20 s more of the one under way, and 30 s
        (49, 30, 10, False),
        (30, 30, 45, True),  # late already: it may end at any moment
    ],
)
def test_a_save_fits_by_what_the_last_one_took(
    *, left_s: float, takes_s: float | None, under_way_for_s: float | None, fits: bool
) -> None:
    """One that is under way comes first."""
    assert policy.save_fits(left_s, takes_s=takes_s, under_way_for_s=under_way_for_s) is fits


def test_more_workers_are_taken_in_when_all_are_there_or_no_more_come() -> None:
    """Not before the group has trained for as long as its start took."""
    from_s = policy.growth_from_s(began_s=100, first_step_s=140)
    assert from_s == 180

    def grows(*, there: int, now_s: float, unchanged_s: float) -> bool:
        return policy.should_grow(there=there, missing=2, now_s=now_s, from_s=from_s, unchanged_s=unchanged_s)

    assert grows(there=2, now_s=180, unchanged_s=0)
    assert not grows(there=2, now_s=179, unchanged_s=50)
    assert not grows(there=1, now_s=200, unchanged_s=4)
    assert grows(there=1, now_s=200, unchanged_s=5)
    assert not grows(there=0, now_s=200, unchanged_s=50)


def test_a_run_starts_with_less_once_no_more_is_coming() -> None:
    """A new run waits for machines on their way, three minutes at most; one that has begun goes on at once."""

    def takes(waited_s: float, *, is_coming: bool, eager: bool) -> bool:
        return policy.takes_what_is_there(
            waited_s, unchanged_s=waited_s, is_coming=is_coming, autoscales=True, eager=eager
        )

    assert not takes(100, is_coming=True, eager=False)
    assert takes(180, is_coming=True, eager=False)
    assert takes(10, is_coming=False, eager=False)
    assert takes(3, is_coming=True, eager=True)
    assert not takes(1, is_coming=False, eager=True)


@st.composite
def shared(draw: st.DrawFn) -> tuple[int, list[int], int, int]:
    """Room, what each of some runs may have so far (0: it waits), and the least and the most that each may have."""
    least = draw(st.integers(1, 4))
    most = draw(st.integers(least, 12))
    shares = draw(st.lists(st.just(0) | st.integers(least, most), max_size=8))
    return draw(st.integers(0, 60)), shares, least, most


@given(shared())
def test_everybody_has_the_least_before_anybody_has_more(case: tuple[int, list[int], int, int]) -> None:
    """Who is at work keeps the least; nobody waits for whom there is room; no worker is promised twice."""
    room, before, least, most = case
    found = policy.fair_share(room, before, least=least, most=most)
    working = [share for share in found if share]
    assert all(least <= share <= most for share in working)
    assert all(share for share, so_far in zip(found, before, strict=True) if so_far)
    assert sum(found) <= max(room, least * len(working))
    if len(working) < len(before):
        assert working and room - least * len(working) < least
    idle = room - sum(found)
    assert idle <= 0 or all(share == most for share in working)


@given(shared())
def test_nobody_gives_back_unless_another_begins_or_machines_are_gone(case: tuple[int, list[int], int, int]) -> None:
    """Otherwise shares only grow; where one begins all are as good as equal, and asked again nothing changes."""
    room, before, least, most = case
    found = policy.fair_share(room, before, least=least, most=most)
    has_begun = any(share and not so_far for share, so_far in zip(found, before, strict=True))
    if has_begun or sum(before) > room:
        working = [share for share in found if share]
        assert not working or max(working) - min(working) <= 1
    else:
        assert all(share >= so_far for share, so_far in zip(found, before, strict=True))
    assert policy.fair_share(room, found, least=least, most=most) == found


@given(shared())
def test_who_is_about_to_begin_finds_its_share_ready(case: tuple[int, list[int], int, int]) -> None:
    """One after the other begins without a change for those before it."""
    room, before, least, most = case
    found = policy.fair_share(room, before, least=least, most=most)
    some_begun = [share if so_far else 0 for share, so_far in zip(found, before, strict=True)]
    assert policy.fair_share(room, some_begun, least=least, most=most) == found


def test_shares_change_as_little_as_may_be() -> None:
    """Of five workers the odd one stays where it is, and idle ones go to who has least."""
    assert policy.fair_share(5, [2, 0], least=1, most=4) == [3, 2]
    assert policy.fair_share(5, [2, 3], least=1, most=4) == [2, 3]
    assert policy.fair_share(5, [1, 4, 0], least=1, most=4) == [2, 2, 1]
    assert policy.fair_share(4, [1, 3, 0], least=1, most=4) == [1, 2, 1]
    assert policy.fair_share(6, [3, 1], least=1, most=4) == [3, 3]
    assert policy.fair_share(0, [0, 0], least=2, most=4) == [2, 0]


def test_machines_on_their_way_are_shared_until_somebody_has_waited_for_long() -> None:
    """Then only those are that there are. Who was at work, and makes no step, waits too, but for slow steps."""
    assert policy.lacks_machines(180, step_s=0)
    assert not policy.lacks_machines(180, step_s=60)
    assert policy.room_to_share(there=2, may_come=8, longest_wait_s=179) == 8
    assert policy.room_to_share(there=2, may_come=8, longest_wait_s=180) == 2


def test_what_is_up_already_is_asked_first() -> None:
    """Else the order is that of the cluster file; each gets an equal share of the time."""
    rooms = {"a": 0, "b": 4, "c": 0}
    assert policy.order_candidates(rooms, room_now=rooms.__getitem__) == ["b", "a", "c"]
    assert policy.share_of_wait_s(1200, 3) == 400
