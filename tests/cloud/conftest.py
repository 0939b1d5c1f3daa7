"""An account on an emulated cloud, for each test its own."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from account import Account

from scaletrain.emulator.ec2 import emulated_ec2
from scaletrain.emulator.gce import emulated_gce
from scaletrain.emulator.requirements import missing_requirements

_BUILD = "import os; from scaletrain.train.extensions import build_extensions; build_extensions(); "
_BUILD += "print(os.environ['TORCH_EXTENSIONS_DIR'])"


@pytest.fixture(scope="session")
def extensions() -> Iterator[Path]:
    """A folder that machines see, with what DeepSpeed compiles at its first start, as on an image that has trained.

    Each new machine would take a minute of both cores for it.
    """
    if problems := missing_requirements():
        pytest.skip(f"no cloud can be emulated here: {'; '.join(problems)}")
    built = subprocess.run([sys.executable, "-c", _BUILD], check=True, capture_output=True, text=True).stdout.split()
    folder = Path(tempfile.mkdtemp(prefix="scaletrain-extensions-", dir="/var/tmp"))
    try:
        shutil.copytree(built[-1], folder, dirs_exist_ok=True)
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o777)  # the user of the machines is another one
        yield folder
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def account(tmp_path: Path, extensions: Path) -> Iterator[Account]:
    with emulated_ec2(tmp_path / "cloud") as cloud:
        yield Account(cloud, tmp_path, extensions)


@pytest.fixture
def google_account(tmp_path: Path, extensions: Path) -> Iterator[Account]:
    if problems := missing_requirements("gcp"):
        pytest.skip(f"no cloud can be emulated here: {'; '.join(problems)}")
    with emulated_gce(tmp_path / "cloud") as cloud:
        yield Account(cloud, tmp_path, extensions)
