"""Fixtures of the data tests."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def local_ray(s3_server: str) -> Iterator[None]:
    """A Ray cluster of this machine, for as long as a module's tests need it; its workers know the S3 server."""
    import ray

    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()
