"""One arm's machine room: the first process of its own namespaces, told what to do by lines of JSON on its stdin.

Started by `soaking.sitting`. It has the bucket, the cloud's metadata service, the machines and the driver. Its end, or
the end of whoever started it, ends everything in it, however that comes.
"""

import http.server
import json
import os
import queue
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from bucket_servers import make_bucket
from scaletrain import storage
from soaking import faults
from soaking.arms import BUCKET, Prepared, bucket_settings, fill_bucket, make_arm
from soaking.nodes import GATEWAY, METADATA, Node, Nodes, child_of, wait_until_up
from soaking.observed import End
from soaking.schedule import Fault

_BUCKET_URL = f"http://{GATEWAY}:5000"
_LOOK_S = 0.5
_AGAIN_S = 5.0  # after a command ended by itself, until it is started again
_STOP_LIMIT_S = 90.0
_STARTS = 3
# A node that is lost is known to be after some seconds, as with cluster/aws.yaml; a little looser, since all machines
# of an arm share one core. The same in both arms.
_FAILURE_DETECTION = {
    "RAY_health_check_initial_delay_ms": "5000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_raylet_rpc_server_reconnect_timeout_base_s": "1",
    "RAY_raylet_rpc_server_reconnect_timeout_max_s": "3",
    "RAY_core_worker_rpc_server_reconnect_timeout_base_s": "1",
    "RAY_core_worker_rpc_server_reconnect_timeout_max_s": "3",
}


