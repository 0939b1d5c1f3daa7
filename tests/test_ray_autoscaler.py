"""ray_autoscaler: what a cluster may bring, and the reasons that its log gives for machines that did not come."""

from datetime import datetime
from pathlib import Path

from scaletrain.ray_autoscaler import ClusterState, machine_types, parse_failures, whole_bundles

LOG = """\
2026-11-24 10:00:00,001\tINFO node_provider.py:490 -- Launching 1 nodes of type gpu_spot.
2026-11-24 10:00:01,002\tINFO node_provider.py:501 -- Failed to launch 1 nodes of type gpu_spot: Node Launch Exception \
(VcpuLimitExceeded): You have requested more vCPU capacity than your current vCPU limit of 0 allows
2026-11-24 10:00:02,003\tINFO node_provider.py:501 -- Failed to launch 2 nodes of type gpu_ondemand: Node Launch \
Exception (InsufficientInstanceCapacity): We currently do not have sufficient capacity
2026-11-24 10:00:09,002\tINFO node_provider.py:501 -- Failed to launch 1 nodes of type gpu_spot: Node Launch Exception \
(VcpuLimitExceeded): You have requested more vCPU capacity than your current vCPU limit of 0 allows
2026-11-24 10:00:10,000\tINFO threaded_ray_installer.py:82 -- Ray installation failed on instance i-0123: Ray \
installation failed with unexpected status: update-failed
"""


def test_failures_have_reason_and_remedy_once_each() -> None:
    """Quota, capacity and set-up are told apart, and what is repeated is said once."""
    capacity, quota, setup = parse_failures(LOG, "x\nscaletrain set-up FAILED (exit 1) while: checking the driver\n")
    assert "gpu_ondemand" in capacity.happened and "no such machine to give now" in capacity.remedy
    assert "VcpuLimitExceeded" in quota.reason and "quota" in quota.remedy
    assert setup.reason == "set-up FAILED (exit 1) while: checking the driver"


def test_a_throttled_request_does_not_hide_why_it_was_repeated() -> None:
    """The cloud has no such machine; that it was asked too often only follows from it."""
    line = (
        "2026-11-24 10:00:11,000\tINFO node_provider.py:501 -- Failed to launch 1 nodes of type {}: "
        "Node Launch Exception (RequestLimitExceeded): Request limit exceeded.\n"
    )
    throttled = line.format("gpu_ondemand")
    assert "InsufficientInstanceCapacity" in parse_failures(LOG + throttled)[-1].reason
    alone = parse_failures(LOG + line.format("cpu"))[-1]
    assert "RequestLimitExceeded" in alone.reason and "asked too often" in alone.remedy


def test_a_setup_without_a_verdict_gives_its_last_words() -> None:
    """Any set-up command can fail; what it wrote last is the best that there is."""
    output = "[1/2] Running setup\nE: Unable to locate package\nFailed.\nNew status: update-failed\n!!!\n"
    assert "E: Unable to locate package" in parse_failures(LOG, output)[-1].reason


def test_only_failures_since_then_count() -> None:
    """A run does not blame the failures of an earlier one."""
    assert len(parse_failures(LOG, since=datetime(2026, 11, 24, 10, 0, 10))) == 1
    assert parse_failures(LOG, since=datetime(2026, 11, 24, 10, 1)) == []


def test_machine_types_are_those_that_may_be_started(tmp_path: Path) -> None:
    """The head, a type that is switched off, and machines of one's own are none of them."""
    file = tmp_path / "cluster.yaml"
    file.write_text(
        "head_node_type: head\nmax_workers: 3\navailable_node_types:\n"
        "  head: {resources: {CPU: 0}, node_config: {}}\n"
        "  off: {resources: {CPU: 4, GPU: 1}, max_workers: 0}\n"
        "  gpu: {resources: {CPU: 8, GPU: 2, group_spot: 2}, max_workers: 8}\n"
    )
    (gpu,) = machine_types(file)
    assert (gpu.name, gpu.max_count) == ("gpu", 3)
    assert gpu.room_for({"CPU": 1, "GPU": 1, "group_spot": 1}) == 6
    assert machine_types(tmp_path / "none.yaml") == ()


def test_bundles_are_whole() -> None:
    """Half a worker is none."""
    assert whole_bundles({"CPU": 7, "GPU": 4}, {"CPU": 2, "GPU": 1}) == 3
    assert whole_bundles({"CPU": 1}, {"CPU": 0.1}) == 10
    assert whole_bundles({"CPU": 8}, {"GPU": 1}) == 0


def test_what_is_coming_is_said_by_type() -> None:
    """Progress names the machines."""
    state = ClusterState((), {"gpu_spot": 2}, {"gpu_spot": 1, "cpu": 1})
    assert state.describe_coming() == "gpu_spot: 2 launching, 1 being set up; cpu: 1 being set up"
