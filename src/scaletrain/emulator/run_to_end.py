"""Runs a command in some place of an emulated cloud to its end; one that takes too long is killed with its children."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence

from scaletrain.errors import ClusterError


def run_to_end(
    command: Sequence[str], environment: Mapping[str, str], *, timeout_s: float
) -> subprocess.CompletedProcess[str]:
    """Return a command's exit code and what it printed (stderr in stdout).

    What stands behind its second `--`, where it has entered a machine, is what an error tells of it. Raises
    ClusterError with the last of what it printed, where it has not ended in time.
    """
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        asked = " ".join(command[command.index("--", command.index("--") + 1) + 1 :])
        raise ClusterError(f"`{asked}` had not ended after {timeout_s:.0f} s; it said:\n{output[-3000:]}") from None
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    return subprocess.CompletedProcess(list(command), process.returncode, output)
