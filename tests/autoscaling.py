"""A cluster with Ray's real autoscaler on a machine of its own, whose "machines" are more Ray nodes beside the head.

Machines of a type that is not in the file `available` are refused with a cloud's own words.
"""

import json
from pathlib import Path

from one_machine import ADDRESS, Machine

GCS_ADDRESS = f"{ADDRESS}:6379"
_PROVIDER = '''
"""Ray's own provider of nodes on one machine, which has capacity only for the types that a file lists."""

from pathlib import Path

from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider
from ray.autoscaler.node_launch_exception import NodeLaunchException


class Provider(FakeMultiNodeProvider):
    def create_node_with_resources_and_labels(self, node_config, tags, count, resources, labels):
        if tags["ray-user-node-type"] not in (Path(__file__).parent / "available").read_text().split():
            raise NodeLaunchException("InsufficientInstanceCapacity", "We have no such machine in this zone", None)
        return super().create_node_with_resources_and_labels(node_config, tags, count, resources, labels)
'''
_CLUSTER = {
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
        "cpu": {"resources": {"CPU": 2}, "node_config": {}, "max_workers": 1},
        "scarce": {"resources": {"CPU": 2, "GPU": 1, "group_scarce": 1}, "node_config": {}, "max_workers": 3},
        "common": {"resources": {"CPU": 1, "GPU": 1, "group_common": 1}, "node_config": {}, "max_workers": 2},
    },
}


def start_cluster(folder: Path, *, available: str) -> Machine:
    """Start a machine with a head on it; `available` lists the types that can be had, see `set_available`."""
    machine = Machine(folder)
    try:
        set_available(machine, available)
        head_id = "f" * 51 + "00000"
        provider = {
            "type": "external",
            "module": "provider.Provider",
            "head_node_id": head_id,
            "gcs_address": GCS_ADDRESS,
            "launch_multiple": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        }
        (folder / "provider.py").write_text(_PROVIDER)
        file = folder / "autoscaling.yaml"
        file.write_text(json.dumps({**_CLUSTER, "provider": provider}))
        machine.succeed("cp", str(file), "/root/ray_bootstrap_config.yaml")
        machine.succeed(
            *("ray", "start", "--head", "--num-cpus=0", "--num-gpus=0", "--port=6379", f"--autoscaling-config={file}"),
            *("--object-store-memory=100000000", f"--node-ip-address={ADDRESS}"),
            PYTHONPATH=str(folder),
            AUTOSCALER_UPDATE_INTERVAL_S="1",
            RAY_FAKE_CLUSTER="1",
            RAY_enable_autoscaler_v2="1",
            RAY_CLOUD_INSTANCE_ID=head_id,
            RAY_OVERRIDE_NODE_ID_FOR_TESTING=head_id,
        )
    except BaseException:
        machine.end()
        raise
    return machine


def set_available(machine: Machine, types: str) -> None:
    """From now on only machines of these types can be had."""
    (machine.folder / "available").write_text(types)
