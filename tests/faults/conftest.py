"""A dataset, a model and an undisturbed run that the faults are held against."""

import uuid
from collections.abc import Callable

import pytest

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


def _make_bucket(protocol: str, server: str) -> str:
    url = f"{protocol}://bucket-{uuid.uuid4().hex[:12]}"
    make_bucket(url, server)
    return url
