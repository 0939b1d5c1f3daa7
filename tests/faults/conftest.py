"""A dataset, a model and an undisturbed run that the faults are held against."""

import uuid
from collections.abc import Callable, Iterator

import pytest
from faulty_store import Store, faulty_store

from bucket_servers import make_bucket
from scaletrain.layout import RunLayout
from workers import Prepared, make_prepared, train


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return make_prepared(tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="session")
def undisturbed(prepared: Prepared) -> RunLayout:
    """Two workers with ZeRO-2, twelve steps, saved every three."""
    train(prepared, "undisturbed", workers=2, train__steps=12, checkpoint__every_steps=3)
    return RunLayout(prepared.root, "undisturbed")


@pytest.fixture(scope="session")
def make_s3_bucket(s3_server: str) -> Callable[[], str]:
    return lambda: _make_bucket("s3", s3_server)


@pytest.fixture(scope="session")
def make_gcs_bucket(gcs_server: str) -> Callable[[], str]:
    return lambda: _make_bucket("gs", gcs_server)


@pytest.fixture(scope="module", params=["s3", "gcs"])
def any_store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """A bucket of either kind behind a proxy."""
    yield from _store(request.param, request)


@pytest.fixture(scope="module")
def s3(request: pytest.FixtureRequest) -> Iterator[Store]:
    yield from _store("s3", request)


@pytest.fixture(scope="module")
def gcs(request: pytest.FixtureRequest) -> Iterator[Store]:
    yield from _store("gcs", request)


def _store(kind: str, request: pytest.FixtureRequest) -> Iterator[Store]:
    root = f"{request.getfixturevalue(f'make_{kind}_bucket')()}/root"
    with faulty_store(root, request.getfixturevalue(f"{kind}_server")) as store:
        yield store


def _make_bucket(protocol: str, server: str) -> str:
    url = f"{protocol}://bucket-{uuid.uuid4().hex[:12]}"
    make_bucket(url, server)
    return url
