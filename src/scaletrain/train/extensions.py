"""The C++ extension that DeepSpeed compiles at its first start on a CPU, built once per environment and never stuck.

torch guards a build with a file that it creates and removes; a process killed while it builds leaves that file behind,
and every later one waits for ever. Here builds happen under a lock that the kernel drops with its holder, so that a
left-over file is known to be one. Environments do not share a folder: each would undo the other's build.
"""

import contextlib
import fcntl
import hashlib
import importlib.metadata
import io
import os
import sys
from pathlib import Path

from scaletrain.log import get_logger

log = get_logger(__name__)


def build_extensions() -> None:
    """Build what DeepSpeed's CPU backend needs, or wait for the process that builds it; at most once a process."""
    folder = _folder()
    os.environ["TORCH_EXTENSIONS_DIR"] = str(folder)
    # The ninja of this environment, which need not be activated.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "build.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not list(folder.glob("*/*.so")):
            log.info("compiling DeepSpeed's CPU extension: about a minute, once")
        for left_over in folder.glob("*/lock"):
            left_over.unlink()
        with quiet_stdout():
            from deepspeed.comm.torch import build_shm_op

            build_shm_op()


def quiet_stdout() -> contextlib.AbstractContextManager[io.StringIO]:
    """Keep what DeepSpeed prints off stdout, which is for results."""
    return contextlib.redirect_stdout(io.StringIO())


def _folder() -> Path:
    """A folder for this environment and these versions, unless the user has named one."""
    chosen = os.environ.get("TORCH_EXTENSIONS_DIR")
    if chosen:
        return Path(chosen)
    versions = [f"{name}-{importlib.metadata.version(name)}" for name in ("torch", "deepspeed")]
    key = hashlib.sha256("\n".join([sys.prefix, sys.version, *versions]).encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "scaletrain" / "extensions" / key
