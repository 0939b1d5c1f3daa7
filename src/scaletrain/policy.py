"""The rules a run goes by: when it saves, when another start pays, which machines it asks for, when it gives up.

And one for runs that share machines: how many workers each of them may have.

Pure functions of what is known at that moment, without a clock of their own: `train` asks them while it runs, and
`simulate` drives the same ones through thousands of runs that never took place. Times are seconds.

The interval between saves is after J. W. Young, A first order approximation to the optimum checkpoint interval, 1974
(doi:10.1145/361147.361115), and J. T. Daly, A higher order estimate of the optimum checkpoint interval for restart
dumps, 2006 (doi:10.1016/j.future.2004.11.016).
"""

import heapq
import math
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

MAX_FRUITLESS_RESTARTS = 3  # losses in a row without a commit in between, and the run gives up
NOT_WORTH_S = 120.0  # with less left to train than this, more workers are not asked for
GROWTH_SETTLE_S = 5.0  # machines that were asked for together come a little apart
_POLL_S = 1.0
COMING_SETTLE_S = 10.0  # for the autoscaler to see what is missing
COMING_GRACE_S = 180.0  # for more than the minimum, while machines are on their way
EAGER_S = 2.0  # for Ray to say where places are that there is room for

Candidate = TypeVar("Candidate")


# ---- when to save --------------------------------------------------------------------------------------------------


def save_is_due(step: int, *, every_steps: int, ending: bool) -> bool:
    """Whether the state after `step` is saved: every so many steps, and where the attempt ends."""
    return ending or step % every_steps == 0


