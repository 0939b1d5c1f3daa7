"""storage on Google Cloud Storage: buckets, refusals, and uploads in parts."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from fault_proxy import FaultProxy
from scaletrain import storage
from scaletrain.errors import AccessError, NotFoundError, StorageError
from scaletrain.storage import retry


@pytest.fixture(autouse=True)
def fresh_connections(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Wait little between attempts, and let no test see another's options through a connection that was kept."""
    monkeypatch.setattr(retry, "FIRST_WAIT_S", 0.001)
    yield
    storage.configure("gs://any", {"token": "anon"})


@pytest.fixture
def gcs_proxy(gcs_server: str) -> Iterator[FaultProxy]:
    """A proxy before the GCS server, which all of storage goes through."""
    with FaultProxy(gcs_server) as proxy:
        storage.configure("gs://any", {"endpoint_url": proxy.url, "token": "anon"})
        yield proxy


def test_a_missing_bucket_is_named(gcs_server: str) -> None:
    """Whatever is asked of a bucket that is not there, the error names the bucket and says what to do."""
    url = "gs://no-such-bucket-here/x"
    actions = [
        lambda: storage.read_bytes(url),
        lambda: storage.write_bytes(url, b"x"),
        lambda: storage.write_bytes(url, bytes(17 * 2**20)),
        lambda: storage.create(url, b"x"),
        lambda: storage.exists(url),
        lambda: storage.info(url),
        lambda: storage.open_read(url),
        lambda: storage.list_objects(url),
        lambda: storage.list_folders(url),
        lambda: storage.glob(url + "/*.json"),
        lambda: storage.remove(url),
    ]
    for number, action in enumerate(actions):
        with pytest.raises(NotFoundError, match=r"there is no bucket 'no-such-bucket-here'; check the name") as raised:
            action()
        assert raised.value.exit_code == 2, number


def test_no_network_is_told_from_a_missing_object(gcs_bucket: str) -> None:
    """A port where nobody listens gives a StorageError about the network."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        endpoint_url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        storage.configure(gcs_bucket, {"endpoint_url": endpoint_url, "token": "anon"})
        with pytest.raises(StorageError, match=r"no answer .*check the network"):
            storage.exists(storage.join(gcs_bucket, "x"))


@pytest.mark.parametrize(
    ("status", "message", "kind", "text"),
    [
        (401, "Invalid Credentials", AccessError, "credentials .*gcloud auth application-default login"),
        (403, "no storage.objects.create access", AccessError, "access denied.*Storage Object Admin"),
        (404, "The specified bucket does not exist.", NotFoundError, "there is no bucket 'bucket'"),
        (429, "rateLimitExceeded", StorageError, r"overloaded \(429\)"),
        (503, "backendError", StorageError, r"overloaded \(503\)"),
    ],
)
def test_every_refusal_names_its_likely_cause(
    gcs_proxy: FaultProxy, status: int, message: str, kind: type[StorageError], text: str
) -> None:
    """What GCS refuses is told apart: bad or old credentials, no permission, no bucket, a busy store."""
    body = orjson.dumps({"error": {"code": status, "message": message}})
    gcs_proxy.inject("answer", lambda request: True, times=100, status=status, body=body)
    with pytest.raises(kind, match=rf"^gs://bucket/x: .*{text}") as raised:
        storage.write_bytes("gs://bucket/x", b"x")
    assert type(raised.value) is kind


def test_a_file_of_several_parts_goes_up_and_comes_down(gcs_bucket: str, tmp_path: Path) -> None:
    """A file that goes up as a resumable upload arrives whole, and its creation is conditional too."""
    data = os.urandom(2**20) * 70 + b"end"
    (tmp_path / "up.bin").write_bytes(data)
    url = storage.join(gcs_bucket, "big.bin")
    storage.upload_file(tmp_path / "up.bin", url)
    storage.download_file(url, tmp_path / "down.bin")
    assert (tmp_path / "down.bin").read_bytes() == data
    assert storage.read_bytes(url, start=5, length=20 * 2**20) == data[5 : 5 + 20 * 2**20]
    assert storage.create(url, b"x") is False
