"""One way to speak to the user: log lines, notes and progress bars on stderr; results go to stdout."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


def get_logger(name: str) -> logging.Logger:
    """Return the logger of a module; `name` is the module's `__name__`."""
    return logging.getLogger(name)


def setup_logging(*, verbose: bool = False) -> None:
    """Send scaletrain's log lines to stderr; called once per process, by the command line and by each worker."""
    logger = logging.getLogger("scaletrain")
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    if logger.handlers:
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname).1s %(name)s: %(message)s", datefmt="%H:%M:%S"))
    logger.addHandler(handler)
    logger.propagate = False


def console() -> "Console":
    """Return a rich console on stderr (plain text where stderr is no terminal)."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


@contextmanager
def progress(*, unit: str) -> Iterator["Progress"]:
    """Yield a progress display for long work, with count, rate in `unit`/s and time left."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console(), disable=not sys.stderr.isatty()) as display:
        yield display
