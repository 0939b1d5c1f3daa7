"""The soak's schedule is a function of its seed, and its accounts are right about what an arm left behind."""

import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from soaking.account import Hit, make_account
from soaking.observed import Commit, Flip, Line, Observed, Resume, observed_of
from soaking.schedule import KINDS, Fault, make_schedule


def schedule(seed: int, *, count: int = 40, sitting: int = 1) -> list[Fault]:
    return make_schedule(seed, sitting=sitting, count=count, mean_s=60, kinds=list(KINDS))


def steps(attempt: int, first: int, last: int, *, since: float, samples: bool = False) -> list[Line]:
    """One step a second; step n has the samples 2n and 2n + 1."""
    return [
        Line(since + n - first, attempt, n, 0.5, 2, (2 * n, 2 * n + 1) if samples else ())
        for n in range(first, last + 1)
    ]


@pytest.mark.parametrize("seed", range(20))
def test_a_schedule_has_every_kind_twice_and_keeps_its_distances(seed: int) -> None:
    """Forty faults: every kind twice at least, never two within 20 s, a minute apart on the mean, in the long run."""
    found = schedule(seed)
    assert found == schedule(seed)
    assert found != schedule(seed + 1)
    assert found != schedule(seed, sitting=2)
    assert [fault.number for fault in found] == list(range(40))
    assert min(Counter(fault.kind for fault in found)[kind] for kind in KINDS) >= 2
    assert min(after.at_s - before.at_s for before, after in pairwise(found)) >= 19.9
    assert schedule(seed, count=4000)[-1].at_s / 4000 == pytest.approx(60, rel=0.1)


def test_a_killed_worker_costs_a_pause_and_the_steps_since_the_commit() -> None:
    """The pause ends with the first step that is new, not with those that are done again."""
    seen = Observed(
        lines=[*steps(1, 1, 24, since=101), *steps(2, 21, 40, since=150)],
        commits=[Commit(120, 1, 20)],
        resumes=[Resume(100, 99, 1, 0, True), Resume(149, 130, 2, 20, True)],
    )
    account = make_account(observed_of(seen.record()), [Hit(0, "worker-killed", 124.5, 1)], began=100, ended=170)
    [cost] = account.costs
    assert cost.pause_s == pytest.approx(154 - 124.5)
    assert (cost.done_again, account.done_again, account.steps, account.lost) == (4, 4, 40, 0)
    assert account.productive_s / account.wall_s == pytest.approx(40 * 0.5 / 70)
    assert (account.resumes, account.whole_resumes) == (1, 1)


def test_a_fault_that_works_later_is_charged_with_the_pause_that_it_makes() -> None:
    """After a notice training goes on for a while: the longest time without a new step counts, up to the next fault."""
    seen = Observed(lines=[*steps(1, 1, 20, since=101), *steps(2, 21, 60, since=160), *steps(3, 61, 70, since=300)])
    hits = [Hit(0, "notice-30s", 110.5, 1), Hit(1, "worker-killed", 200, 1)]
    costs = make_account(seen, hits, began=100, ended=320).costs
    assert [cost.pause_s for cost in costs] == [pytest.approx(40), pytest.approx(100)]


def test_a_pause_goes_on_through_the_next_fault() -> None:
    """Also where a step was under way at the first fault: that all stood still when the next one came is its doing."""
    seen = Observed(lines=[*steps(1, 1, 11, since=100.1), *steps(2, 12, 20, since=200)])
    hits = [Hit(0, "driver-killed", 110, 1), Hit(1, "worker-killed", 130, 1)]
    costs = make_account(seen, hits, began=100, ended=300).costs
    assert [cost.pause_s for cost in costs] == [pytest.approx(89.9), pytest.approx(70)]


def test_a_fault_that_nothing_came_after_has_no_end() -> None:
    """Without a new step after it, there is no pause to tell."""
    [cost] = make_account(Observed(lines=steps(1, 1, 9, since=101)), [Hit(0, "k", 120, 1)], began=100, ended=500).costs
    assert cost.pause_s is None


def test_a_commit_that_was_not_gone_on_from_is_lost() -> None:
    """Twenty steps had been committed, and the next attempt began ten before; the one after it is not charged again."""
    seen = Observed(
        commits=[Commit(110, 1, 10), Commit(120, 1, 20)],
        resumes=[Resume(149, 130, 2, 10, True), Resume(249, 230, 3, 10, True)],
    )
    assert make_account(seen, [], began=100, ended=300).lost == 10


@pytest.mark.parametrize(
    ("flips", "commit", "resumed"),
    [
        pytest.param([Flip(125, 20)], Commit(120, 1, 20), 10, id="it had been damaged"),
        pytest.param([], Commit(131, 1, 20), 10, id="it came after the next attempt was claimed"),
    ],
)
def test_a_commit_that_need_not_be_found_is_not_lost(flips: list[Flip], commit: Commit, resumed: int) -> None:
    """Neither a damaged checkpoint nor one of an attempt that had been replaced counts as lost."""
    seen = Observed(commits=[Commit(110, 1, 10), commit], resumes=[Resume(149, 130, 2, resumed, True)], flips=flips)
    assert make_account(seen, [], began=100, ended=300).lost == 0


def test_a_resume_from_a_damaged_checkpoint_is_told() -> None:
    """Unless the step was committed anew since its bit was flipped."""
    damaged = Observed(commits=[Commit(120, 1, 20)], resumes=[Resume(149, 149, 2, 20, None)], flips=[Flip(125, 20)])
    assert make_account(damaged, [], began=100, ended=300).damaged_resumes == 1
    damaged.commits.append(Commit(140, 2, 20))
    assert make_account(damaged, [], began=100, ended=300).damaged_resumes == 0


def test_a_pass_that_begins_anew_repeats_its_samples() -> None:
    """A resumed attempt that reads from the beginning repeats what the pass before had read."""
    again = [Line(200 + n, 2, 10 + n, 0.5, 2, (2 * n, 2 * n + 1)) for n in range(1, 6)]
    seen = Observed(
        lines=[*steps(1, 1, 10, since=101, samples=True), *again],
        resumes=[Resume(100, 99, 1, 0, None), Resume(199, 199, 2, 10, None)],
    )
    assert make_account(seen, [], began=100, ended=300).repeated_samples == 10
