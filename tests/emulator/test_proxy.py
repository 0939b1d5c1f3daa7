"""proxy: bare machines reach the internet's packages through this computer, and nothing of this computer."""

import socket
import threading
from pathlib import Path

import pytest
from launching import launch

from scaletrain.emulator.ec2 import emulated_ec2

FETCH = ["curl", "-s", "-m", "20", "-o", "/dev/null", "-w", "%{http_code}"]


def reaches_the_index() -> bool:
    try:
        socket.create_connection(("pypi.org", 443), timeout=5).close()
    except OSError:
        return False
    return True


def test_this_computers_own_services_are_out_of_reach(folder: Path) -> None:
    """Neither its loopback nor a private address is connected to, by either kind of request; each try is noted."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        met: list[object] = []
        threading.Thread(target=lambda: met.append(server.accept()), daemon=True).start()
        with emulated_ec2(folder, internet=True) as cloud:
            (machine,) = launch(cloud)
            proxy = ["--noproxy", "", "-x", "http://172.31.0.1:3128"]
            for more in ([], ["-p"]):
                done = cloud.on_machine(machine, [*FETCH, *proxy, *more, f"http://127.0.0.1:{port}/"])
                assert done.stdout in ("502", "000"), done.stdout
            assert cloud.fetches(machine) == ["127.0.0.1", "127.0.0.1"]
        assert met == []


@pytest.mark.soak
def test_a_bare_machine_installs_a_package(folder: Path) -> None:
    """The user's own set-up commands run as they would on a plain image."""
    if not reaches_the_index():
        pytest.skip("no way to pypi.org from here")
    with emulated_ec2(folder, prepared=False, internet=True) as cloud:
        (machine,) = launch(cloud)
        install = (
            "cd /tmp && python3 -m venv --without-pip v && curl -sfo w https://pypi.org/simple/six/ && grep -c six w"
        )
        done = cloud.on_machine(machine, ["sh", "-c", install])
        assert done.returncode == 0, done.stdout
        assert int(done.stdout.split()[-1]) > 1
