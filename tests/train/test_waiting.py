"""waiting: workers that a cluster has to bring first, with Ray's real autoscaler on a machine of its own.

Its provider starts each "machine" as one more Ray node of that machine, or refuses with a cloud's own words.
"""

import json
import sys
from collections.abc import Iterator

import pytest

from one_machine import Machine, missing
from scaletrain.config import ScalingSection
from scaletrain.train.waiting import WorkerGroup, wait_for_workers

PROVIDER = '''
"""Ray's own provider of nodes on one machine, which has no capacity for machines of the type "scarce"."""

from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider
from ray.autoscaler.node_launch_exception import NodeLaunchException


class Provider(FakeMultiNodeProvider):
    def create_node_with_resources_and_labels(self, node_config, tags, count, resources, labels):
        if "group_scarce" in resources:
            raise NodeLaunchException("InsufficientInstanceCapacity", "We have no such machine in this zone", None)
        return super().create_node_with_resources_and_labels(node_config, tags, count, resources, labels)
'''
CLUSTER = {
    "cluster_name": "fake",
    "auth": {},
    "docker": {},
    "file_mounts": {},
    "file_mounts_sync_continuously": False,
    "initialization_commands": [],
    "setup_commands": [],
    "head_setup_commands": [],
    "worker_setup_commands": [],
    "head_start_ray_commands": [],
    "worker_start_ray_commands": [],
    "cluster_synced_files": [],
    "rsync_exclude": [],
    "rsync_filter": [],
    "max_workers": 3,
    "idle_timeout_minutes": 5,
    "upscaling_speed": 10,
    "head_node_type": "ray.head.default",
    "available_node_types": {
        "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "scarce": {"resources": {"CPU": 2, "GPU": 1, "group_scarce": 1}, "node_config": {}, "max_workers": 3},
        "common": {"resources": {"CPU": 1, "GPU": 1, "group_common": 1}, "node_config": {}, "max_workers": 2},
    },
}
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
    """A head with Ray's autoscaler, which starts workers beside it."""
    machine = Machine(tmp_path_factory.mktemp("machine"))
    try:
        head_id = "f" * 51 + "00000"
        provider = {
            "type": "external",
            "module": "provider.Provider",
            "head_node_id": head_id,
            "gcs_address": "10.77.0.1:6379",
            "launch_multiple": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        }
        (machine.folder / "provider.py").write_text(PROVIDER)
        file = machine.folder / "autoscaling.yaml"
        file.write_text(json.dumps({**CLUSTER, "provider": provider}))
        machine.succeed("cp", str(file), "/root/ray_bootstrap_config.yaml")
        machine.succeed(
            *("ray", "start", "--head", "--num-cpus=0", "--num-gpus=0", "--port=6379", f"--autoscaling-config={file}"),
            *("--object-store-memory=100000000", "--node-ip-address=10.77.0.1"),
            PYTHONPATH=str(machine.folder),
            AUTOSCALER_UPDATE_INTERVAL_S="1",
            RAY_FAKE_CLUSTER="1",
            RAY_enable_autoscaler_v2="1",
            RAY_CLOUD_INSTANCE_ID=head_id,
            RAY_OVERRIDE_NODE_ID_FOR_TESTING=head_id,
        )
        yield machine
    finally:
        machine.end()


def wait(machine: Machine, scaling: dict[str, object], wait_s: float, *, stopped: bool = False) -> tuple[str, str]:
    """Wait in a process of its own, as a job's driver; returns its result and what it told on the way."""
    arguments = (sys.executable, "-c", WAIT, json.dumps(scaling), str(wait_s), "stopped" if stopped else "")
    done = machine.run(*arguments, RAY_ADDRESS="10.77.0.1:6379")
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
    assert result.startswith("ClusterError: scaling.workers: at least 9") and "raise max_workers there" in result


@pytest.mark.long
@needs_a_machine
def test_a_wait_can_be_stopped(machine: Machine) -> None:
    """Nobody has to wait for machines that he no longer wants."""
    result, _ = wait(machine, {"workers": 3}, 600, stopped=True)
    assert result.startswith("Interrupted: stopped while it waited for workers")


def test_this_machine_alone_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster of one machine was started with all the CPUs that the run needs."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    import ray

    ray.init(address="local", num_cpus=3, include_dashboard=False, logging_level="ERROR")
    try:
        scaling = ScalingSection.model_validate({"workers": {"min": 1, "max": 2}})
        found = wait_for_workers(scaling, device="cpu", wait_s=1, should_stop=lambda: False)
    finally:
        ray.shutdown()
    assert found == WorkerGroup(2, {"CPU": 1.0})
