"""ray_waiting: places on machines that may have to come first, as the preparation of data asks for them."""

import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from autoscaling import GCS_ADDRESS, set_available, start_cluster
from commands import SCALETRAIN, descendants, wait_for, write_tiny
from one_machine import Machine, missing
from scaletrain.errors import ClusterError, Interrupted
from scaletrain.ray_waiting import Demand, find_candidates, wait_for_places

CLUSTER_FILE = """
head_node_type: head
max_workers: 4
available_node_types:
  head: {resources: {CPU: 0}}
  gpu_spot: {max_workers: 4, resources: {CPU: 4, GPU: 1, group_spot: 1}}
  cpu: {max_workers: 2, resources: {CPU: 8}}
  gpu_off: {max_workers: 0, resources: {CPU: 4, GPU: 1, group_ondemand: 1}}
"""
DEMAND = Demand({"CPU": 1}, 1, 2, noun="desks", needed="the desk that work needs", alternative="stand")
needs_a_machine = pytest.mark.skipif(bool(missing()), reason=missing())


@pytest.fixture(scope="module")
def ray_without_autoscaler() -> Iterator[None]:
    """A Ray of this process with 3 CPUs."""
    import ray

    ray.init(address="local", num_cpus=3, include_dashboard=False, logging_level="ERROR")
    yield
    ray.shutdown()


def wait(demand: Demand, *, wait_s: float, stopped: bool = False) -> int:
    return wait_for_places(demand, find_candidates(demand), wait_s=wait_s, should_stop=lambda: stopped)[0]


def test_places_that_are_there_are_given_back_at_once(ray_without_autoscaler: None) -> None:
    """Who waited takes them by what he starts next; a reservation would stand in its way."""
    assert wait(DEMAND, wait_s=60) == 2
    assert wait(replace(DEMAND, most=3), wait_s=60) == 3


def test_places_that_do_not_come_without_an_autoscaler_say_what_to_do(ray_without_autoscaler: None) -> None:
    """Nothing will bring machines, so the user has to, or do without."""
    with pytest.raises(ClusterError, match=r"the desk .* room for 0 of 4 CPU each, and no autoscaler; add .* or stand"):
        wait(replace(DEMAND, bundle={"CPU": 4}), wait_s=0.2)


def test_a_stop_ends_the_wait(ray_without_autoscaler: None) -> None:
    """It is asked before the first second is over."""
    with pytest.raises(Interrupted, match="stopped while it waited for desks"):
        wait(replace(DEMAND, bundle={"CPU": 4}), wait_s=600, stopped=True)


def test_each_group_of_the_cluster_file_is_a_candidate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A place in a group asks for its resource too; a type that is off, or too small, is none."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "ray_bootstrap_config.yaml").write_text(CLUSTER_FILE)
    found = find_candidates(DEMAND)
    assert [(each.name, dict(each.bundle), each.most, each.has_gpus) for each in found] == [
        ("spot", {"CPU": 1, "group_spot": 1}, 4, True),
        ("cpu", {"CPU": 1}, 16, False),
    ]
    assert [each.name for each in find_candidates(replace(DEMAND, bundle={"CPU": 8}))] == ["cpu"]


class Preparation:
    """`scaletrain prepare` as a job's driver, on a cluster whose machines can be had or not."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._command = (SCALETRAIN, "prepare", write_tiny(machine.folder, root=str(machine.folder / "bucket")))

    def start(self, *, wait_minutes: float) -> "subprocess.Popen[str]":
        setting = f"scaling.wait_minutes={wait_minutes:g}"
        return self.machine.start(*self._command, setting, RAY_ADDRESS=GCS_ADDRESS)

    def ends(self, *, wait_minutes: float) -> tuple[int, str]:
        """Run it to its end; returns the exit code and what it told."""
        process = self.start(wait_minutes=wait_minutes)
        _, told = process.communicate(timeout=200)
        return process.returncode, told

    def asks_for(self) -> str:
        """What the cluster is asked for and does not have."""
        told = self.machine.succeed("ray", "status", "--address", GCS_ADDRESS)
        return told.partition("Pending Demands:")[2]


@pytest.fixture(scope="module")
def preparation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Preparation]:
    machine = start_cluster(tmp_path_factory.mktemp("machine"), available="")
    try:
        yield Preparation(machine)
    finally:
        machine.end()


@pytest.mark.long
@needs_a_machine
def test_preparing_ends_with_the_reasons_where_no_machine_can_be_had(preparation: Preparation) -> None:
    """Each group was asked, and the message says what the cloud said of each, and what to do."""
    exit_code, told = preparation.ends(wait_minutes=0.3)
    assert exit_code == 1, told
    error = told[told.index("error: ") :]
    assert "the CPUs that preparing the data needs did not come in 0.3 minutes (cpu and scarce and common)" in error
    for kind in ("cpu", "scarce", "common"):
        assert f"a machine of type {kind} was not launched" in error
    assert "InsufficientInstanceCapacity" in error and "set max_workers of another type" in error


@pytest.mark.long
@needs_a_machine
def test_ctrl_c_ends_the_wait_of_a_preparation(preparation: Preparation) -> None:
    """And nothing goes on asking for the machine."""
    process = preparation.start(wait_minutes=10)
    wait_for(lambda: "CPU" in preparation.asks_for(), "a demand for CPUs")
    for child in descendants(process.pid, "scaletrain prepare "):
        child.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130 and "stopped while it waited for machines" in told, told
    wait_for(lambda: "CPU" not in preparation.asks_for(), "no demand any more")


@pytest.mark.long
@needs_a_machine
def test_preparing_takes_the_cpus_of_gpu_machines_where_no_others_come(preparation: Preparation) -> None:
    """The user sees why it is not the machine that was meant for it."""
    set_available(preparation.machine, "common")
    exit_code, told = preparation.ends(wait_minutes=0.75)
    assert exit_code == 0, told
    assert "a machine of type cpu was not launched: " in told
