"""Temporary folders that a killed process does not leave behind for ever: the next one that makes such a folder sweeps.

A folder is locked (flock) for as long as its process lives; the kernel gives the lock up with the process, however that
ended. So whose lock can be had is dead, also where folders of several machines or containers lie on one disk.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = "scaletrain-scratch-"  # nothing else may have it: what has it and is not locked is removed


@contextmanager
def scratch_folder(purpose: str) -> Iterator[Path]:
    """Yield a new folder in TMPDIR, removed at the end; one word, `purpose`, is in its name for who looks there.

    Removes such folders of processes that are dead. A child that is forked meanwhile keeps the lock with its parent.
    """
    _sweep()
    folder, lock = _make(purpose)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _make(purpose: str) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{purpose}-"))
        with suppress(FileNotFoundError):  # swept before it was locked
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            with suppress(OSError):  # of a file system without locks: nothing is swept there
                fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.exists():
                return folder, lock
            os.close(lock)


def _sweep() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):  # another user's, gone, or locked: not ours to remove
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if os.fstat(lock).st_uid == os.getuid():
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
