"""ssh_tunnel: a real SSH server on this machine, a way through it, and a reason wherever there is none."""

import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from scaletrain.cluster.ssh_tunnel import Host, UnreachableError, open_tunnel
from scaletrain.errors import ClusterError

SSHD = Path("/usr/sbin/sshd")
pytestmark = pytest.mark.skipif(
    not SSHD.exists() or os.geteuid() != 0, reason="needs root and sshd (apt-get install openssh-server)"
)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """An SSH server on a free port that lets one key in."""
    folder = tmp_path_factory.mktemp("sshd")
    for name in ("key", "host_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    Path("/run/sshd").mkdir(exist_ok=True)
    options = [f"AuthorizedKeysFile={folder}/key.pub", "StrictModes=no", "UsePAM=no", "PidFile=none"]
    options += ["ListenAddress=127.0.0.1", "PermitRootLogin=prohibit-password"]
    arguments = [str(SSHD), "-D", "-f", "/dev/null", "-h", str(folder / "host_key"), "-p", str(port)]
    server = subprocess.Popen([*arguments, *(word for each in options for word in ("-o", each))])
    deadline = time.monotonic() + 10
    while socket.socket().connect_ex(("127.0.0.1", port)):
        assert server.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    yield Host(address="127.0.0.1", user="root", key=folder / "key", port=port)
    server.terminate()
    server.wait(timeout=10)


@pytest.fixture
def web_port() -> Iterator[int]:
    """Something that listens on the loopback."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def test_a_tunnel_leads_to_the_ports_and_ends_with_the_block(host: Host, web_port: int) -> None:
    """Two ports at once; afterwards nothing listens and no ssh is left."""
    with open_tunnel(host, (web_port, web_port)) as ports:
        for port in ports:
            assert urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10).status == 200
    assert all(socket.socket().connect_ex(("127.0.0.1", port)) for port in ports)
    assert not [child for child in psutil.Process().children() if child.name() == "ssh"]


def test_a_tunnel_ends_with_its_process_however_that_ends(host: Host, web_port: int) -> None:
    """A killed command leaves no way into the cluster open."""
    program = (
        "import sys, time; from pathlib import Path\n"
        "from scaletrain.cluster.ssh_tunnel import Host, open_tunnel\n"
        "with open_tunnel(Host('127.0.0.1', 'root', Path(sys.argv[1]), None, int(sys.argv[2])), [int(sys.argv[3])]):\n"
        "    print('up', flush=True); time.sleep(60)"
    )
    arguments = [sys.executable, "-c", program, str(host.key), str(host.port), str(web_port)]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    (ssh,) = [child for child in psutil.Process(process.pid).children() if child.name() == "ssh"]
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=10)
    ssh.wait(timeout=10)


def test_a_refused_key_is_said(host: Host, tmp_path: Path) -> None:
    """The message names the key that was tried."""
    other = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(other)], check=True)
    with pytest.raises(ClusterError, match=f"does not accept {other}"), open_tunnel(replace(host, key=other), (80,)):
        pass


def test_a_key_that_others_can_read_is_said(host: Host, tmp_path: Path) -> None:
    """ssh refuses it, and chmod mends it."""
    assert host.key is not None
    loose = tmp_path / "loose"
    loose.write_bytes(host.key.read_bytes())
    loose.chmod(0o644)
    with pytest.raises(ClusterError, match="chmod 600"), open_tunnel(replace(host, key=loose), (80,)):
        pass


def test_a_missing_key_is_said(host: Host, tmp_path: Path) -> None:
    """Nothing is started for it."""
    with pytest.raises(ClusterError, match="no such SSH key"), open_tunnel(replace(host, key=tmp_path / "x"), (80,)):
        pass


def test_a_silent_machine_is_unreachable(host: Host) -> None:
    """That may pass, so it is an error of its own kind."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = free.getsockname()[1]
    with pytest.raises(UnreachableError, match="still starting"), open_tunnel(replace(host, port=closed), (80,)):
        pass
