"""growth: workers are taken in when another start has become worth it, given back when others are to have them."""

from collections.abc import Iterator
from dataclasses import dataclass

import orjson
import pytest

from commands import wait_for
from scaletrain.config import ScalingSection, WorkerRange
from scaletrain.ray_waiting import cluster_resources
from scaletrain.train.growth import Growth
from scaletrain.train.waiting import WorkerGroup, wait_for_workers


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


@dataclass
class Clock:
    """Seconds that pass when the test says so."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def line(step: int) -> bytes:
    return orjson.dumps({"step": step, "step_s": 1.0})


def group(most: int) -> WorkerGroup:
    return WorkerGroup(1, {"CPU": 1}, most=most)


def is_reserved() -> bool:
    import ray

    return ray.available_resources().get("CPU", 0) < cluster_resources()["CPU"]


def test_a_group_trains_for_as_long_as_its_start_took() -> None:
    """The start took 40 s, so that the other worker, though it is there at once, is taken in 40 s later."""
    clock = Clock()
    growth = Growth(group(2), last_step=1000, clock=clock)
    clock.now = 40
    growth.show([line(1)])
    wait_for(is_reserved, "a place is reserved")
    try:
        clock.now = 79
        assert not growth.has_come()

        def has_come_later() -> bool:
            clock.now += 3
            return growth.has_come()

        wait_for(has_come_later, "the other worker is taken in")
    finally:
        growth.release()
    wait_for(lambda: not is_reserved(), "the place is given back")


def test_a_run_that_is_nearly_over_is_left_alone() -> None:
    """Nothing is asked for, then or later, nor given back; neither is for a group that has all it may have."""
    for growth in (
        Growth(group(2), last_step=100),
        Growth(group(1), last_step=1000),
        Growth(group(2), last_step=1000, most_workers=lambda: 1),
        Growth(WorkerGroup(2, {"CPU": 1}, most=2), last_step=100, most_workers=lambda: 1),
    ):
        growth.show([line(1)])
        assert not growth.must_regroup()
        assert not is_reserved()


def test_a_run_asks_for_what_it_may_have_and_gives_back_what_it_may_not() -> None:
    """From its first step on; what was asked for is let go at once, what it works with after a save."""
    share = [2]
    growth = Growth(group(4), last_step=1000, most_workers=lambda: share[0])
    growth.show([line(1)])
    wait_for(is_reserved, "a place is reserved")
    share[0] = 1
    growth.show([])
    wait_for(lambda: not is_reserved(), "the place is given back")
    assert not growth.must_regroup()

    both = Growth(WorkerGroup(2, {"CPU": 1}, most=4), last_step=1000, most_workers=lambda: share[0])
    assert not both.must_regroup()
    both.show([line(1)])
    assert both.must_regroup()


def test_workers_that_share_rows_come_in_whole_groups() -> None:
    """There is room for three, of which two make a group."""
    scaling = ScalingSection(workers=WorkerRange(min=2, max=4), cpus_per_worker=0.6, sequence_parallel=2)
    found = wait_for_workers(scaling, device="cpu", wait_s=0, should_stop=lambda: False)
    assert (found.num_workers, found.most, found.together) == (2, 2, 2)
