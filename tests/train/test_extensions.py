"""extensions: a build that was killed does not stop the next one."""

import subprocess
import sys
from pathlib import Path

import pytest

from scaletrain.train import extensions

BUILD = "from scaletrain.train.extensions import build_extensions; build_extensions(); print('built')"


def test_a_left_over_build_lock_does_not_hang_the_next_start() -> None:
    """torch would wait for ever for the process that made the file; here it is known to be gone."""
    extensions.build_extensions()
    folder = extensions._folder()
    built = next(folder.glob("*/*.so")).parent
    (built / "lock").touch()
    result = subprocess.run([sys.executable, "-c", BUILD], capture_output=True, text=True, timeout=240)
    assert result.stdout == "built\n", result.stderr
    assert not (built / "lock").exists()


def test_environments_do_not_share_a_build(tmp_path: Path) -> None:
    """Another environment has another folder, so neither undoes the other's build."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TORCH_EXTENSIONS_DIR", raising=False)
        here = extensions._folder()
        patch.setattr(sys, "prefix", str(tmp_path))
        assert extensions._folder() != here
        patch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "mine"))
        assert extensions._folder() == tmp_path / "mine"
