"""The emulated EC2 itself: moto behind a gate, the metadata service, and machines kept as moto says.

Started by `scaletrain.emulator.ec2`; see `scaletrain.emulator.cloud_process`.
"""

import json
import os
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scaletrain.emulator import ec2_metadata
from scaletrain.emulator.api_log import log_actions
from scaletrain.emulator.aws_account import CLOUD_ACCESS_KEY, Account
from scaletrain.emulator.aws_api import Gate, serve
from scaletrain.emulator.cloud_process import (
    API_ADDRESS,
    LAPTOP,
    METADATA_ADDRESS,
    Action,
    internet_settings,
    machine_actions,
    serve_lines,
    start_places,
)
from scaletrain.emulator.ec2_keeper import Instances, hostname_of
from scaletrain.emulator.keeper import Keeper
from scaletrain.emulator.machines import Machines
from scaletrain.errors import ClusterError

# The default VPC is 172.31.0.0/16: moto hands out addresses in its subnets, never the first of them.
GATEWAY, PREFIX_LENGTH = "172.31.0.1", 16
THIRD_MACHINE = "172.31.255.250"
API_PORT = 5000
ENDPOINT_URL = f"http://{API_ADDRESS}:{API_PORT}"
MOTOS_PUBLIC_ADDRESSES = "54.214.0.0/16"
_MOTO_SETTINGS = {
    "MOTO_IAM_LOAD_MANAGED_POLICIES": "true",
    "MOTO_ENABLE_AMI_VALIDATION": "true",
    "MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION": "true",
    "MOTO_EC2_LOAD_DEFAULT_AMIS": "false",
}


@dataclass(frozen=True)
class Options:
    """How the cloud is made; see `scaletrain.emulator.ec2.emulated_ec2`."""

    folder: str
    region: str
    prepared: bool
    image_user: str
    instance_types: tuple[str, ...] = ()
    internet: bool = False


class Cloud:
    """Everything together."""

    def __init__(self, options: Options) -> None:
        self._options = options
        settings = {
            "AWS_ENDPOINT_URL": ENDPOINT_URL,
            # All machines share this computer's cores: the one second that clients give the service is not enough.
            "AWS_METADATA_SERVICE_TIMEOUT": "10",
            "AWS_METADATA_SERVICE_NUM_ATTEMPTS": "3",
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        if options.internet:
            settings |= internet_settings(GATEWAY, except_for=["172.31.0.0/16"])
        self.machines = Machines(
            Path(options.folder),
            gateway=GATEWAY,
            prefix_length=PREFIX_LENGTH,
            settings=settings,
            prepared=options.prepared,
        )
        self.account = Account(options.region)
        self._clients: dict[str, Any] = {}
        self._lock = threading.Lock()

    def start(self) -> Mapping[str, Action]:
        """Bring up the network, the API, the metadata service and the laptop; returns what may be asked."""
        start_places(self.machines, networks=[MOTOS_PUBLIC_ADDRESSES])
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

        self.account.prepare(self._options.instance_types)
        self.gate = Gate(DomainDispatcherApplication(create_backend_app), self.account, threading.Event())
        services = (API_ADDRESS, METADATA_ADDRESS, GATEWAY)
        self.instances = Instances(self.account, self.gate, user=self._options.image_user, services=services)
        serve(self.gate, API_PORT)
        ec2_metadata.MetadataService(self.account, self.instances.subject_at).start()
        Keeper(
            self.machines,
            changed=self.gate.changed,
            wanted=self.instances.wanted,
            boot_of=self.instances.boot_of,
            settled=lambda _: None,  # moto says at once that it is so
        ).start()
        return {
            **machine_actions(self.machines, third_address=THIRD_MACHINE),
            **log_actions(self.gate.log, self.gate.failures),
            "instances": self.told_instances,
            "call": self.call,
            "advise_rebalance": self.instances.advise_rebalance,
            "preempt": self.instances.preempt,
            "add_image": lambda image_id, name: self.account.add_image(image_id, name=name),
            "add_security_group": self.add_security_group,
            "add_subnet": self.account.add_subnet,
        }

    def told_instances(self) -> list[dict[str, Any]]:
        """What EC2 says of each instance."""
        found = []
        for each in self.instances.all():
            tags = {tag["key"]: tag["value"] for tag in each.get_tags()}
            profile = (each.iam_instance_profile or {}).get("Arn", "")
            found.append(
                {
                    "id": each.id,
                    "hostname": hostname_of(each) if each.private_ip else "",
                    "address": each.private_ip or "",
                    "public_address": each.public_ip or "",
                    "state": each.state,
                    "instance_type": each.instance_type,
                    "market": each.lifecycle or "on-demand",
                    "node_type": tags.get("ray-user-node-type", ""),
                    "node_kind": tags.get("ray-node-type", ""),
                    "node_status": tags.get("ray-node-status", ""),
                    "profile": profile.rpartition("/")[2],
                    "state_reason": each.state_reason.code or "",
                }
            )
        return found

    def call(self, service: str, operation: str, arguments: dict[str, Any]) -> Any:
        """Call the API as the account's administrator."""
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError

        with self._lock:
            if service not in self._clients:
                self._clients[service] = boto3.client(
                    service,
                    region_name=self._options.region,
                    endpoint_url=f"http://127.0.0.1:{API_PORT}",
                    aws_access_key_id=CLOUD_ACCESS_KEY,
                    aws_secret_access_key="unused",
                    config=Config(retries={"total_max_attempts": 1}),  # a launch that is to fail fails
                )
        try:
            answer = getattr(self._clients[service], operation)(**arguments)
        except (BotoCoreError, ClientError) as error:
            raise ClusterError(f"{service}.{operation}: {error}") from error
        answer.pop("ResponseMetadata", None)
        if "Body" in answer:
            answer["Body"] = answer["Body"].read().decode(errors="replace")
        return answer

    def add_security_group(self, group_id: str, name: str) -> None:
        """Let a group exist that admits SSH from the laptop, and everything from itself."""
        self.account.add_security_group(group_id, name=name, ssh_from=f"{LAPTOP}/32")
        self.gate.changed.set()


def main() -> None:
    """Serve until stdin ends."""
    os.environ.update(_MOTO_SETTINGS)
    options = json.loads(sys.argv[1])
    cloud = Cloud(Options(**{**options, "instance_types": tuple(options["instance_types"])}))
    serve_lines(cloud.start)


if __name__ == "__main__":
    main()
