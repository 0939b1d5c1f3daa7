"""The run that the tests of this folder save to."""

from pathlib import Path

import pytest

from scaletrain.layout import RunLayout


@pytest.fixture
def run(tmp_path: Path) -> RunLayout:
    return RunLayout(str(tmp_path), "run")
