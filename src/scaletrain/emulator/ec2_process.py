"""The emulated EC2 itself: the first process of its own namespaces, told what to do by lines of JSON on its stdin.

Started by `scaletrain.emulator.ec2`. Its end, or the end of whoever started it, ends every machine.
"""

import json
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scaletrain.emulator import metadata
from scaletrain.emulator.account import CLOUD_ACCESS_KEY, LAPTOP_ACCESS_KEY, Account
from scaletrain.emulator.api import ApiCall, Gate, LaunchFailure, serve
from scaletrain.emulator.keeper import Keeper
from scaletrain.emulator.machines import Boot, Machines
from scaletrain.errors import ClusterError, ScaletrainError
from scaletrain.log import get_logger, setup_logging

_log = get_logger(__name__)
# The default VPC is 172.31.0.0/16: moto hands out addresses in its subnets, never the first of them. Addresses that
# stand for the internet are those that are kept for documentation, but for the ones that moto makes up.
GATEWAY, PREFIX_LENGTH = "172.31.0.1", 16
THIRD_MACHINE = "172.31.255.250"
LAPTOP, LAPTOP_GATEWAY, LAPTOP_PREFIX_LENGTH = "203.0.113.10", "203.0.113.1", 24
API_ADDRESS, API_PORT = "198.51.100.10", 5000
PROXY_PORT = 3128
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
    """How the cloud is made; see `scaletrain.emulator.ec2.EmulatedEC2`."""

    folder: str
    region: str
    prepared: bool
    image_user: str
    instance_types: tuple[str, ...] = ()
    internet: bool = False


class Cloud:
    """Everything together; the methods named `do_...` are what may be asked for on stdin."""

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
            settings |= dict.fromkeys(("http_proxy", "https_proxy"), f"http://{GATEWAY}:{PROXY_PORT}")
            settings["no_proxy"] = f"127.0.0.1,localhost,{API_ADDRESS},{metadata.ADDRESS},172.31.0.0/16"
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

    def start(self) -> None:
        """Bring up the network, the API, the metadata service and the laptop."""
        services = [f"{API_ADDRESS}/32", f"{metadata.ADDRESS}/32", f"{LAPTOP_GATEWAY}/{LAPTOP_PREFIX_LENGTH}"]
        self.machines.start_network(services, [MOTOS_PUBLIC_ADDRESSES])
        laptop = Boot(name="laptop", address=LAPTOP)
        self.machines.boot_laptop(laptop, gateway=LAPTOP_GATEWAY, prefix_length=LAPTOP_PREFIX_LENGTH)
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

        self.account.prepare(self._options.instance_types)
        self.gate = Gate(DomainDispatcherApplication(create_backend_app), self.account, threading.Event())
        self.keeper = Keeper(
            self.machines,
            self.account,
            self.gate,
            user=self._options.image_user,
            services=(API_ADDRESS, metadata.ADDRESS, GATEWAY),
        )
        serve(self.gate, API_PORT)
        metadata.MetadataService(self.account, self.keeper.subject_at).start()
        self.keeper.start()

    def do_machine(self, name: str) -> int:
        """The process id of a machine's PID 1, to enter it by; the third machine is started when first asked for."""
        if name == "third" and name not in self.machines.names():
            self.machines.boot(Boot(name="third", address=THIRD_MACHINE))
        return self.machines.init_of(name)

    def do_machines(self) -> list[str]:
        """The machines that are on."""
        return self.machines.names()

    def do_settings(self) -> dict[str, str]:
        """The environment of a machine's sessions."""
        return self.machines.settings

    def do_instances(self) -> list[dict[str, Any]]:
        """What EC2 says of each instance."""
        found = []
        for each in self.keeper.instances():
            tags = {tag["key"]: tag["value"] for tag in each.get_tags()}
            profile = (each.iam_instance_profile or {}).get("Arn", "")
            found.append(
                {
                    "id": each.id,
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

    def do_aws(self, service: str, operation: str, arguments: dict[str, Any]) -> Any:
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

    def do_api_log(self) -> list[dict[str, Any]]:
        """Every call so far."""
        calls: list[ApiCall] = list(self.gate.calls)
        return [asdict(call) for call in calls]

    def do_now(self) -> float:
        """This moment on the clock of the API's log."""
        return self.gate.now_s()

    def do_fail_launches(self, code: str, count: int, market: str, instance_type: str) -> None:
        """Let the next launches fail."""
        self.gate.failures = [LaunchFailure(code, count, market, instance_type)] if count else []

    def do_advise_rebalance(self, instance_id: str) -> None:
        """Tell a machine that it may be taken."""
        self.keeper.advise_rebalance(instance_id)

    def do_preempt(self, instance_id: str, notice_s: float) -> None:
        """Give notice, then take the machine."""
        self.keeper.preempt(instance_id, notice_s)

    def do_crash(self, instance_id: str) -> None:
        """Let a machine die; EC2 goes on saying that it runs."""
        self.machines.crash(instance_id)

    def do_cut(self, instance_id: str) -> None:
        """Unplug a machine."""
        self.machines.cut(instance_id)

    def do_heal(self, instance_id: str) -> None:
        """Plug a machine in again."""
        self.machines.heal(instance_id)

    def do_add_image(self, image_id: str, name: str) -> None:
        """Let an image exist."""
        self.account.add_image(image_id, name=name)

    def do_add_security_group(self, group_id: str, name: str) -> None:
        """Let a group exist that admits SSH from the laptop, and everything from itself."""
        self.account.add_security_group(group_id, name=name, ssh_from=f"{LAPTOP}/32")
        self.gate.changed.set()

    def do_add_subnet(self, subnet_id: str, zone: str) -> None:
        """Let a default subnet have this id."""
        self.account.add_subnet(subnet_id, zone)


def main() -> None:
    """Serve until stdin ends; the answer to each line is one line."""
    os.environ.update(_MOTO_SETTINGS)
    setup_logging()
    sys.stdout = sys.stderr  # libraries print; answers alone go to the real one
    options = json.loads(sys.argv[1])
    cloud = Cloud(Options(**{**options, "instance_types": tuple(options["instance_types"])}))
    try:
        cloud.start()
    except ScaletrainError as error:
        _say({"error": str(error)})
        sys.exit(1)
    _say({"result": "ready", "keys": [LAPTOP_ACCESS_KEY]})
    for line in sys.stdin:
        request = json.loads(line)
        action: Callable[..., Any] = getattr(cloud, f"do_{request['action']}")
        try:
            _say({"result": action(**request["arguments"])})
        except ScaletrainError as error:
            _say({"error": str(error)})
    os._exit(0)  # with this process, the kernel ends every machine


def _say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer, default=str), file=sys.__stdout__, flush=True)


if __name__ == "__main__":
    main()
