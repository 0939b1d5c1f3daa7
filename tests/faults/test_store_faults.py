"""A run whose bucket is an object store on a bad day: it comes to the same bits, or ends with the cause."""

import urllib.request
from collections import Counter
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import boto3
import pytest
from faulty_store import Store, after_commit, assert_done, writes
from invariants import assert_recovered

from fault_proxy import Request
from scaletrain import checkpoint
from scaletrain.data.prepare import prepare
from scaletrain.errors import StorageError
from scaletrain.layout import RunLayout
from workers import Prepared, tiny_config

pytestmark = pytest.mark.long
# tests/storage makes these faults on both kinds of store, on requests alone. Some of them a whole run has here on one
# kind, and on the other one in `make soak`.
GCS_IN_SOAK = pytest.mark.parametrize("any_store", ["s3", pytest.param("gcs", marks=pytest.mark.soak)], indirect=True)
S3_IN_SOAK = pytest.mark.parametrize("any_store", [pytest.param("s3", marks=pytest.mark.soak), "gcs"], indirect=True)


@GCS_IN_SOAK
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


@S3_IN_SOAK
def test_a_store_that_does_the_write_and_answers_500(any_store: Store, undisturbed: RunLayout) -> None:
    """Every other write is done, manifests too, and is said to have failed: the one that asks again knows its own."""
    failed = any_store.proxy.inject("answer_after", _every_other(writes), times=10**6, status=500)
    assert_done(any_store.attempt("done-and-denied"))
    assert 10**6 - failed.times > 20
    failed.times = 0
    assert_recovered(any_store.prepared, "done-and-denied", undisturbed)


def _every_other(matches: Callable[[Request], bool]) -> Callable[[Request], bool]:
    """Match the first of the requests that are the same, the third, and so on."""
    asked: Counter[tuple[str, str]] = Counter()

    def is_odd(request: Request) -> bool:
        if not matches(request):
            return False
        asked[request.method, request.target] += 1
        return asked[request.method, request.target] % 2 == 1

    return is_odd


def test_connections_that_break_in_an_upload_in_parts(any_store: Store) -> None:
    """Each rank's file goes up in parts: some break off, some are taken and denied, and so is the end; none stays."""
    proxy = any_store.proxy
    size = "{vocab_size: 384, hidden_size: 384, num_layers: 2, num_heads: 4}"
    model = prepare(tiny_config(any_store.prepared.root, model__size=size), use_ray=False).model_url
    prepared = Prepared(any_store.prepared.root, any_store.prepared.dataset_url, model)
    big = Store(prepared, proxy, any_store.options)
    settings: dict[str, Any] = {"model__size": size, "train__steps": 2, "checkpoint__every_steps": 2}
    faults = [
        proxy.inject("reset_upload", _is_part, times=3, after_bytes=1_000_000),
        proxy.inject("answer_after", _is_part, times=2, status=500),
        proxy.inject("drop_answer", _completes, times=1),
        proxy.inject("answer_after", _completes, times=1, status=500),
    ]
    ended = big.attempt("in-parts", **settings)
    assert [(each.step, each.error) for each in ended] == [(2, None)] * 2
    assert [fault.times for fault in faults] == [0, 0, 0, 0]
    run = RunLayout(prepared.root, "in-parts")
    assert all(file.size_bytes > 16 * 2**20 for file in checkpoint.verify(run.checkpoint(2)).files)
    if not any_store.is_google:  # whose emulator has no list of them
        bucket = urlsplit(prepared.root).netloc
        assert "Uploads" not in boto3.client("s3").list_multipart_uploads(Bucket=bucket)


def _is_part(request: Request) -> bool:
    return request.method == "PUT" and "partNumber=" in request.target


def _completes(request: Request) -> bool:
    return request.method == "POST" and "uploadId=" in request.target


@S3_IN_SOAK
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


@GCS_IN_SOAK
def test_a_store_that_stays_away_ends_the_run(any_store: Store, undisturbed: RunLayout) -> None:
    """Each request is given up after some 23 s of waits; the error names the file and what the store said."""
    run = RunLayout(any_store.prepared.root, "away")
    away = any_store.proxy.inject("answer", after_commit(run, step=3), times=10**6, status=503)
    for ended in any_store.attempt("away"):
        assert isinstance(ended.error, StorageError)
        assert f"{run.url}/" in str(ended.error) and "the object store is overloaded" in str(ended.error)
    away.times = 0
    assert_done(any_store.attempt("away"))
    assert_recovered(any_store.prepared, "away", undisturbed)


def test_a_listing_from_before_the_newest_commit(any_store: Store, undisturbed: RunLayout) -> None:
    """The store still lists no folder of step 6, when a new attempt looks: it goes on from step 6 all the same."""
    run = RunLayout(any_store.prepared.root, "stale")
    assert [each.step for each in any_store.attempt("stale", debug__stop_after=3)] == [3, 3]
    key = urlsplit(run.checkpoints).path.strip("/") + "/"
    old = _listing(any_store, key)
    assert b"step-00000003" in old
    assert [each.step for each in any_store.attempt("stale", debug__stop_after=6)] == [6, 6]

    def lists_steps(request: Request) -> bool:
        asked = parse_qs(urlsplit(request.target).query)
        return request.method == "GET" and asked.get("prefix") == [key] and "delimiter" in asked

    content_type = {"Content-Type": "application/json" if any_store.is_google else "application/xml"}
    stale = any_store.proxy.inject("answer", lists_steps, times=1, status=200, body=old, headers=content_type)
    assert_done(any_store.attempt("stale"))
    assert stale.times == 0
    assert_recovered(any_store.prepared, "stale", undisturbed)


def _listing(store: Store, key: str) -> bytes:
    """What the store answers to who lists the folders below a key."""
    bucket, server = urlsplit(store.prepared.root).netloc, store.proxy.upstream.geturl()
    path = f"storage/v1/b/{bucket}/o?" if store.is_google else f"{bucket}?list-type=2&max-keys=1000&"
    with urllib.request.urlopen(f"{server}/{path}{urlencode({'prefix': key, 'delimiter': '/'})}", timeout=30) as answer:
        found: bytes = answer.read()
    return found
