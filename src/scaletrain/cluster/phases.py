"""How long each phase of a longer action took: told at debug level, and kept for whoever measures."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from scaletrain.log import get_logger

log = get_logger(__name__)


class Phases:
    """The seconds of each phase, in order."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Measure a block as one phase; a block that fails counts too."""
        began = time.perf_counter()
        try:
            yield
        finally:
            took = time.perf_counter() - began
            self.seconds[name] = self.seconds.get(name, 0.0) + took
            log.debug("%s: %.3f s", name, took)
