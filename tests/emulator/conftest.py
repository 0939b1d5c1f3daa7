"""One emulated EC2, and one Google Cloud, for the tests of a session that only launch machines of their own there."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from google_client import GoogleApis, google_process

from scaletrain.emulator.ec2 import emulated_ec2
from scaletrain.emulator.emulated_cloud import EmulatedCloud
from scaletrain.emulator.gce import emulated_gce
from scaletrain.emulator.requirements import missing_requirements


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedCloud]:
    if problems := missing_requirements():
        pytest.skip(f"no cloud can be emulated here: {'; '.join(problems)}")
    with emulated_ec2(tmp_path_factory.mktemp("ec2")) as emulated:
        yield emulated


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for a cloud of the test's own."""
    if problems := missing_requirements():
        pytest.skip(f"no cloud can be emulated here: {'; '.join(problems)}")
    return tmp_path


@pytest.fixture(scope="session")
def gce(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedCloud]:
    if problems := missing_requirements("gcp"):
        pytest.skip(f"no cloud can be emulated here: {'; '.join(problems)}")
    with emulated_gce(tmp_path_factory.mktemp("gce")) as emulated:
        yield emulated


@pytest.fixture
def gce_folder(tmp_path: Path) -> Path:
    """A folder for a Google Cloud of the test's own."""
    if problems := missing_requirements("gcp"):
        pytest.skip(f"no cloud can be emulated here: {'; '.join(problems)}")
    return tmp_path


@pytest.fixture(scope="session")
def google(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GoogleApis]:
    """Google's APIs without machines, which need no root."""
    with google_process(tmp_path_factory.mktemp("google")) as apis:
        yield apis
