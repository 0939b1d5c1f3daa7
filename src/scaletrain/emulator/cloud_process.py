"""The process of an emulated cloud, first of its own namespaces: what every cloud has, told by lines of JSON on stdin.

Its end, or the end of whoever started it, ends every machine.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from scaletrain.emulator.machines import Boot, Machines
from scaletrain.errors import ScaletrainError
from scaletrain.log import setup_logging

# Addresses that stand for the internet are those that are kept for documentation.
LAPTOP, LAPTOP_GATEWAY, LAPTOP_PREFIX_LENGTH = "203.0.113.10", "203.0.113.1", 24
API_ADDRESS = "198.51.100.10"
METADATA_ADDRESS = "169.254.169.254"
PROXY_PORT = 3128
Action = Callable[..., Any]


def start_places(machines: Machines, *, networks: Sequence[str]) -> None:
    """Make the network, with the cloud's own services and `networks` on the wire, and start the laptop."""
    # No resolver is in reach, and Python's servers ask for the names of their own addresses: 5 s each in vain.
    subprocess.run(["mount", "--bind", "/dev/null", "/etc/resolv.conf"], check=False, capture_output=True)
    services = [f"{API_ADDRESS}/32", f"{METADATA_ADDRESS}/32", f"{LAPTOP_GATEWAY}/{LAPTOP_PREFIX_LENGTH}"]
    machines.start_network(services, networks)
    laptop = Boot(name="laptop", address=LAPTOP)
    machines.boot_laptop(laptop, gateway=LAPTOP_GATEWAY, prefix_length=LAPTOP_PREFIX_LENGTH)


def internet_settings(gateway: str, *, except_for: Sequence[str]) -> dict[str, str]:
    """The environment in which programs go to the internet by the proxy at the gateway, and to some places directly."""
    proxies = dict.fromkeys(("http_proxy", "https_proxy"), f"http://{gateway}:{PROXY_PORT}")
    return {**proxies, "no_proxy": ",".join(("127.0.0.1", "localhost", API_ADDRESS, METADATA_ADDRESS, *except_for))}


def machine_actions(machines: Machines, *, third_address: str) -> dict[str, Action]:
    """What may be asked of any cloud about its machines."""

    def machine(name: str) -> int:
        """The process id of a machine's PID 1, to enter it by; the third machine is started when first asked for."""
        if name == "third" and name not in machines.names():
            machines.boot(Boot(name="third", address=third_address))
        return machines.init_of(name)

    return {
        "machine": machine,
        "machines": lambda: [name for name in machines.names() if name not in ("laptop", "third")],
        "settings": lambda: machines.settings,
        "crash": machines.crash,
        "cut": machines.cut,
        "heal": machines.heal,
    }


def serve_lines(start: Callable[[], Mapping[str, Action]]) -> None:
    """Start a cloud, then do what each line asks until stdin ends; the answer to a line is one line."""
    setup_logging()
    sys.stdout = sys.stderr  # libraries print; answers alone go to the real one
    try:
        actions = start()
    except ScaletrainError as error:
        _say({"error": str(error)})
        sys.exit(1)
    _say({"result": "ready"})
    for line in sys.stdin:
        request = json.loads(line)
        try:
            _say({"result": actions[request["action"]](**request["arguments"])})
        except ScaletrainError as error:
            _say({"error": str(error)})
    os._exit(0)  # with this process, the kernel ends every machine


def _say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer, default=str), file=sys.__stdout__, flush=True)
