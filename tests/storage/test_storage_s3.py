"""storage on S3: buckets, credentials, refusals, and keys that only a bucket can have."""

import multiprocessing
import os
import socket
from collections.abc import Iterator
from pathlib import Path

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
    storage.configure("s3://any", {})


@pytest.fixture
def s3_proxy(s3_server: str) -> Iterator[FaultProxy]:
    """A proxy before the S3 server, which all of storage goes through."""
    with FaultProxy(s3_server) as proxy:
        storage.configure("s3://any", {"endpoint_url": proxy.url})
        yield proxy


def urls(root: str, objects: list[storage.ObjectInfo]) -> list[str]:
    return [each.url.removeprefix(root) for each in objects]


def error_body(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>m</Message></Error>".encode()


def test_a_missing_bucket_is_named(s3_server: str) -> None:
    """Whatever is asked of a bucket that is not there, the error names the bucket and says what to do."""
    url = "s3://no-such-bucket-here/x"
    actions = [
        lambda: storage.read_bytes(url),
        lambda: storage.write_bytes(url, b"x"),
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


@pytest.mark.parametrize("url", ["s3://", "s3://bucket-only", "s3://not a bucket/x"])
def test_a_url_without_a_proper_bucket_and_name_is_refused(s3_server: str, url: str) -> None:
    """A URL that no object can have is told by how it should look, not by a page of regular expressions."""
    with pytest.raises(NotFoundError, match=r"^\S*[^\n]*: is not the URL of an object; write s3://bucket/folder/name$"):
        storage.write_bytes(url, b"x")


def test_missing_credentials_say_how_to_log_in(s3_bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without credentials the error says so, and which commands give some."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    storage.configure(s3_bucket, {})
    with pytest.raises(AccessError, match=r"no usable credentials .*aws configure.*AWS_PROFILE"):
        storage.write_bytes(storage.join(s3_bucket, "x"), b"x")
    storage.configure(s3_bucket, {"profile": "nobody"})
    with pytest.raises(AccessError, match=r"no usable credentials \(ProfileNotFound\)"):
        storage.write_bytes(storage.join(s3_bucket, "x"), b"x")


def test_no_network_is_told_from_a_missing_object(s3_bucket: str) -> None:
    """A port where nobody listens gives a StorageError about the network."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        storage.configure(s3_bucket, {"endpoint_url": f"http://127.0.0.1:{closed.getsockname()[1]}"})
        with pytest.raises(StorageError, match=r"no answer .*check the network") as raised:
            storage.exists(storage.join(s3_bucket, "x"))
    assert raised.value.exit_code == 1


def test_the_endpoint_can_be_an_option(s3_bucket: str, s3_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """storage.options.endpoint_url is as good as the environment, and can be handed to another process."""
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    storage.configure(s3_bucket, {"endpoint_url": s3_server})
    storage.write_bytes(storage.join(s3_bucket, "x"), b"x")
    assert storage.read_bytes(storage.join(s3_bucket, "x")) == b"x"
    assert storage.options_of(s3_bucket) == {"endpoint_url": s3_server}


def test_a_conflicting_creation_is_tried_again(s3_proxy: FaultProxy, s3_bucket: str) -> None:
    """S3 answers 409 while another creation is under way and asks to try again; the answer after that counts."""
    url = storage.join(s3_bucket, "x")
    body = error_body("ConditionalRequestConflict")
    s3_proxy.inject("answer", lambda request: request.method == "PUT", status=409, body=body)
    assert storage.create(url, b"x") is True
    s3_proxy.inject("answer", lambda request: request.method == "PUT", status=409, body=body)
    assert storage.create(url, b"y") is False
    s3_proxy.inject("answer", lambda request: request.method == "PUT", times=100, status=409, body=body)
    with pytest.raises(StorageError, match="others kept creating the same object"):
        storage.create(url, b"x")


@pytest.mark.parametrize(
    ("status", "code", "kind", "text"),
    [
        (403, "AccessDenied", AccessError, r"access denied \(AccessDenied\).*s3:PutObject"),
        (403, "InvalidAccessKeyId", AccessError, "the credentials were refused .*aws configure"),
        (403, "SignatureDoesNotMatch", AccessError, "the credentials were refused .*aws configure"),
        (400, "ExpiredToken", AccessError, "the credentials have expired .*aws sso login"),
        (403, "RequestTimeTooSkewed", AccessError, "clock is wrong"),
        (400, "AuthorizationHeaderMalformed", StorageError, "in another region .*AWS_DEFAULT_REGION"),
        (404, "NoSuchBucket", NotFoundError, "there is no bucket 'bucket'"),
        (503, "SlowDown", StorageError, r"overloaded \(SlowDown\); try again, with fewer workers"),
        (507, "SomethingNew", StorageError, "SomethingNew"),
    ],
)
def test_every_refusal_names_its_likely_cause(
    s3_proxy: FaultProxy, status: int, code: str, kind: type[StorageError], text: str
) -> None:
    """What S3 refuses is told apart: no permission, bad or old credentials, a wrong clock or region, no bucket."""
    s3_proxy.inject("answer", lambda request: True, times=100, status=status, body=error_body(code))
    with pytest.raises(kind, match=rf"^s3://bucket/x: .*{text}") as raised:
        storage.write_bytes("s3://bucket/x", b"x")
    assert type(raised.value) is kind


def test_a_bucket_in_another_region_is_told_with_the_region(s3_proxy: FaultProxy) -> None:
    """Where S3 says which region a bucket is in, so does the error."""
    headers = {"x-amz-bucket-region": "eu-west-3"}
    body = error_body("IllegalLocationConstraintException")
    s3_proxy.inject("answer", lambda request: True, times=100, status=400, body=body, headers=headers)
    with pytest.raises(StorageError, match=r"in the region eu-west-3 .*set AWS_DEFAULT_REGION=eu-west-3"):
        storage.write_bytes("s3://bucket/x", b"x")


def test_a_bucket_in_another_region_is_found(s3_proxy: FaultProxy, s3_bucket: str) -> None:
    """Where S3 says that a bucket is elsewhere, the request goes there."""
    url = storage.join(s3_bucket, "x")
    headers = {"x-amz-bucket-region": "eu-west-3"}
    s3_proxy.inject("answer", lambda _: True, status=301, body=error_body("PermanentRedirect"), headers=headers)
    storage.write_bytes(url, b"x")
    assert "/eu-west-3/s3/" in s3_proxy.requests[-1].headers["authorization"]
    assert storage.read_bytes(url) == b"x"


def test_what_goes_up_carries_its_checksum(s3_proxy: FaultProxy, s3_bucket: str, tmp_path: Path) -> None:
    """S3 is told the CRC-32 of every body, of objects and of parts, and refuses bytes that were changed on the way."""
    storage.write_bytes(storage.join(s3_bucket, "small"), b"data")
    (tmp_path / "big").write_bytes(bytes(20 * 2**20))
    storage.upload_file(tmp_path / "big", storage.join(s3_bucket, "big"))
    sent = [request.headers for request in s3_proxy.requests if request.method == "PUT"]
    assert sent[0]["x-amz-checksum-crc32"] == "rfPzYw=="
    assert len(sent) == 4 and all("x-amz-checksum-crc32" in headers for headers in sent)


def test_a_file_of_several_parts_goes_up_and_comes_down(s3_bucket: str, tmp_path: Path) -> None:
    """A file that S3 takes in parts arrives whole, and its creation is conditional too."""
    data = os.urandom(2**20) * 30 + b"end"
    (tmp_path / "up.bin").write_bytes(data)
    url = storage.join(s3_bucket, "big.bin")
    storage.upload_file(tmp_path / "up.bin", url)
    storage.download_file(url, tmp_path / "down.bin")
    assert (tmp_path / "down.bin").read_bytes() == data
    assert storage.read_bytes(url) == data
    assert storage.read_bytes(url, start=5, length=20 * 2**20) == data[5 : 5 + 20 * 2**20]
    assert storage.create(url, data) is False
    with storage.open_read(url) as file:
        file.seek(20 * 2**20)
        assert file.read() == data[20 * 2**20 :]


def test_markers_of_folders_are_no_objects(s3_bucket: str) -> None:
    """The empty object that consoles make for a new folder is in no listing, and goes with the folder."""
    import boto3

    boto3.client("s3").put_object(Bucket=s3_bucket.removeprefix("s3://"), Key="raw/", Body=b"")
    storage.write_bytes(storage.join(s3_bucket, "raw/a.json"), b"x")
    assert urls(s3_bucket, storage.list_objects(s3_bucket)) == ["/raw/a.json"]
    assert urls(s3_bucket, storage.glob(storage.join(s3_bucket, "raw/*"))) == ["/raw/a.json"]
    storage.remove(storage.join(s3_bucket, "raw"))
    assert not storage.exists(storage.join(s3_bucket, "raw"))


def test_a_name_that_leaves_the_folder_is_refused(s3_bucket: str, tmp_path: Path) -> None:
    """A key with '..' in it cannot write outside the folder it is downloaded to."""
    import boto3

    boto3.client("s3").put_object(Bucket=s3_bucket.removeprefix("s3://"), Key="model/../../evil", Body=b"x")
    with pytest.raises(StorageError, match="would be written outside"):
        storage.download_folder(storage.join(s3_bucket, "model"), tmp_path / "down")


def test_a_forked_process_can_read(s3_bucket: str) -> None:
    """A process that was forked after the connection was made has one of its own."""
    url = storage.join(s3_bucket, "x")
    storage.write_bytes(url, b"x")
    child = multiprocessing.get_context("fork").Process(target=storage.read_bytes, args=(url,))
    child.start()
    child.join(timeout=60)
    assert child.exitcode == 0
