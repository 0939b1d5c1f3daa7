"""Following a job's log to the job's end, over connections that may break on the way: the job goes on without us."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from scaletrain.cluster.jobs import Job, JobServer
from scaletrain.cluster.ssh_tunnel import UnreachableError
from scaletrain.errors import ClusterError
from scaletrain.log import get_logger

_GIVE_UP_S = 300.0
_PAUSE_S = 2.0

log = get_logger(__name__)


def follow(
    job_id: str,
    connect: Callable[[], AbstractContextManager[JobServer]],
    *,
    write: Callable[[str], None],
    server: JobServer | None = None,
    skip_lines: int = 0,
) -> Job:
    """Write a job's log from its beginning, less `skip_lines`, until it has ended; returns how it ended.

    `server` is a connection that is open already; when it breaks, `connect` makes others. Raises ClusterError when no
    connection can be had for five minutes, and where the cluster is no longer up.
    """
    shown = _Shown(write, skip_lines)
    lost_at: float | None = None
    while True:
        try:
            with nullcontext(server) if server is not None else connect() as connection:
                lost_at = None
                connection.tail(job_id, shown.restarted())
                job = connection.job(job_id)
                if job.has_ended:
                    shown.restarted()(connection.log_text(job_id))
                    return job
        except UnreachableError as error:
            lost_at = lost_at if lost_at is not None else time.monotonic()
            if time.monotonic() - lost_at > _GIVE_UP_S:
                raise ClusterError(
                    f"{error}\nthe job {job_id} goes on; follow it again when there is a network"
                ) from error
            log.warning("the connection to the cluster is lost, the job goes on; connecting again")
        server = None
        time.sleep(_PAUSE_S)


class _Shown:
    """Writes a text that is sent from its beginning again and again, each character once."""

    def __init__(self, write: Callable[[str], None], skip_lines: int) -> None:
        self._write = write
        self._skip_lines = skip_lines
        self._shown = 0

    def restarted(self) -> Callable[[str], None]:
        """What to give the text to, piece by piece, when it is sent anew."""
        seen = 0

        def take(text: str) -> None:
            nonlocal seen
            new = text[max(0, self._shown - seen) :]
            seen += len(text)
            self._shown = max(self._shown, seen)
            self._emit(new)

        return take

    def _emit(self, text: str) -> None:
        while self._skip_lines and text:
            _, line_end, text = text.partition("\n")
            self._skip_lines -= bool(line_end)
        if text:
            self._write(text)
