"""A small dataset and a random model, prepared once for all training tests."""

import pytest

import workers


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> workers.Prepared:
    return workers.make_prepared(tmp_path_factory.mktemp("bucket"))
