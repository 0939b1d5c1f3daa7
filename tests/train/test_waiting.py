"""waiting: workers that a cluster has to bring first, with Ray's real autoscaler on a machine of its own."""

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from autoscaling import GCS_ADDRESS, start_cluster
from commands import wait_for
from one_machine import Machine, missing
from scaletrain.config import ScalingSection
from scaletrain.ray_waiting import Reservation
from scaletrain.train import waiting
from scaletrain.train.waiting import Room, WorkerGroup, find_room, wait_for_workers

WAIT = """
import json, sys
import ray
from scaletrain.config import ScalingSection
from scaletrain.errors import ScaletrainError
from scaletrain.log import setup_logging
from scaletrain.train.waiting import wait_for_workers

setup_logging()
ray.init(address="auto", logging_level="ERROR")
scaling = ScalingSection.model_validate(json.loads(sys.argv[1]))
try:
    stopped = sys.argv[3] == "stopped"
    found = wait_for_workers(scaling, device="cuda", wait_s=float(sys.argv[2]), should_stop=lambda: stopped)
    print(json.dumps([found.num_workers, dict(found.resources)]))
except ScaletrainError as error:
    print(f"{type(error).__name__}: {error}")
"""
REASONS = """
from scaletrain.ray_autoscaler import read_failures, read_state

for failure in read_failures(read_state("10.77.0.1:6379"), api_url="http://127.0.0.1:8265"):
    print(failure)
"""
needs_a_machine = pytest.mark.skipif(bool(missing()), reason=missing())


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A head with Ray's autoscaler, which starts workers beside it: none of the scarce group."""
    machine = start_cluster(tmp_path_factory.mktemp("machine"), available="common")
    try:
        yield machine
    finally:
        machine.end()


def wait(machine: Machine, scaling: dict[str, object], wait_s: float, *, stopped: bool = False) -> tuple[str, str]:
    """Wait in a process of its own, as a job's driver; returns its result and what it told on the way."""
    arguments = (sys.executable, "-c", WAIT, json.dumps(scaling), str(wait_s), "stopped" if stopped else "")
    done = machine.run(*arguments, RAY_ADDRESS=GCS_ADDRESS)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1], done.stdout + done.stderr  # Ray's autoscaler talks, too


@pytest.mark.long
@needs_a_machine
def test_the_reason_is_told_and_the_next_group_is_taken_whole(machine: Machine) -> None:
    """The first group has no capacity; both workers come from the second, and ask for its machines only."""
    result, told = wait(machine, {"workers": {"min": 2, "max": 3}}, 60)
    assert json.loads(result) == [2, {"CPU": 1.0, "GPU": 1, "group_common": 1}], told
    assert "InsufficientInstanceCapacity" in told and "take on-demand instead of spot" in told


@pytest.mark.long
@needs_a_machine
def test_workers_that_do_not_come_end_the_run_with_the_reason(machine: Machine) -> None:
    """Three fit into the scarce group alone, which never comes."""
    _, told = wait(machine, {"workers": 3}, 15)
    assert "ClusterError: the 3 workers that the run needs at least did not come" in told, told
    assert "(InsufficientInstanceCapacity): We have no such machine in this zone" in told


@pytest.mark.long
@needs_a_machine
def test_the_reasons_can_be_read_from_outside(machine: Machine) -> None:
    """`scaletrain status` has only the ports of Ray and of its dashboard."""
    told = machine.succeed(sys.executable, "-c", REASONS)
    assert told.count("InsufficientInstanceCapacity") == 1 and "take on-demand instead of spot" in told


@pytest.mark.long
@needs_a_machine
def test_workers_that_can_never_come_are_refused_at_once(machine: Machine) -> None:
    """Nobody waits, or pays, for what the cluster file rules out."""
    result, _ = wait(machine, {"workers": 9}, 600)
    assert (
        result.startswith("ClusterError: at least 9 workers of 1 CPU, 1 GPU each")
        and "raise max_workers there" in result
    )


@pytest.mark.long
@needs_a_machine
def test_a_wait_can_be_stopped(machine: Machine) -> None:
    """Nobody has to wait for machines that he no longer wants."""
    result, _ = wait(machine, {"workers": 3}, 600, stopped=True)
    assert result.startswith("Interrupted: stopped while it waited for workers")


ELASTIC = ScalingSection.model_validate({"workers": {"min": 1, "max": 2}})


@pytest.fixture(scope="module")
def three_cpus() -> Iterator[None]:
    """This machine as a cluster of one with three logical CPUs."""
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        ray.init(address="local", num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        yield
        ray.shutdown()


@pytest.mark.usefixtures("three_cpus")
def test_this_machine_alone_is_not_waited_for() -> None:
    """A cluster of one machine was started with all the CPUs that the run needs."""
    found = wait_for_workers(ELASTIC, device="cpu", wait_s=1, should_stop=lambda: False)
    assert found == WorkerGroup(2, {"CPU": 1.0}, most=2)


@pytest.mark.usefixtures("three_cpus")
def test_no_more_workers_are_taken_than_the_run_may_have() -> None:
    """Though it could have more, which is said too."""
    found = wait_for_workers(ELASTIC, device="cpu", wait_s=1, should_stop=lambda: False, most_workers=lambda: 1)
    assert found == WorkerGroup(1, {"CPU": 1.0}, most=2)
    assert find_room(ELASTIC, device="cpu") == Room(there=3, may_come=3)


@pytest.mark.usefixtures("three_cpus")
def test_a_share_may_change_while_workers_are_waited_for() -> None:
    """One of two is there, and three are asked for; when all are there, the run may have only two, and has two."""
    scaling = ScalingSection.model_validate({"workers": {"min": 2, "max": 3}})
    share, asked = [3], [0]
    with Reservation({"CPU": 1}, 2) as others:
        wait_for(lambda: others.count() == 2, "another run has two of the three")

        def should_stop() -> bool:
            asked[0] += 1
            if asked[0] == 2:
                share[0] = 2
            if asked[0] == 4:
                others.release()
            return False

        found = wait_for_workers(
            scaling, device="cpu", wait_s=60, should_stop=should_stop, most_workers=lambda: share[0]
        )
    assert found == WorkerGroup(2, {"CPU": 1.0}, most=3)


def test_gpus_that_a_run_leaves_idle_are_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With the setting that takes all of them; a run that shares the machine leaves some to others."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(waiting, "cluster_resources", lambda: {"CPU": 64.0, "GPU": 8.0})
    scaling = ScalingSection.model_validate({"workers": 1})
    options: dict[str, Any] = {"device": "cuda", "wait_s": 0, "should_stop": lambda: False}
    wait_for_workers(scaling, **options, most_workers=lambda: None)
    assert not caplog.records
    for _ in range(2):
        assert wait_for_workers(scaling, **options).num_workers == 1
    [told] = caplog.messages
    assert told == "this machine has 8 GPUs, the run uses 1: scaling.workers=8 takes all"