def next_save_step(step: int, *, every_steps: int) -> int:
    """The first step after `step` whose state is saved, if the attempt lasts so long."""
    return (step // every_steps + 1) * every_steps


def save_fits(left_s: float, *, takes_s: float | None, under_way_for_s: float | None) -> bool:
    """Whether a save that begins now could be there in time, going by the last one; True where none was made yet.

    `takes_s` is what the last save took until nothing of it was left to do; `under_way_for_s` how long one has been
    under way already, which comes first (None: none is). Nothing is put on top: a save that comes too late costs the
    seconds that were left, one that was not tried the steps since the last.
    """
    if takes_s is None:
        return True
    before_s = takes_s - under_way_for_s if under_way_for_s is not None else 0.0
    return max(0.0, before_s) + takes_s <= left_s


def young_interval_s(stall_s: float, between_losses_s: float) -> float:
    """Training between two saves that costs least, to first order: sqrt(2 stall M) (Young 1974)."""
    return math.sqrt(2 * stall_s * between_losses_s)


def best_interval_s(stall_s: float, between_losses_s: float, *, upload_s: float = 0.0) -> float:
    """Training between two saves that costs least: Daly 2006's higher order estimate, and no less than an upload takes.

    `stall_s` is what a save keeps the step from; `between_losses_s` the mean time between two losses of the whole group
    (infinite: never), which is that of one machine divided by their number. `upload_s`, from the stall's end to the
    commit, goes on beside training and adds the same to every loss, whatever the interval; but one save is under way at
    a time, so that a shorter interval would only wait.
    """
    if stall_s <= 0:
        return upload_s
    if math.isinf(between_losses_s):
        return math.inf
    if stall_s >= 2 * between_losses_s:
        return max(between_losses_s, upload_s)
    ratio = stall_s / (2 * between_losses_s)
    daly_s = young_interval_s(stall_s, between_losses_s) * (1 + math.sqrt(ratio) / 3 + ratio / 9) - stall_s
    return max(daly_s, upload_s)


def expected_wall_s(
    work_s: float, *, interval_s: float, stall_s: float, restart_s: float, between_losses_s: float
) -> float:
    """Mean wall time of `work_s` of training that is saved every `interval_s` of it: Daly 2006's complete model.

    Exact for losses at exponential times without notice, which may also hit a restart, where a save has committed once
    its stall is over, and the last interval is whole. The first start is not in it.
    """
    if math.isinf(between_losses_s):
        return work_s * (1 + stall_s / interval_s)
    mean_s = between_losses_s
    growth = math.expm1((interval_s + stall_s) / mean_s)
    return mean_s * math.exp(restart_s / mean_s) * growth * work_s / interval_s


# ---- when to start again -------------------------------------------------------------------------------------------


def gives_up(fruitless_restarts: int) -> bool:
    """Whether a run ends after so many losses in a row without a commit in between."""
    return fruitless_restarts >= MAX_FRUITLESS_RESTARTS


def growth_is_worth_it(left_s: float) -> bool:
    """Whether so much training is left that missing workers are asked for."""
    return left_s > NOT_WORTH_S


def growth_from_s(*, began_s: float, first_step_s: float) -> float:
    """From when another start is worth it: the group has trained for as long as its own start took.

    Where machines come and go faster than that, the run still spends half of its time on steps.
    """
    return first_step_s + (first_step_s - began_s)


def should_grow(*, there: int, missing: int, now_s: float, from_s: float, unchanged_s: float) -> bool:
    """Whether to go on with the `there` of `missing` workers that have come, whose number has not changed for a time.

    `from_s` is what `growth_from_s` says.
    """
    return there > 0 and now_s >= from_s and (there == missing or unchanged_s >= GROWTH_SETTLE_S)


# ---- which machines to ask for, and for how long -------------------------------------------------------------------


def order_candidates(candidates: Iterable[Candidate], *, room_now: Callable[[Candidate], int]) -> list[Candidate]:
    """The groups of machines in the order they are asked for: what is up already first, else as they are listed."""
    return sorted(candidates, key=lambda each: -room_now(each))


def share_of_wait_s(wait_s: float, candidates: int) -> float:
    """How long each group of machines is asked for before the next one is: an equal share."""
    return wait_s / candidates


def takes_what_is_there(waited_s: float, *, unchanged_s: float, is_coming: bool, autoscales: bool, eager: bool) -> bool:
    """Whether to start with fewer places than wanted, once the least number is there.

    `unchanged_s`: since when their number has been the same; `is_coming`: whether machines are on their way, of a
    cluster that brings any. `eager` is a run that has begun: it goes on with what is up.
    """
    if eager:
        return unchanged_s > EAGER_S
    if not autoscales:
        return waited_s > _POLL_S
    return waited_s >= COMING_GRACE_S or (not is_coming and waited_s >= COMING_SETTLE_S)


# ---- who may have how many workers ---------------------------------------------------------------------------------


def room_to_share(*, there: int, may_come: int, longest_wait_s: float) -> int:
    """How many workers runs share: those that may come count too, until a run has waited for them long enough.

    `there` is what machines that are up have room for, used or not; `may_come` counts what the autoscaler may bring
    with them.
    """
    return may_come if longest_wait_s < COMING_GRACE_S else min(there, may_come)


def lacks_machines(silent_s: float, *, step_s: float) -> bool:
    """Whether a run that was at work seems to wait for machines again: it has made no step for so long.

    `step_s` is what its last step took; one that is slower for once (a validation, say) is given the same time on top.
    """
    return silent_s >= COMING_GRACE_S + 2 * step_s


def fair_share(room: int, shares: Sequence[int], *, least: int, most: int) -> list[int]:
    """How many of `room` workers each of several runs may have, by what each may have so far (0: it waits to begin).

    Who is at work keeps the least number. Who waits gets it, in order, as far as there is room, and the very first
    where nobody is at work in any case: that it finds no machines is for itself to tell. All others wait on, at 0.

    The rest goes to those who have least, up to `most` each. A change costs another start, so that a run gives
    back what is above its fair share only where one begins, or where there is no longer room for what all may have.
    """
    at_work = [place for place, share in enumerate(shares) if share]
    waiting = [place for place, share in enumerate(shares) if not share]
    fitting = max(1, room // least)
    begin = waiting[: max(0, fitting - len(at_work))]
    must_give_back = bool(begin) or sum(shares) > room
    found = [0] * len(shares)
    for place in (*at_work, *begin):
        found[place] = least if must_give_back else min(max(shares[place], least), most)
    # Of those who have as few, the one that may have more already comes first: it need not change.
    queue = [(found[place], -shares[place], place) for place in (*at_work, *begin) if found[place] < most]
    heapq.heapify(queue)
    for _ in range(room - sum(found)):
        if not queue:
            break
        share, before, place = heapq.heappop(queue)
        found[place] = share + 1
        if share + 1 < most:
            heapq.heappush(queue, (share + 1, before, place))
    return found