class Site:
    """Everything of one arm; the methods named `do_...` are what may be asked for on stdin."""

    def __init__(self, arm: str, folder: str, data: dict[str, str]) -> None:
        self.folder = Path(folder)
        self._data = Prepared(**data)
        self.arm = make_arm("scaletrain" if arm == "scaletrain" else "stock", self.folder, self._data)
        self.is_stock = arm != "scaletrain"
        settings = {
            "PATH": f"{Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": os.environ.get("HOME", "/root"),
            "RAY_USAGE_STATS_ENABLED": "0",
            "OMP_NUM_THREADS": "1",
            # A token of its own: Ray would take one that it finds in the user's home.
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.folder / "auth_token"),
            "RAY_TMPDIR": "/tmp",
            "RAY_raylet_start_wait_time_s": "120",
            # Ray's workers give way to all else, which is nothing on a machine of their own; here it is the bucket.
            "RAY_worker_niceness": "0",
            "TORCH_EXTENSIONS_DIR": str(self.folder / "extensions"),
            **bucket_settings(""),
            **_FAILURE_DETECTION,
        }
        _write_token(self.folder / "auth_token")
        shutil.copytree(self._data.extensions, self.folder / "extensions")
        self.nodes = Nodes(self.folder, settings=settings, bucket_url=_BUCKET_URL)
        self.notices: dict[str, str] = {}  # by a machine's address, when it is taken
        self.head: Node | None = None
        self._driver: subprocess.Popen[bytes] | None = None
        self._drivers = 0
        self._driver_is_wanted = False
        self._is_making_a_fault = False
        self._lock = threading.RLock()  # of the driver and of what was seen

    def do_start(self) -> None:
        """Bring up network, bucket and cluster, and start the training."""
        self.nodes.start_network()
        threading.Thread(target=_metadata_server(self.notices).serve_forever, daemon=True).start()
        with (self.folder / "bucket.log").open("ab") as log:
            command = [sys.executable, "-m", "moto.server", "-H", GATEWAY, "-p", "5000"]
            subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        _until_it_is_there(lambda: make_bucket(BUCKET, _BUCKET_URL))
        storage.configure(BUCKET, {})
        fill_bucket(self._data)
        self.start_cluster()
        self.start_driver()
        threading.Thread(target=self._watch, daemon=True).start()

    def do_fault(self, fault: dict[str, Any]) -> dict[str, Any]:
        """Make a fault, and mend what its kind says; returns when it was, and how many processes or requests it hit."""
        begun = time.time()
        self._is_making_a_fault = True
        try:
            return {"time": begun, "hit": faults.make(self, Fault(**fault))}
        finally:
            self._is_making_a_fault = False

    def do_observed(self) -> dict[str, Any]:
        """What has been seen so far."""
        with self._lock:
            self.arm.look()
            return self.arm.seen.record()

    def do_finish(self) -> dict[str, Any]:
        """End the training in order, and prove it."""
        self._driver_is_wanted = False
        with self._lock:
            driver = self._driver
        if driver is not None and driver.poll() is None:
            with suppress(ProcessLookupError, IndexError):
                os.kill(child_of(driver.pid), signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                driver.wait(timeout=_STOP_LIMIT_S)
        with self._lock:
            self.arm.look()
            return self.arm.verify()

    # --- for faults --------------------------------------------------------------------------------------------------

    def workers(self) -> list[tuple[Node, int]]:
        """The training workers that there are, with the machine of each."""
        return [(node, pid) for node in self.nodes.all() for pid in self.nodes.processes(node, "ray::RayTrainWorker")]

    def start_cluster(self) -> None:
        """Start a head without room for workers, and two nodes that have room for one each."""
        self.head = self._start_node("--head", "--port=6379", "--num-cpus=0")
        for _ in range(2):
            self.start_worker_node()

    def start_worker_node(self) -> Node:
        """Start a machine that joins the cluster, and wait until it has."""
        assert self.head is not None
        return self._start_node(f"--address={self.head.address}:6379", "--num-cpus=2")

    def start_driver(self) -> None:
        """Start the command on the head."""
        assert self.head is not None
        with self._lock:
            self._drivers += 1
            self._driver = self.nodes.start_there(
                self.head,
                self.arm.command(),
                log=self.folder / f"driver-{self._drivers:03d}.log",
                RAY_ADDRESS=f"{self.head.address}:6379",
            )
            self._driver_is_wanted = True

    def kill_driver(self) -> int:
        """SIGKILL to the command."""
        with self._lock:
            self._driver_is_wanted = False
            if self._driver is None or self._driver.poll() is not None:
                return 0
            os.kill(child_of(self._driver.pid), signal.SIGKILL)
            self._driver.wait()
            return 1

    def kill_cluster(self) -> int:
        """SIGKILL to everything on all machines, the command on the head with it."""
        with self._lock:
            self._driver_is_wanted = False
            killed = self.nodes.kill(*self.nodes.all())
            if self._driver is not None:
                self._driver.wait()
            return killed

    # --- the rest ----------------------------------------------------------------------------------------------------

    def _start_node(self, *options: str) -> Node:
        """Start a machine and wait until Ray runs there; on a busy core Ray gives up now and then: then another one."""
        for _ in range(_STARTS):
            address = f"--node-ip-address={self.nodes.next_address()}"
            command = ["ray", "start", "--block", "--object-store-memory=100000000", address, *options]
            node = self.nodes.start(*command)
            if wait_until_up(node):
                return node
            self.nodes.kill(node)
        raise RuntimeError(f"Ray did not start {_STARTS} times: {(node.folder / 'ray.log').read_text()[-2000:]}")

    def _watch(self) -> None:
        """Take in what the arm leaves behind, and start its command again where it ended by itself."""
        while True:
            time.sleep(_LOOK_S)
            try:
                with self._lock:
                    self.arm.look()
                    self._start_again_if_it_ended()
                    self._replace_nodes_that_ended()
            except Exception:  # noqa: BLE001 -- told; a look that failed is taken again
                traceback.print_exc()
            for node in self.nodes.all():
                node.proxy.requests.clear()

    def _start_again_if_it_ended(self) -> None:
        if not self._driver_is_wanted or self._driver is None or (code := self._driver.poll()) is None:
            return
        said = (self.folder / f"driver-{self._drivers:03d}.log").read_text(errors="replace").strip()
        self.arm.seen.ends.append(End(time.time(), code, said[-1500:]))
        time.sleep(_AGAIN_S)
        self.start_driver()

    def _replace_nodes_that_ended(self) -> None:
        """What an autoscaler would do, where no fault did it: Ray may take a busy machine for dead."""
        for node in self.nodes.all():
            if not self._is_making_a_fault and node is not self.head and node.process.poll() is not None:
                self.arm.seen.ends.append(End(time.time(), node.process.returncode, f"{node.name} ended by itself"))
                self.nodes.kill(node)
                self.start_worker_node()


def _metadata_server(notices: dict[str, str]) -> http.server.ThreadingHTTPServer:
    """EC2's metadata service in its first version: it knows machines by their addresses, and says when they end."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """No log: the machines poll."""

        def do_PUT(self) -> None:
            self._answer(404)

        def do_GET(self) -> None:
            ends = notices.get(self.client_address[0])
            if self.path == "/latest/meta-data/instance-id":
                self._answer(200, "i-0123456789abcdef0")
            elif self.path == "/latest/meta-data/spot/instance-action" and ends is not None:
                self._answer(200, json.dumps({"action": "terminate", "time": ends}))
            else:
                self._answer(404)

        def _answer(self, status: int, text: str = "") -> None:
            self.send_response(status)  # with a Date
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

    server = http.server.ThreadingHTTPServer((METADATA, 80), Handler)
    server.daemon_threads = True
    return server


def _write_token(path: Path) -> None:
    path.write_text(secrets.token_hex(32))
    path.chmod(0o600)


def _until_it_is_there(ask: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            ask()
            return
        except Exception:  # the bucket's server is starting; the last answer is raised
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)


def _lines_of_stdin() -> "queue.Queue[str]":
    """Lines as they come; at their end, also in the middle of a request, this process ends, and the kernel all else."""
    lines: queue.Queue[str] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            lines.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return lines


def main() -> None:
    """Serve until stdin ends; the answer to each line is one line."""
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries print
    options = json.loads(sys.argv[1])
    os.environ.update(bucket_settings(_BUCKET_URL))
    lines, site = _lines_of_stdin(), Site(**options)
    while True:
        request = json.loads(lines.get())
        try:
            answer = {"result": getattr(site, f"do_{request['do']}")(**request["with"])}
        except Exception:  # noqa: BLE001 -- raised by the one who asked
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
