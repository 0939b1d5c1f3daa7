"""A worker's end of its persister: memory that both processes see, and a line to give orders on."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
from mmap import mmap
from multiprocessing.connection import Connection

from scaletrain.checkpoint.persister import COMMIT, Failed, Reply, Save, Setup
from scaletrain.errors import StorageError

_RUN = "from scaletrain.checkpoint.persister import main; main()"
_POPULATE_BYTES = 64 * 1024 * 1024
_MADV_POPULATE_WRITE = 23  # Linux 5.14; see madvise(2)


class SharedImage:
    """The bytes of one rank's file, kept for the whole attempt, and the process that stores them.

    `memory` may be written only while no save is under way. The memory is given its pages in a thread, so that the
    first save does not pay for them; `close` leaves a save that is under way to the persister.
    """

    def __init__(self, setup: Setup) -> None:
        self._fd = os.memfd_create("scaletrain-checkpoint")
        os.ftruncate(self._fd, setup.size_bytes)
        self.memory = mmap(self._fd, setup.size_bytes)
        ours, theirs = socket.socketpair()
        self._process = subprocess.Popen(
            [sys.executable, "-c", _RUN, str(theirs.fileno()), str(self._fd)],
            pass_fds=(theirs.fileno(), self._fd),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            start_new_session=True,  # Ctrl-C is for the worker, which says what becomes of a save
        )
        theirs.close()
        self._connection = Connection(ours.detach())
        self._connection.send(setup)
        self._populating = threading.Thread(target=self._populate, args=(setup.size_bytes,), daemon=True)
        self._populating.start()

    def order(self, save: Save) -> None:
        """Have the memory stored as it is now."""
        self._send(save)

    def allow_commit(self) -> None:
        """Give rank 0's persister leave to write the manifest of the save that is under way."""
        self._send(COMMIT)

    def reply(self, *, wait_s: float) -> Reply | None:
        """The next thing that the persister has to say, or None where it says nothing in that time."""
        try:
            if not self._connection.poll(wait_s):
                return None
            reply: Reply = self._connection.recv()
        except (EOFError, OSError):
            return Failed(0, StorageError(f"the process that saves checkpoints is gone ({self._how_it_ended()})"))
        return reply

    def close(self) -> None:
        """Let go of memory and process; both end with the save that is under way, if there is one."""
        self._populating.join()
        self._connection.close()
        os.close(self._fd)
        with contextlib.suppress(BufferError):  # views of it may be alive still; it goes with them
            self.memory.close()

    def _send(self, message: object) -> None:
        with contextlib.suppress(OSError):  # a persister that is gone is reported by `reply`
            self._connection.send(message)

    def _how_it_ended(self) -> str:
        code = self._process.wait()
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def _populate(self, size_bytes: int) -> None:
        for start in range(0, size_bytes, _POPULATE_BYTES):
            try:
                self.memory.madvise(_MADV_POPULATE_WRITE, start, min(_POPULATE_BYTES, size_bytes - start))
            except OSError:
                return  # an older kernel: the first save takes longer
