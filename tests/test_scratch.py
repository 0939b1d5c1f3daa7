"""scratch: folders go with their process, and those of killed ones with the next."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from scaletrain.scratch import scratch_folder

# Makes a folder with a file in it, says where, and waits to be killed.
HOLDER = """
import sys, time
from scaletrain.scratch import scratch_folder
with scratch_folder("test") as folder:
    (folder / "file").write_text("x")
    print(folder, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A TMPDIR of this test's, for its child too."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def test_a_folder_goes_with_its_block(temporary: Path) -> None:
    """Whatever is in it, and however the block ends."""
    with pytest.raises(KeyError), scratch_folder("test") as folder:
        assert folder.parent == temporary and "test" in folder.name
        (folder / "below").mkdir()
        raise KeyError
    assert list(temporary.iterdir()) == []


def test_what_a_killed_process_left_is_swept_and_nothing_else(temporary: Path) -> None:
    """While it lives its folder stays; after SIGKILL the next one that needs a folder removes it."""
    others = temporary / "scaletrain-groups-of-an-older-version"
    others.mkdir()
    with subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        left = Path(process.stdout.readline().strip())
        with scratch_folder("test"):
            assert (left / "file").exists()
        process.kill()
    assert (left / "file").exists()
    with scratch_folder("other") as folder:
        assert {*temporary.iterdir()} == {folder, others}
