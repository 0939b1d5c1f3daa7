"""node_doctor: every node is looked at, the group works together once, and nothing is left in the bucket."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from commands import run, write_tiny
from scaletrain import ray_cluster
from scaletrain.cluster import node_doctor
from scaletrain.cluster.node_doctor import NodeFinding
from scaletrain.train.waiting import WorkerGroup
from workers import tiny_config

TWO = WorkerGroup(2, {"CPU": 1.0}, most=2)


@pytest.fixture(scope="module")
def connected() -> Iterator[None]:
    """A Ray of this machine with room for two workers."""
    with ray_cluster.connected(num_cpus=3):
        yield


def by_name(findings: list[NodeFinding]) -> dict[str, NodeFinding]:
    return {each.finding.name: each for each in findings}


def test_a_cluster_that_is_ready_passes(connected: None, tmp_path: Path) -> None:
    """One node here: its parts are named, the two workers reduce and train, and the bucket is as it was."""
    findings = by_name(node_doctor.check_nodes(tiny_config(str(tmp_path)), TWO, device="cpu"))
    group = findings["2 workers together"]
    assert group.node == "group"
    assert group.finding.status == "ok", group.finding
    assert "ZeRO-3 step" in group.finding.found
    assert "GB/s" in group.finding.found
    assert {"GPU", "memory", "shared memory", "storage, speed", "clock"} <= findings.keys()
    assert findings["clock"].finding.status == "ok"
    assert list(tmp_path.rglob("*")) == []


def test_a_node_that_cannot_reach_the_bucket_fails_and_the_group_is_spared(connected: None, tmp_path: Path) -> None:
    """What is wrong with a node is said before workers are started on it."""
    (tmp_path / "file").touch()
    findings = by_name(node_doctor.check_nodes(tiny_config(str(tmp_path / "file")), TWO, device="cpu"))
    failed = [each.finding for each in findings.values() if each.finding.status == "fail"]
    assert [each.name for each in failed] == [f"storage {tmp_path}/file"]
    assert "2 workers together" not in findings


@pytest.mark.parametrize(("ahead_s", "status"), [(0.0, "ok"), (30.0, "warn"), (1000.0, "fail")])
def test_a_clock_that_is_off_is_found(connected: None, ahead_s: float, status: str) -> None:
    """A clock a quarter of an hour off makes every store refuse the node."""
    import ray

    finding = node_doctor._clock(ray.remote(num_cpus=0)(lambda: time.time() + ahead_s))
    assert finding.status == status
    assert ("chrony" in finding.remedy) == (status != "ok")


@pytest.mark.soak
def test_the_command_prints_a_table_and_ends_well(tmp_path: Path) -> None:
    """`doctor CONFIG --nodes` is what a submitted check runs."""
    shown = run("doctor", write_tiny(tmp_path, root=str(tmp_path / "bucket")), "--nodes")
    assert "2 workers together" in shown
    assert "clock" in shown
