"""The network between two workers: slow, losing packets, cut for a while, cut for good."""

import time

import pytest
from attempts_on_processes import Attempt, finish
from invariants import assert_recovered
from network import Network, lacking

from commands import wait_for
from scaletrain.layout import RunLayout
from workers import Prepared

pytestmark = [pytest.mark.long, pytest.mark.skipif(bool(lacking()), reason=lacking())]


def test_a_network_that_is_slow_and_loses_packets(prepared: Prepared, undisturbed: RunLayout) -> None:
    """200 ms there and back, and one packet of twenty lost: training goes on, to the same bits."""
    finish(prepared, "slow-network", debug__stop_after=3)
    with Network(2, latency_s=0.1, loss=0.05) as network:
        attempt = Attempt(prepared, "slow-network", arm=network.arm(), debug__stop_after=6, train__timeout_s=60)
        assert [(each.step, each.error) for each in attempt.wait()] == [(6, None)] * 2
        assert network.lost > 0
    assert_recovered(prepared, "slow-network", undisturbed, step=6)


def test_a_network_that_is_cut_for_some_seconds(prepared: Prepared, undisturbed: RunLayout) -> None:
    """In the middle of a step nothing passes for 5 s: the workers wait, and nothing is lost or done again."""
    with Network(2) as network:
        attempt = Attempt(prepared, "cut-network", arm=network.arm_to_cut(5), train__timeout_s=60)
        wait_for(network.cut.is_set, "the cut", limit_s=120)
        time.sleep(5)
        assert network.lost > 0
        network.cut.clear()
        assert [(each.step, each.error) for each in attempt.wait()] == [(12, None)] * 2
    assert_recovered(prepared, "cut-network", undisturbed)


def test_a_network_that_is_cut_for_good(prepared: Prepared, undisturbed: RunLayout) -> None:
    """Both workers live and neither hears the other: both end after train.timeout_s, with what to do."""
    with Network(2) as network:
        attempt = Attempt(prepared, "parted", arm=network.arm_to_cut(5), train__timeout_s=4)
        for rank, ended in enumerate(attempt.wait()):
            message = str(ended.error)
            assert f"step 5: worker {rank} of 2 heard nothing of another one for 4 s (train.timeout_s)" in message
            assert "which hangs or cannot be reached; the same command goes on from the newest commit" in message
    finish(prepared, "parted")
    assert_recovered(prepared, "parted", undisturbed)
