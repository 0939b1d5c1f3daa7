"""What the machines of an emulated cloud show of this computer, whose files are their image."""

import sys
from pathlib import Path

HIDDEN_FOLDERS = ("/root", "/home", "/tmp", "/run")
PREPARED_VENV = "/opt/scaletrain/venv"


def needed_folders() -> list[Path]:
    """What a prepared machine needs of this computer: the interpreter, the environment, the package's source."""
    wanted = [Path(sys.base_prefix).resolve(), Path(sys.prefix).resolve(), Path(__file__).resolve().parents[2]]
    return list(dict.fromkeys(wanted))


def folders_to_show() -> list[str]:
    """What runs this and would be missing on a machine: hidden with the homes, or on a file system of its own."""
    root_device = Path("/").stat().st_dev
    found = [
        str(folder)
        for folder in needed_folders()
        if str(folder).startswith(tuple(f"{each}/" for each in HIDDEN_FOLDERS)) or folder.stat().st_dev != root_device
    ]
    return [each for each in found if not any(each.startswith(f"{other}/") for other in found)]


def folders_to_hide() -> list[str]:
    """What a bare machine must not find: the environment that runs this, and one that this computer was set up with."""
    return [folder for folder in {sys.prefix, PREPARED_VENV} if Path(folder).is_dir()]
