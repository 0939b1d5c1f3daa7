"""A run on whatever machines there are: one is lost, it goes on with the rest; more come, it takes them in."""

import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from commands import SCALETRAIN, kill_everything, wait_for, write_tiny
from one_machine import ADDRESS, Machine, missing
from scaletrain import attempts, checkpoint
from scaletrain.layout import RunLayout
from scaletrain.verify import verify_run

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(missing()), reason=missing()),
]
GCS_ADDRESS = f"{ADDRESS}:6379"
# As cluster/aws.yaml has it: a node that is lost is known to be after some seconds.
FAILURE_DETECTION = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "300",
    "RAY_health_check_timeout_ms": "1500",
    "RAY_health_check_failure_threshold": "2",
    "RAY_raylet_rpc_server_reconnect_timeout_base_s": "1",
    "RAY_raylet_rpc_server_reconnect_timeout_max_s": "3",
    "RAY_core_worker_rpc_server_reconnect_timeout_base_s": "1",
    "RAY_core_worker_rpc_server_reconnect_timeout_max_s": "3",
}


class Cluster:
    """A head without room for workers, and nodes that have room for one each."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.head = self._start("--head", "--port=6379", "--num-cpus=0", "--include-dashboard=false")

    def add_node(self) -> "subprocess.Popen[str]":
        """Start a node and wait until it is there; two that start at once on one machine stand in each other's way."""
        return self._start(f"--address={GCS_ADDRESS}", "--num-cpus=1")

    def train(self, *overrides: str) -> "subprocess.Popen[str]":
        """Start a run in the tiny configuration, as a job's driver on the head."""
        config = write_tiny(self._machine.folder, root=str(self._machine.folder / "bucket"))
        return self._machine.start(SCALETRAIN, "train", config, *overrides, RAY_ADDRESS=GCS_ADDRESS)

    def _start(self, *options: str) -> "subprocess.Popen[str]":
        """Start Ray, which tells when the cluster knows the node."""
        command = ["ray", "start", "--block", "--object-store-memory=100000000", f"--node-ip-address={ADDRESS}"]
        started = self._machine.start(*command, *options, **FAILURE_DETECTION)
        assert started.stdout is not None
        assert any("Ray runtime started" in line for line in started.stdout), "a node did not start"
        return started


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    try:
        yield machine
    finally:
        machine.end()


@pytest.fixture
def cluster(machine: Machine) -> Cluster:
    return Cluster(machine)


@contextmanager
def watched(process: "subprocess.Popen[str]") -> Iterator["subprocess.Popen[str]"]:
    """Where something does not happen in time, end a run and show what it told."""
    try:
        yield process
    except (AssertionError, subprocess.TimeoutExpired) as error:
        kill_everything(process.pid)
        raise AssertionError(f"{error}\n{process.communicate()[1]}") from error


def test_a_run_goes_from_two_workers_to_one_to_three(cluster: Cluster, tmp_path: Path) -> None:
    """SIGKILL of a whole node, then two more nodes: every step once, on the workers that there were."""
    run = RunLayout(str(tmp_path / "bucket"), "tiny")

    def commit_of(workers: int) -> checkpoint.Manifest | None:
        newest = checkpoint.latest(run)
        return newest if newest is not None and newest.world_size == workers else None

    nodes = [cluster.add_node() for _ in range(2)]
    options = ("scaling.workers={min: 1, max: 3}", "train.steps=100000", "checkpoint.every_steps=10")
    with watched(cluster.train(*options)) as process:
        wait_for(lambda: commit_of(2), "a commit of two workers", limit_s=300)
        kill_everything(nodes[1].pid)  # all that runs on it
        alone = wait_for(lambda: commit_of(1), "a commit of the worker that is left", limit_s=250)
        for _ in range(2):
            cluster.add_node()
        wait_for(lambda: commit_of(3), "a commit of three workers", limit_s=300)
        psutil.Process(process.pid).children()[0].send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=120)
    assert process.returncode == 130, told
    assert "a worker was lost" in told
    assert re.search(r"[12] more workers could be had: saving, and going on with them", told)
    found = verify_run(run)
    assert found.problems == ()
    sizes = [size for size, _ in found.world_sizes]
    assert sizes in ([2, 1, 3], [2, 1, 2, 3])  # the new nodes come one after the other
    # Only the lost node cost steps; growing saved first.
    resumed = attempts.read_attempts(run).resumed_from
    assert resumed[3] >= alone.step
    assert found.done_again <= 10


def test_a_run_whose_head_is_lost_goes_on_on_a_new_cluster(machine: Machine, tmp_path: Path) -> None:
    """SIGKILL of all of the head but the driver: one error with what to do; then the same command on a new cluster."""
    run = RunLayout(str(tmp_path / "bucket"), "tiny")
    options = ("scaling.workers={min: 1, max: 2}", "train.steps=100000", "checkpoint.every_steps=10")

    def committed_step() -> int:
        newest = checkpoint.latest(run)
        return newest.step if newest is not None else 0

    cluster = Cluster(machine)
    node = cluster.add_node()
    with watched(cluster.train(*options)) as process:
        wait_for(committed_step, "a commit", limit_s=300)
        kill_everything(cluster.head.pid)
        _, told = process.communicate(timeout=150)
    assert process.returncode == 1, told
    assert "error: Ray is gone, or does not answer" in told and "Traceback" not in told
    kill_everything(node.pid)
    before = committed_step()

    cluster = Cluster(machine)
    cluster.add_node()
    with watched(cluster.train(*options)) as process:
        wait_for(lambda: committed_step() > before, "a commit on the new cluster", limit_s=300)
        psutil.Process(process.pid).children()[0].send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=120)
    assert process.returncode == 130, told
    assert f"going on from step {before}" in told
    assert verify_run(run).problems == ()
