"""Google's APIs alone, without machines and without root: an instance that is launched simply runs.

    python -m scaletrain.emulator.google_rest FOLDER

Prints one line of JSON with its `address` (host:port, HTTPS for every *.googleapis.com), the file of `trusted`
authorities, and a `proxy` (host:port) that brings a client's CONNECT to it, whatever the host; ends with its stdin.
"""

import json
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path

from scaletrain.emulator.certificates import make_certificate
from scaletrain.emulator.gcs_gate import start_store
from scaletrain.emulator.google_calls import administer
from scaletrain.emulator.google_cloud import GoogleCloud
from scaletrain.emulator.google_server import serve
from scaletrain.errors import ClusterError


def main() -> None:
    """Serve until stdin ends; a line on it is a call of the cloud's own: [service, operation, arguments]."""
    folder, project, region = Path(sys.argv[1]), *(sys.argv[2:] or ["emulated-project", "us-central1"])
    folder.mkdir(parents=True, exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    store = start_store(port)
    try:
        store_address = f"127.0.0.1:{port}"
        cloud = GoogleCloud(project, region, operations_last_s=0, object_store=store_address)
        cloud.compute.settle_at_once = True
        certificate = make_certificate(folder, ["*.googleapis.com", "googleapis.com"])
        host, port = serve(cloud.answer, ("127.0.0.1", 0), certificate)
        proxy = _start_proxy(host, port)
        _say({"address": f"{host}:{port}", "trusted": str(certificate.trusted), "proxy": proxy})
        for line in sys.stdin:
            service, operation, arguments = json.loads(line)
            try:
                _say({"result": _do(cloud, service, operation, arguments)})
            except ClusterError as error:
                _say({"error": str(error)})
    finally:
        store.kill()
        store.wait()


def _do(cloud: GoogleCloud, service: str, operation: str, arguments: dict[str, object]) -> object:
    """`["quota", METRIC, {"limit": 0}]` sets a quota; everything else is an API's method."""
    if service != "quota":
        return administer(cloud, service, operation, arguments)
    cloud.catalog.limits[operation] = float(str(arguments["limit"]))
    return None


def _say(answer: dict[str, object]) -> None:
    print(json.dumps(answer), flush=True)


def _start_proxy(host: str, port: int) -> str:
    """Start an HTTP proxy all of whose connections lead to the APIs."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)

    def accept() -> None:
        while True:
            client, _ = listener.accept()
            threading.Thread(target=_connect, args=(client, host, port), daemon=True).start()

    threading.Thread(target=accept, daemon=True, name="proxy").start()
    return f"127.0.0.1:{listener.getsockname()[1]}"


def _connect(client: socket.socket, host: str, port: int) -> None:
    with client, suppress(OSError):
        head = b""
        while b"\r\n\r\n" not in head:
            data = client.recv(4096)
            if not data:
                return
            head += data
        with socket.create_connection((host, port)) as server:
            client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            back = threading.Thread(target=_copy, args=(server, client), daemon=True)
            back.start()
            _copy(client, server)
            back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    main()
