"""storage at size: listings of 50,000 objects by the page, and files of a gigabyte in bounded memory.

fake-gcs-server takes time with the square of what it holds, so there GCS is tried with less of it.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bucket_servers import environment_of, gcs_process, make_bucket, s3_process
from fault_proxy import FaultProxy
from scaletrain import storage

PER_FOLDER = 4
MIB = 2**20


def names(num_objects: int) -> Iterator[str]:
    """Four objects in each of many folders, as of checkpoints with their shards."""
    return (f"steps/step-{number // PER_FOLDER:06d}/{number % PER_FOLDER}.bin" for number in range(num_objects))


@contextmanager
def full_s3(num_objects: int) -> Iterator[tuple[str, str]]:
    """An S3 server in this process, its bucket filled without its HTTP."""
    import boto3
    from moto.core import DEFAULT_ACCOUNT_ID
    from moto.s3.models import s3_backends

    endpoint_url = os.environ["AWS_ENDPOINT_URL"]
    boto3.client("s3").create_bucket(Bucket="full")
    for name in names(num_objects):
        s3_backends[DEFAULT_ACCOUNT_ID]["aws"].put_object("full", name, b"x")
    yield "s3://full", endpoint_url
    del s3_backends[DEFAULT_ACCOUNT_ID]["aws"].buckets["full"]


@contextmanager
def full_gcs(num_objects: int, folder: Path) -> Iterator[tuple[str, str]]:
    """A GCS server that has read its objects from a disk."""
    for name in names(num_objects):
        path = folder / "full" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    with gcs_process(preloaded=folder) as url:
        yield "gs://full", url


@pytest.mark.parametrize(
    ("kind", "num_objects"), [("s3", 2_500), ("gcs", 1_500), pytest.param("s3", 50_000, marks=pytest.mark.soak)]
)
def test_a_listing_costs_a_request_for_each_thousand_objects(
    kind: str, num_objects: int, s3_server: str, tmp_path: Path
) -> None:
    """No object is asked for by itself: pages of a thousand; and as few for the folders and for what exists."""
    options = {} if kind == "s3" else {"token": "anon"}
    full_store = full_s3(num_objects) if kind == "s3" else full_gcs(num_objects, tmp_path)
    with full_store as (root, endpoint_url), FaultProxy(endpoint_url) as proxy:
        storage.configure(root, {"endpoint_url": proxy.url, **options})
        found = storage.list_objects(root)
        assert len(found) == num_objects and found[-1].url == f"{root}/{list(names(num_objects))[-1]}"
        assert len(proxy.requests) == -(-num_objects // 1000)
        proxy.reset()
        assert len(storage.list_folders(f"{root}/steps")) == num_objects // PER_FOLDER
        assert len(proxy.requests) <= num_objects // PER_FOLDER // 1000 + 1
        proxy.reset()
        assert storage.exists(f"{root}/steps") and len(storage.list_objects(f"{root}/steps/step-000007")) == 4
        assert len(proxy.requests) == 2 + 1
        storage.configure(root, options)


@pytest.mark.soak
@pytest.mark.parametrize(("kind", "size_bytes"), [("s3", 1024 * MIB), ("gcs", 384 * MIB)])
def test_a_gigabyte_goes_up_and_comes_down_in_bounded_memory(kind: str, size_bytes: int, tmp_path: Path) -> None:
    """A big file goes up in parts and comes down in pieces, while the process grows by less than 300 MiB."""
    with (tmp_path / "up").open("wb") as file:
        file.truncate(size_bytes)
        for offset in range(0, size_bytes, 77 * MIB):
            file.seek(offset)
            file.write(b"%d" % offset)
    grown_bytes = []
    with s3_process() if kind == "s3" else gcs_process() as endpoint_url:
        url = "s3://big" if kind == "s3" else "gs://big"
        make_bucket(url, endpoint_url)
        for direction, path in (("upload", tmp_path / "up"), ("download", tmp_path / "down")):
            script = str(Path(__file__).parents[1] / "bucket_upload.py")
            command = [sys.executable, script, direction, str(path), f"{url}/file"]
            environment = {**os.environ, **environment_of(endpoint_url)}
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, timeout=250)
            grown_bytes.append(int(done.stdout))
    subprocess.run(["cmp", str(tmp_path / "up"), str(tmp_path / "down")], check=True)
    print(f"{kind}: grew by {[each // MIB for each in grown_bytes]} MiB for upload and download")
    assert max(grown_bytes) < 300 * MIB
