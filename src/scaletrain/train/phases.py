"""How an attempt came to its first step: when rank 0 was through with each phase, kept beside the attempt's claim."""

import threading
import time

import orjson
import psutil

from scaletrain import storage
from scaletrain.errors import ScaletrainError
from scaletrain.layout import RunLayout
from scaletrain.log import get_logger

FILE_KIND = "phases"

log = get_logger(__name__)


class Phases:
    """Times of one process, in seconds since 1970 UTC by its machine's clock, in the order in which they came.

    `process` is when the operating system started it. The others are the ends of phases: `entered` (Ray has placed the
    worker, started Python and joined the process group), `imported`, `found` (the newest commit), `engine`, `reference`
    (of preference training), `restored`, `ready` (claims and records), `first_batch`, `first_step`.
    """

    def __init__(self) -> None:
        self.times = {"process": psutil.Process().create_time()}

    def ended(self, name: str) -> None:
        """Note that a phase is over."""
        self.times[name] = time.time()

    def keep(self, run: RunLayout, attempt: int) -> None:
        """Write them into the run's folder, in the background: no run has to end for want of them."""
        url, content = run.attempt_file(attempt, FILE_KIND), orjson.dumps(self.times)

        def write() -> None:
            try:
                storage.write_bytes(url, content)
            except ScaletrainError as error:
                log.warning("cannot note how attempt %d began: %s", attempt, error)

        threading.Thread(target=write, name="phases", daemon=True).start()


def read_phases(run: RunLayout, attempt: int) -> dict[str, float]:
    """The times of an attempt; raises NotFoundError before its first step."""
    found: dict[str, float] = orjson.loads(storage.read_bytes(run.attempt_file(attempt, FILE_KIND)))
    return found
