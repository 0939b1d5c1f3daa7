"""The account of an arm, from what it left behind: what each fault cost, what was lost, and where the time went."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from soaking.observed import Commit, Line, Observed, Resume

_STALLED_S = 5.0  # no new step for so long before a fault, and the stall is not its doing
_UNDER_WAY_S = 2.0  # a line that was written so long after a fault was of a step before it


@dataclass(frozen=True)
class Hit:
    """A fault as it came to an arm: when, and how many processes, machines or requests it hit (0: nothing there)."""

    number: int
    kind: str
    time: float
    hit: int


@dataclass(frozen=True)
class FaultCost:
    """What a fault cost: `pause_s` is the longest time without a new step that began between it and the next one.

    A new step is one with a higher number than any before; None: there was none any more. `done_again` are steps that
    were trained, and did not count.
    """

    hit: Hit
    pause_s: float | None
    done_again: int


@dataclass(frozen=True)
class Account:
    """The totals of one part of a sitting."""

    costs: tuple[FaultCost, ...]
    wall_s: float
    productive_s: float
    steps: int
    done_again: int
    lost: int
    repeated_samples: int
    resumes: int
    whole_resumes: int
    damaged_resumes: int
    restarts: int


def make_account(seen: Observed, hits: Sequence[Hit], *, began: float, ended: float) -> Account:
    """Add up what an arm did between two times (seconds since 1970)."""
    resumes = sorted(seen.resumes, key=lambda each: each.attempt)
    counted, again = _split(seen.lines, resumes)
    again_by_fault = _done_again_by_fault(again, hits)
    costs = [
        FaultCost(hit, pause_s, again_by_fault.get(hit.number, 0))
        for hit, pause_s in zip(hits, _pauses(seen.lines, hits), strict=True)
    ]
    timed = [line for line in counted if began <= line.time <= ended]
    after_the_start = [each for each in resumes if each.time > began]
    return Account(
        costs=tuple(costs),
        wall_s=ended - began,
        productive_s=sum(line.step_s for line in timed),
        steps=len(timed),
        done_again=len(again),
        lost=_count_lost(seen, resumes),
        repeated_samples=_count_repeated(counted),
        resumes=len(after_the_start),
        whole_resumes=sum(each.whole is True for each in after_the_start),
        damaged_resumes=sum(_is_damaged(seen, each) for each in after_the_start),
        restarts=len(seen.ends),
    )


def _split(lines: Sequence[Line], resumes: Sequence[Resume]) -> tuple[list[Line], list[Line]]:
    """The lines that count, and those of steps that a later attempt went on without; both in the order of time."""
    counted: list[Line] = []
    again: list[Line] = []
    for line in sorted(lines, key=lambda each: each.time):
        last = min((each.step for each in resumes if each.attempt > line.attempt), default=line.step)
        (counted if line.step <= last else again).append(line)
    return counted, again


def _pauses(lines: Sequence[Line], hits: Sequence[Hit]) -> list[float | None]:
    new: list[float] = []
    highest = 0
    for line in sorted(lines, key=lambda each: each.time):
        if line.step > highest:
            highest = line.step
            new.append(line.time)
    following = [each.time for each in hits[1:]]
    return [
        _longest_pause(new, hit.time, until)
        for hit, until in zip(hits, [*following, float("inf")][: len(hits)], strict=True)
    ]


def _longest_pause(new: Sequence[float], since: float, until: float) -> float | None:
    """The longest time between two new steps from `since` on.

    One that reaches beyond `until`, the next fault, counts in full where all stood still already when that came (both
    faults have their part in it then), and is the next one's alone where it began with it.
    """
    later = [time for time in new if time > since]
    if not later:
        return None
    gaps = [(before, after) for before, after in pairwise([since, *later]) if before < until]
    own = [after - before for before, after in gaps if after < until or until - before > _STALLED_S]
    return max(own, default=until - since)


def _done_again_by_fault(again: Sequence[Line], hits: Sequence[Hit]) -> dict[int, int]:
    """Each line that does not count goes to the last fault before its attempt's last one of them, or just after it."""
    last_of = {line.attempt: line.time for line in again}
    found: dict[int, int] = {}
    for line in again:
        before = [hit for hit in hits if hit.time <= last_of[line.attempt] + _UNDER_WAY_S]
        if before:
            found[before[-1].number] = found.get(before[-1].number, 0) + 1
    return found


def _count_lost(seen: Observed, resumes: Sequence[Resume]) -> int:
    """Steps that had been committed when an attempt began, and that it did not go on from.

    A checkpoint of which a bit was flipped need not be found; nor one that an attempt committed after another one had
    gone on without it.
    """
    lost, gone = 0, set[Commit]()
    for resume in resumes:
        there = [
            commit.step
            for commit in seen.commits
            if commit.attempt < resume.attempt
            and commit.time < resume.decided
            and commit not in gone
            and not any(commit.time <= flip.time < resume.time and flip.step == commit.step for flip in seen.flips)
        ]
        lost += max(0, max(there, default=0) - resume.step)
        gone |= {commit for commit in seen.commits if commit.attempt < resume.attempt and commit.step > resume.step}
    return lost


def _is_damaged(seen: Observed, resume: Resume) -> bool:
    """Whether an attempt went on from a checkpoint of which a bit had been flipped."""
    flips = [flip.time for flip in seen.flips if flip.step == resume.step and flip.time < resume.time]
    return bool(flips) and not any(
        commit.step == resume.step and flips[-1] < commit.time < resume.time for commit in seen.commits
    )


def _count_repeated(counted: Sequence[Line]) -> int:
    """Samples that an attempt trained again in its first pass although the pass before was cut off after them."""
    repeated, unfinished = 0, set[int]()
    for attempt in sorted({line.attempt for line in counted}):
        passes: list[set[int]] = [set()]
        for line in counted:
            if line.attempt == attempt:
                for sample in line.samples:
                    if sample in passes[-1]:
                        passes.append(set())
                    passes[-1].add(sample)
        repeated += len(unfinished & passes[0])
        unfinished = passes[-1] if len(passes) > 1 else unfinished | passes[0]
    return repeated
