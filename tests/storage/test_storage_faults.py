"""storage on a bad day: busy stores, broken connections, answers cut short or lost, on S3 and on GCS alike."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fault_proxy import FaultProxy, Request
from scaletrain import storage
from scaletrain.errors import StorageError
from scaletrain.storage import bucket as bucket_store
from scaletrain.storage import retry

MIB = 2**20


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait little between attempts."""
    monkeypatch.setattr(retry, "FIRST_WAIT_S", 0.001)


@pytest.fixture(params=["s3", "gcs"])
def faulty(request: pytest.FixtureRequest) -> Iterator[tuple[str, FaultProxy]]:
    """An empty bucket, and the proxy that all of storage goes through to it."""
    bucket = request.getfixturevalue(f"{request.param}_bucket")
    options = {} if request.param == "s3" else {"token": "anon"}
    with FaultProxy(request.getfixturevalue(f"{request.param}_server")) as proxy:
        storage.configure(bucket, {"endpoint_url": proxy.url, **options})
        yield bucket, proxy
        storage.configure(bucket, options)


def anything(request: Request) -> bool:
    return True


def reads(request: Request) -> bool:
    return request.method == "GET" and "range" in request.headers


def lists(request: Request) -> bool:
    return request.method == "GET" and "range" not in request.headers


def writes(request: Request) -> bool:
    return request.method in ("PUT", "POST")


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_store_is_asked_again(faulty: tuple[str, FaultProxy], status: int) -> None:
    """Whatever is asked of a store that is busy at first is answered in the end."""
    root, proxy = faulty
    url = storage.join(root, "folder/x")
    for action, answer in [
        (lambda: storage.write_bytes(url, b"data"), None),
        (lambda: storage.read_bytes(url), b"data"),
        (lambda: storage.create(url, b"other"), False),
        (lambda: len(storage.list_objects(root)), 1),
        (lambda: storage.list_folders(root), ["folder"]),
        (lambda: len(storage.glob(storage.join(root, "folder/*"))), 1),
        (lambda: storage.info(url).size_bytes, 4),
        (lambda: storage.remove(url), None),
        (lambda: storage.exists(url), False),
    ]:
        fault = proxy.inject("answer", anything, times=3, status=status)
        assert action() == answer
        assert fault.times == 0


def test_a_store_that_stays_busy_is_an_error_after_a_bounded_number_of_attempts(faulty: tuple[str, FaultProxy]) -> None:
    """Nothing is asked for ever: the last refusal is the error."""
    root, proxy = faulty
    proxy.inject("answer", anything, times=1000, status=503)
    with pytest.raises(StorageError, match="overloaded"):
        storage.write_bytes(storage.join(root, "x"), b"x")
    assert len(proxy.requests) == retry.ATTEMPTS


