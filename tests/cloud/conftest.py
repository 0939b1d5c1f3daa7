"""An account on an emulated cloud, for each test its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from account import Account

from scaletrain.emulator.ec2 import EmulatedEC2
from scaletrain.emulator.requirements import missing_requirements


@pytest.fixture
def account(tmp_path: Path) -> Iterator[Account]:
    if problems := missing_requirements():
        pytest.skip(f"no cloud can be emulated here: {'; '.join(problems)}")
    with EmulatedEC2(tmp_path / "cloud") as cloud:
        yield Account(cloud, tmp_path)
