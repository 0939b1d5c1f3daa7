"""A run whose bucket is an object store on a bad day: it comes to the same bits, or ends with the cause."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest
from attempts_on_processes import Attempt, Ended
from invariants import assert_recovered

from bucket_servers import environment_of
from fault_proxy import FaultProxy, Request
from scaletrain import checkpoint
from scaletrain.data.prepare import prepare
from scaletrain.errors import AccessError, StorageError
from scaletrain.layout import RunLayout
from workers import Prepared, tiny_config

pytestmark = pytest.mark.long

EXPIRED = b"""<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"""


@dataclass(frozen=True)
class Store:
    """A bucket with a dataset and a model; the workers reach it through the proxy, this process directly."""

    prepared: Prepared
    proxy: FaultProxy
    options: dict[str, str]

    def attempt(self, name: str, **overrides: object) -> list[Ended]:
        environment = environment_of(self.proxy.url)
        return Attempt(
            self.prepared,
            name,
            environments={0: environment, 1: environment},
            storage__options__endpoint_url=self.proxy.url,
            **{f"storage__options__{key}": value for key, value in self.options.items()},
            **overrides,
        ).wait()


@pytest.fixture(scope="module", params=["s3", "gcs"])
def any_store(request: pytest.FixtureRequest) -> Iterator[Store]:
    yield from _store(request.param, request)


@pytest.fixture(scope="module")
def s3(request: pytest.FixtureRequest) -> Iterator[Store]:
    yield from _store("s3", request)


def _store(kind: str, request: pytest.FixtureRequest) -> Iterator[Store]:
    server = request.getfixturevalue(f"{kind}_server")
    make = request.getfixturevalue(f"make_{kind}_bucket")
    options = {} if kind == "s3" else {"token": "anon"}
    root = f"{make()}/root"
    found = prepare(tiny_config(root), use_ray=False)
    with FaultProxy(server) as proxy:
        yield Store(Prepared(root, found.dataset_url, found.model_url), proxy, options)


def assert_done(ended: list[Ended]) -> None:
    assert [(each.step, each.error) for each in ended] == [(12, None)] * len(ended)


def test_a_store_that_refuses_every_other_request(any_store: Store, undisturbed: RunLayout) -> None:
    """Whatever is asked is answered 503 at first: it is asked again, and nothing is missing or there twice."""
    fault = any_store.proxy.inject("answer", _every_other(lambda request: True), times=10**6, status=503)
    assert_done(any_store.attempt("busy"))
    assert 10**6 - fault.times > 50
    fault.times = 0
    assert_recovered(any_store.prepared, "busy", undisturbed)


def test_lost_answers_to_what_the_store_has_done(any_store: Store, undisturbed: RunLayout) -> None:
    """All is written, manifests too, and every other time nobody is told: the one that asks again knows its own."""
    lost = any_store.proxy.inject("drop_answer", _every_other(writes), times=10**6)
    assert_done(any_store.attempt("lost-answers"))
    assert 10**6 - lost.times > 20
    lost.times = 0
    assert_recovered(any_store.prepared, "lost-answers", undisturbed)


def writes(request: Request) -> bool:
    return request.method in ("PUT", "POST")


def _every_other(matches: Callable[[Request], bool]) -> Callable[[Request], bool]:
    """Match the first of the requests that are the same, the third, and so on."""
    asked: Counter[tuple[str, str]] = Counter()

    def is_odd(request: Request) -> bool:
        if not matches(request):
            return False
        asked[request.method, request.target] += 1
        return asked[request.method, request.target] % 2 == 1

    return is_odd


def test_connections_that_break_in_an_upload_in_parts(s3: Store) -> None:
    """Each rank's file goes up in parts, of which some break off and some answers are lost; no part is left behind."""
    proxy = s3.proxy
    size = "{vocab_size: 384, hidden_size: 384, num_layers: 2, num_heads: 4}"
    model = prepare(tiny_config(s3.prepared.root, model__size=size), use_ray=False).model_url
    prepared = Prepared(s3.prepared.root, s3.prepared.dataset_url, model)
    big = Store(prepared, proxy, s3.options)
    settings: dict[str, Any] = {"model__size": size, "train__steps": 2, "checkpoint__every_steps": 2}
    broken = proxy.inject("reset_upload", _is_part, times=3, after_bytes=1_000_000)
    lost = proxy.inject("drop_answer", _completes, times=1)
    ended = big.attempt("in-parts", **settings)
    assert [(each.step, each.error) for each in ended] == [(2, None)] * 2
    assert (broken.times, lost.times) == (0, 0)
    run = RunLayout(prepared.root, "in-parts")
    assert all(file.size_bytes > 16 * 2**20 for file in checkpoint.verify(run.checkpoint(2)).files)
    bucket = urlsplit(prepared.root).netloc
    assert "Uploads" not in boto3.client("s3").list_multipart_uploads(Bucket=bucket)