def test_the_waits_grow_and_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each wait is drawn anew, from a range that doubles up to a bound: workers do not come back in step."""
    waits: list[float] = []
    monkeypatch.setattr(retry, "FIRST_WAIT_S", 0.2)
    monkeypatch.setattr(retry.time, "sleep", waits.append)

    def busy() -> None:
        raise ConnectionError

    for _ in range(50):
        with pytest.raises(ConnectionError):
            retry.retried(busy)
    by_attempt = [waits[number :: retry.ATTEMPTS - 1] for number in range(retry.ATTEMPTS - 1)]
    for number, drawn in enumerate(by_attempt):
        bound_s = min(retry.LONGEST_WAIT_S, 0.2 * 2**number)
        assert max(drawn) <= bound_s and len(set(drawn)) > 40
        assert bound_s / 2 < max(drawn)


@pytest.mark.parametrize("after_bytes", [-1, 0, 1, 100_000])
def test_a_read_survives_a_reset(faulty: tuple[str, FaultProxy], after_bytes: int, tmp_path: Path) -> None:
    """A connection that breaks before the answer, or at any byte of it, costs a request and no byte."""
    root, proxy = faulty
    url, data = storage.join(root, "x"), os.urandom(300_000)
    storage.write_bytes(url, data)
    for _ in range(3):
        proxy.inject("reset", reads, after_bytes=after_bytes)
    assert storage.read_bytes(url) == data
    proxy.inject("reset", reads, after_bytes=after_bytes)
    with storage.open_read(url) as file:
        assert file.read() == data
    proxy.inject("reset", reads, after_bytes=after_bytes)
    storage.download_file(url, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == data


@pytest.mark.parametrize("after_bytes", [0, 100_000])
def test_a_write_survives_a_reset(faulty: tuple[str, FaultProxy], after_bytes: int) -> None:
    """A connection that breaks while the bytes go up costs a request: the object is whole, or the old one."""
    root, proxy = faulty
    url, data = storage.join(root, "x"), os.urandom(300_000)
    proxy.inject("reset_upload", writes, after_bytes=after_bytes, times=2)
    storage.write_bytes(url, data)
    assert storage.read_bytes(url) == data


def test_an_answer_that_is_cut_short_is_noticed(faulty: tuple[str, FaultProxy], tmp_path: Path) -> None:
    """A body shorter than the object, though its own length says that this is all, is asked for again."""
    root, proxy = faulty
    url, data = storage.join(root, "x"), os.urandom(20 * MIB)
    storage.write_bytes(url, data)
    proxy.inject("short", reads, after_bytes=1000, times=4)
    assert storage.read_bytes(url) == data
    proxy.inject("short", reads, after_bytes=0, times=2)
    storage.download_file(url, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == data


def test_an_answer_that_is_always_cut_short_is_an_error(faulty: tuple[str, FaultProxy], tmp_path: Path) -> None:
    """When no answer is whole, the error says what came and what was due, and no file is left behind."""
    root, proxy = faulty
    url = storage.join(root, "x")
    storage.write_bytes(url, bytes(5000))
    proxy.inject("short", reads, after_bytes=1000, times=1000)
    with pytest.raises(StorageError, match=r"1,000 bytes where 5,000 were due|bytes were lost or changed on the way"):
        storage.download_file(url, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_a_creation_whose_answer_was_lost_is_ours(faulty: tuple[str, FaultProxy]) -> None:
    """The store did create the object: the next request is refused, and the creator still learns that it was itself."""
    root, proxy = faulty
    url = storage.join(root, "attempt.json")
    fault = proxy.inject("drop_answer", writes)
    assert storage.create(url, b"the same") is True
    assert fault.times == 0
    proxy.inject("drop_answer", writes)
    assert storage.create(url, b"the same") is False
    assert storage.read_bytes(url) == b"the same"


def test_a_replacement_whose_answer_was_lost_is_ours(faulty: tuple[str, FaultProxy]) -> None:
    """The store did replace it: the next request is refused, and the writer still learns that it was itself."""
    root, proxy = faulty
    url = storage.join(root, "manifest.json")
    storage.write_bytes(url, b"first")
    seen = storage.info(url).version
    fault = proxy.inject("drop_answer", writes)
    assert storage.replace(url, b"second", version=seen) is True
    assert fault.times == 0
    proxy.inject("drop_answer", writes)
    assert storage.replace(url, b"third", version=seen) is False
    assert storage.read_bytes(url) == b"second"


def test_of_many_creators_with_lost_answers_exactly_one_wins(faulty: tuple[str, FaultProxy]) -> None:
    """Also when the first answers are lost, and all write the same bytes, one of many creators is told True."""
    root, proxy = faulty
    proxy.inject("drop_answer", writes, times=retry.ATTEMPTS - 1)
    with ThreadPoolExecutor(12) as pool:
        won = list(pool.map(lambda _: storage.create(storage.join(root, "attempt"), b"x"), range(12)))
    assert won.count(True) == 1


def test_an_upload_in_parts_survives_lost_answers(faulty: tuple[str, FaultProxy], tmp_path: Path) -> None:
    """Any answer may be lost, also the one to the request that makes the object of its parts."""
    root, proxy = faulty
    url, data = storage.join(root, "x"), os.urandom(MIB) * 20 + b"end"
    (tmp_path / "x").write_bytes(data)
    storage.upload_file(tmp_path / "x", url)
    sent = [request for request in proxy.requests if writes(request)]
    for number in range(len(sent)):
        storage.remove(url)
        seen = iter(range(1000))
        fault = proxy.inject("drop_answer", lambda request, n=number, i=seen: writes(request) and next(i) == n)
        storage.upload_file(tmp_path / "x", url)
        assert fault.times == 0
        assert storage.info(url).size_bytes == len(data)
    assert storage.read_bytes(url) == data


def test_an_upload_that_fails_leaves_nothing(faulty: tuple[str, FaultProxy], tmp_path: Path) -> None:
    """When a part cannot be sent, there is no object, and the parts that were sent are dropped."""
    root, proxy = faulty
    url = storage.join(root, "x")
    (tmp_path / "x").write_bytes(bytes(40 * MIB))
    seen = iter(range(1000))
    proxy.inject("answer", lambda request: writes(request) and next(seen) >= 2, times=1000, status=503)
    with pytest.raises(StorageError, match="overloaded"):
        storage.upload_file(tmp_path / "x", url)
    proxy.faults.clear()
    assert not storage.exists(url)
    assert any(request.method == "DELETE" for request in proxy.requests)
    if root.startswith("s3"):
        import boto3

        uploads = boto3.client("s3").list_multipart_uploads(Bucket=root.removeprefix("s3://"))
        assert uploads.get("Uploads", []) == []


def test_a_failed_page_is_asked_for_again_and_not_the_whole_listing(faulty: tuple[str, FaultProxy]) -> None:
    """A long listing that meets a fault on its last page repeats this page alone."""
    root, proxy = faulty
    for number in range(5):
        storage.write_bytes(storage.join(root, f"many/{number}"), b"")
    proxy.reset()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bucket_store, "_PAGE_OBJECTS", 2)
        proxy.inject("answer", lambda request: "oken=" in request.target, status=503, times=2)
        assert len(storage.list_objects(storage.join(root, "many"))) == 5
    assert len(proxy.requests) == 3 + 2


def test_an_object_that_is_replaced_while_it_is_read_is_never_mixed(faulty: tuple[str, FaultProxy]) -> None:
    """A stream goes on with the version it began with, or ends with an error: never with bytes of two versions."""
    root, _ = faulty
    url = storage.join(root, "x")
    storage.write_bytes(url, b"a" * 20 * MIB)
    with storage.open_read(url) as file:
        assert file.read(10) == b"a" * 10
        storage.write_bytes(url, b"b" * 20 * MIB)
        with pytest.raises(StorageError, match="was replaced while it was read"):
            file.read()


def test_a_big_object_is_read_in_ranges_side_by_side(faulty: tuple[str, FaultProxy], tmp_path: Path) -> None:
    """A download asks for pieces of 8 MiB; no request is spent on finding out how long the object is."""
    root, proxy = faulty
    url, data = storage.join(root, "x"), os.urandom(MIB) * 33
    storage.write_bytes(url, data)
    proxy.reset()
    storage.download_file(url, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == data
    starts = sorted(int(request.headers["range"].removeprefix("bytes=").split("-")[0]) for request in proxy.requests)
    assert starts == [number * 8 * MIB for number in range(5)]
