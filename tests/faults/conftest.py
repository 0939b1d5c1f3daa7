"""A dataset, a model and an undisturbed run that the faults are held against."""

import pytest

from workers import Prepared, make_prepared, train


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return make_prepared(tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="session")
def undisturbed(prepared: Prepared) -> str:
    """Two workers with ZeRO-2, twelve steps, saved every three."""
    train(prepared, "undisturbed", workers=2, train__steps=12, checkpoint__every_steps=3)
    return "undisturbed"
