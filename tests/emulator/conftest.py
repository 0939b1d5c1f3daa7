"""One emulated EC2 for the tests of a session that only launch machines of their own in it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from scaletrain.emulator.ec2 import EmulatedEC2
from scaletrain.emulator.requirements import missing_requirements


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedEC2]:
    if problems := missing_requirements():
        pytest.skip(f"no cloud can be emulated here: {'; '.join(problems)}")
    with EmulatedEC2(tmp_path_factory.mktemp("ec2")) as emulated:
        yield emulated


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for a cloud of the test's own."""
    if problems := missing_requirements():
        pytest.skip(f"no cloud can be emulated here: {'; '.join(problems)}")
    return tmp_path