def _is_part(request: Request) -> bool:
    return request.method == "PUT" and "partNumber=" in request.target


def _completes(request: Request) -> bool:
    return request.method == "POST" and "uploadId=" in request.target


def test_answers_that_are_cut_short(any_store: Store, undisturbed: RunLayout) -> None:
    """Rows and checkpoints come with status 200 and half their bytes: that is noticed, and they are asked for again."""
    finish_elsewhere = any_store.attempt("short", debug__stop_after=6)
    assert [each.step for each in finish_elsewhere] == [6, 6]
    short = [
        any_store.proxy.inject("short", _reads(name), times=3, after_bytes=100) for name in (".safetensors", ".parquet")
    ]
    assert_done(any_store.attempt("short"))
    assert [fault.times for fault in short] == [0, 0]
    assert_recovered(any_store.prepared, "short", undisturbed)


def _reads(name: str) -> Callable[[Request], bool]:
    return lambda request: request.method == "GET" and "range" in request.headers and request.path.endswith(name)


def test_credentials_that_expire(s3: Store, undisturbed: RunLayout) -> None:
    """The save ends the run, on all workers, with what to do; with new ones the same command goes on."""
    is_late = lambda request: "/step-00000006/" in request.path and request.method == "PUT"  # noqa: E731
    expired = s3.proxy.inject("answer", is_late, times=10**6, status=400, body=EXPIRED)
    for ended in s3.attempt("expired"):
        assert isinstance(ended.error, AccessError)
        assert "the credentials have expired (ExpiredToken)" in str(ended.error)
    expired.times = 0
    newest = checkpoint.latest(RunLayout(s3.prepared.root, "expired"))
    assert newest is not None and newest.step == 3
    assert_done(s3.attempt("expired"))
    assert_recovered(s3.prepared, "expired", undisturbed)


def test_a_store_that_stays_away_ends_the_run(s3: Store, undisturbed: RunLayout) -> None:
    """Each request is given up after some 23 s of waits; the error names the file and what the store said."""
    is_late = lambda request: "/step-00000006/" in request.path and request.method == "PUT"  # noqa: E731
    away = s3.proxy.inject("answer", is_late, times=10**6, status=503)
    for ended in s3.attempt("away"):
        assert isinstance(ended.error, StorageError)
        assert "step-00000006" in str(ended.error) and "the object store is overloaded" in str(ended.error)
    away.times = 0
    assert_done(s3.attempt("away"))
    assert_recovered(s3.prepared, "away", undisturbed)


def test_a_listing_from_before_the_newest_commit(s3: Store, undisturbed: RunLayout) -> None:
    """The store still lists no folder of step 6, when a new attempt looks: it goes on from step 6 all the same."""
    run = RunLayout(s3.prepared.root, "stale")
    assert [each.step for each in s3.attempt("stale", debug__stop_after=3)] == [3, 3]
    key = urlsplit(run.checkpoints).path.strip("/") + "/"
    client = boto3.client("s3", endpoint_url=s3.proxy.upstream.geturl())
    old: list[bytes] = []
    client.meta.events.register(
        "before-parse.s3.ListObjectsV2", lambda response_dict, **_: old.append(response_dict["body"])
    )
    client.list_objects_v2(Bucket=urlsplit(run.url).netloc, Prefix=key, Delimiter="/", MaxKeys=1000)
    assert [each.step for each in s3.attempt("stale", debug__stop_after=6)] == [6, 6]

    def lists_steps(request: Request) -> bool:
        asked = parse_qs(urlsplit(request.target).query)
        return request.method == "GET" and asked.get("prefix") == [key] and "delimiter" in asked

    stale = s3.proxy.inject("answer", lists_steps, times=1, status=200, body=old[0])
    assert_done(s3.attempt("stale"))
    assert stale.times == 0
    assert_recovered(s3.prepared, "stale", undisturbed)
