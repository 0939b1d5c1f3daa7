"""storage on Google Cloud Storage: buckets, refusals, and uploads in parts."""

import multiprocessing
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from fault_proxy import FaultProxy
from scaletrain import storage
from scaletrain.errors import AccessError, ConfigError, NotFoundError, StorageError
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
    """A file that GCS takes in parts arrives whole, and its creation is conditional too."""
    data = os.urandom(2**20) * 70 + b"end"
    (tmp_path / "up.bin").write_bytes(data)
    url = storage.join(gcs_bucket, "big.bin")
    storage.upload_file(tmp_path / "up.bin", url)
    storage.download_file(url, tmp_path / "down.bin")
    assert (tmp_path / "down.bin").read_bytes() == data
    assert storage.read_bytes(url, start=5, length=20 * 2**20) == data[5 : 5 + 20 * 2**20]
    assert storage.create(url, b"x") is False


@pytest.mark.parametrize("url", ["gs://", "gs://bucket-only", "gs://not a bucket/x"])
def test_a_url_without_a_proper_bucket_and_name_is_refused(gcs_server: str, url: str) -> None:
    """A URL that no object can have is told by how it should look."""
    for action in (lambda: storage.write_bytes(url, b"x"), lambda: storage.read_bytes(url)):
        with pytest.raises(NotFoundError, match=r": is not the URL of an object; write gs://bucket/folder/name$"):
            action()


@pytest.mark.parametrize("token", ["/secret/key.json", "google_default"])
def test_credentials_that_an_option_cannot_name_are_refused(gcs_bucket: str, token: str) -> None:
    """The option `token` may only say that there are none; the error names the variable for a key, and no path."""
    storage.configure(gcs_bucket, {"token": token})
    with pytest.raises(ConfigError, match=r"storage.options.token: .*GOOGLE_APPLICATION_CREDENTIALS") as raised:
        storage.read_bytes(storage.join(gcs_bucket, "x"))
    assert "secret" not in str(raised.value)


def test_missing_credentials_say_how_to_log_in(
    gcs_bucket: str, gcs_server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where Google's libraries find no credentials, or a key's file that is not there, the error says what to do."""
    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none"))
    storage.configure(gcs_bucket, {"endpoint_url": gcs_server})
    with pytest.raises(AccessError, match=r"no usable credentials .*gcloud auth application-default login"):
        storage.read_bytes(storage.join(gcs_bucket, "x"))


def test_a_part_that_was_changed_on_the_way_is_sent_again(
    gcs_bucket: str, gcs_proxy: FaultProxy, tmp_path: Path
) -> None:
    """GCS tells the checksum of what it got; a part that differs from what was sent goes up once more."""
    data = os.urandom(2**20) * 20
    (tmp_path / "up.bin").write_bytes(data)
    headers = {"X-Goog-Hash": "crc32c=AAAAAA==", "ETag": '"other"'}
    fault = gcs_proxy.inject("answer", lambda it: "partNumber=2" in it.target, status=200, headers=headers)
    storage.upload_file(tmp_path / "up.bin", storage.join(gcs_bucket, "x"))
    assert fault.times == 0
    assert storage.read_bytes(storage.join(gcs_bucket, "x")) == data


def test_a_forked_process_can_read(gcs_bucket: str) -> None:
    """A process that was forked after the connection was made has one of its own."""
    url = storage.join(gcs_bucket, "x")
    storage.write_bytes(url, b"x")
    child = multiprocessing.get_context("fork").Process(target=storage.read_bytes, args=(url,))
    child.start()
    child.join(timeout=60)
    assert child.exitcode == 0


def test_the_emulator_takes_the_parts_of_googles_own_client(gcs_bucket: str, gcs_server: str, tmp_path: Path) -> None:
    """The XML API that our uploads are tried against is the one that Google's transfer manager speaks."""
    from google.auth.credentials import AnonymousCredentials
    from google.cloud.storage import Client, transfer_manager

    data = os.urandom(2**20) * 12
    (tmp_path / "up.bin").write_bytes(data)
    client = Client(project=None, credentials=AnonymousCredentials(), client_options={"api_endpoint": gcs_server})
    blob = client.bucket(gcs_bucket.removeprefix("gs://")).blob("folder/up.bin")
    transfer_manager.upload_chunks_concurrently(
        str(tmp_path / "up.bin"), blob, chunk_size=5 * 2**20, max_workers=2, worker_type=transfer_manager.THREAD
    )
    assert storage.read_bytes(storage.join(gcs_bucket, "folder/up.bin")) == data
