"""Fixtures shared by all tests: real S3 and GCS servers on this machine, fresh buckets, and one root of each kind."""

import gc
import logging
import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from bucket_servers import gcs_process, make_bucket
from scaletrain import storage

# What a command that sees no GPU sets for itself, and the one ninja for all: another version builds everything anew.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A lone worker computes on all cores. Threads that wait for each other by spinning take them from the other tests, and
# while one of them has no core they all spin: such a step takes twenty times its CPU seconds.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Imports of torch, Ray and transformers make a million objects and little garbage: they are seldom looked at.
gc.set_threshold(700, 10, 1000)


# The folders whose files take longest: they go first, so that no core waits for them at the end.
_LONG_FIRST = ("cloud", "end_to_end", "faults", "cluster", "train")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long files first; the order within a file stays."""

    def rank(item: pytest.Item) -> int:
        folder = item.path.parent.name
        return _LONG_FIRST.index(folder) if folder in _LONG_FIRST else len(_LONG_FIRST)

    items.sort(key=rank)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Run moto's S3 server on a free port, point this process and its children at it, and yield its URL."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL", endpoint)
        environment.setenv("AWS_ACCESS_KEY_ID", "testing")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        environment.setenv("AWS_EC2_METADATA_DISABLED", "true")
        environment.delenv("AWS_PROFILE", raising=False)
        yield endpoint
    server.stop()


@pytest.fixture
def s3_bucket(s3_server: str) -> str:
    """Make a bucket for one test and return its URL."""
    import boto3

    name = f"bucket-{uuid.uuid4().hex[:12]}"
    boto3.client("s3").create_bucket(Bucket=name)
    return f"s3://{name}"


@pytest.fixture(scope="session")
def gcs_server() -> Iterator[str]:
    """Run fake-gcs-server on a free port, point this process and its children at it, and yield its URL."""
    with gcs_process() as url, pytest.MonkeyPatch.context() as environment:
        environment.setenv("STORAGE_EMULATOR_HOST", url)
        environment.setenv("FSSPEC_GS_TOKEN", "anon")
        environment.setenv("NO_GCE_CHECK", "true")
        storage.configure("gs://any", {"token": "anon"})
        yield url


@pytest.fixture
def gcs_bucket(gcs_server: str) -> str:
    """Make a bucket for one test and return its URL."""
    url = f"gs://bucket-{uuid.uuid4().hex[:12]}"
    make_bucket(url, gcs_server)
    return url


@pytest.fixture(params=["local", "memory", "s3", "gcs"])
def bucket_root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Return an empty storage root: a local folder, memory, a bucket of S3 and one of GCS, one after the other."""
    if request.param == "local":
        yield str(tmp_path / "bucket")
    elif request.param in ("s3", "gcs"):
        yield request.getfixturevalue(f"{request.param}_bucket") + "/root"
    else:
        root = f"memory://{uuid.uuid4().hex[:12]}"
        yield root
        storage.remove(root)
