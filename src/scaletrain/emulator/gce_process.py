"""The emulated Google Cloud itself: its APIs over HTTPS, the metadata server, and machines kept as Compute Engine says.

Started by `scaletrain.emulator.gce`; see `scaletrain.emulator.cloud_process`.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scaletrain.emulator import google_server
from scaletrain.emulator.api_log import log_actions
from scaletrain.emulator.certificates import make_certificate, trust_settings
from scaletrain.emulator.cloud_process import (
    API_ADDRESS,
    METADATA_ADDRESS,
    Action,
    internet_settings,
    machine_actions,
    serve_lines,
    start_places,
)
from scaletrain.emulator.gce_compute import shown
from scaletrain.emulator.gce_instances import Instances
from scaletrain.emulator.gce_launch import is_spot
from scaletrain.emulator.gce_metadata import HOSTS, MetadataServer
from scaletrain.emulator.gce_network import PUBLIC
from scaletrain.emulator.gcs_gate import start_store
from scaletrain.emulator.google_calls import administer
from scaletrain.emulator.google_cloud import GoogleCloud
from scaletrain.emulator.keeper import Keeper
from scaletrain.emulator.machines import Machines

# Machines of all networks are on one wire; which of them reach which is up to the packet filters.
GATEWAY, PREFIX_LENGTH = "10.0.0.1", 8
THIRD_MACHINE = "10.64.0.250"  # outside of what the default network takes for internal
TRUSTED_ON_MACHINES = "/etc/ssl/certs/emulated-cloud.pem"
_STORE_PORT = 4443
_STATES = {
    "PROVISIONING": "pending",
    "STAGING": "pending",
    "RUNNING": "running",
    "STOPPING": "stopping",
    "TERMINATED": "stopped",
}


@dataclass(frozen=True)
class Options:
    """How the cloud is made; see `scaletrain.emulator.gce.emulated_gce`."""

    folder: str
    project: str
    region: str
    prepared: bool
    internet: bool
    operations_last_s: float


class Cloud:
    """Everything together."""

    def __init__(self, options: Options) -> None:
        self._options = options
        folder = Path(options.folder)
        self._certificate = make_certificate(folder, ["*.googleapis.com", "googleapis.com"])
        settings = {**trust_settings(TRUSTED_ON_MACHINES), "RAY_USAGE_STATS_ENABLED": "0"}
        # All machines share this computer's cores: the three seconds that clients give the server are not enough.
        settings["GCE_METADATA_TIMEOUT"] = "10"
        # gcsfs would ask each bucket first whether it is one of the hierarchical kind, by an API that is not emulated.
        settings["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"
        if options.internet:
            names = [".googleapis.com", ".internal", "metadata", "10.0.0.0/8"]
            settings |= internet_settings(GATEWAY, except_for=names)
        self.machines = Machines(
            folder,
            gateway=GATEWAY,
            prefix_length=PREFIX_LENGTH,
            settings=settings,
            prepared=options.prepared,
            hosts=f"{API_ADDRESS} {' '.join(google_server.HOSTS)}\n{METADATA_ADDRESS} {HOSTS}",
            files={TRUSTED_ON_MACHINES: self._certificate.trusted.read_text()},
        )

    def start(self) -> Mapping[str, Action]:
        """Bring up the network, the APIs, the metadata server and the laptop; returns what may be asked."""
        options = self._options
        start_places(self.machines, networks=[str(PUBLIC)])
        self._store = start_store(_STORE_PORT)
        self.cloud = GoogleCloud(
            options.project,
            options.region,
            operations_last_s=options.operations_last_s,
            object_store=f"127.0.0.1:{_STORE_PORT}",
        )
        compute = self.cloud.compute
        self.instances = Instances(self.cloud, gateway=GATEWAY)
        self.cloud.caller_name = self.instances.caller_name
        google_server.serve(self.cloud.answer, (API_ADDRESS, 443), self._certificate)
        MetadataServer(self.cloud, self.instances).start()
        Keeper(
            self.machines,
            changed=compute.changed,
            wanted=self.instances.wanted,
            boot_of=self.instances.boot_of,
            settled=self.instances.settled,
        ).start()
        return {
            **machine_actions(self.machines, third_address=THIRD_MACHINE),
            **log_actions(self.cloud.log, compute.failures),
            "instances": self.told_instances,
            "call": lambda service, operation, arguments: administer(self.cloud, service, operation, arguments),
            "preempt": self.instances.preempt,
            "begin_shutdown": self.machines.begin_shutdown,
            "maintain": lambda name, event: self.instances.tell(name, "maintenance-event", event),
        }

    def told_instances(self) -> list[dict[str, Any]]:
        """What Compute Engine says of each instance, in the words that all clouds share."""
        with self.cloud.lock:
            return [_told(shown(each)) for each in self.cloud.compute.instances.values()]


def _told(instance: dict[str, Any]) -> dict[str, Any]:
    interface, labels = instance["networkInterfaces"][0], instance["labels"]
    return {
        "id": instance["name"],
        "hostname": instance["name"],
        "address": interface["networkIP"],
        "public_address": (interface.get("accessConfigs") or [{}])[0].get("natIP", ""),
        "state": _STATES[instance["status"]],
        "instance_type": instance["machineType"].rpartition("/")[2],
        "market": "spot" if is_spot(instance) else "on-demand",
        "node_type": labels.get("ray-user-node-type", ""),
        "node_kind": labels.get("ray-node-type", ""),
        "node_status": labels.get("ray-node-status", ""),
        "profile": (instance.get("serviceAccounts") or [{}])[0].get("email", ""),
        "state_reason": instance.get("statusMessage", ""),
    }


def main() -> None:
    """Serve until stdin ends."""
    cloud = Cloud(Options(**json.loads(sys.argv[1])))
    serve_lines(cloud.start)


if __name__ == "__main__":
    main()
