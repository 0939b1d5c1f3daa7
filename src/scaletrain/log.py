"""One way to speak to the user: log lines, notes and progress bars on stderr; results go to stdout."""

import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


_WIDTH_OF_FILES = 160  # characters a line, where rich would take 80
_PLAIN_LINE_EVERY_S = 15.0

# What strangers wrote must not steer a terminal: control characters are shown as their pictures.
_PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n"} | dict.fromkeys(
    range(127, 160), 0xFFFD
)


def get_logger(name: str) -> logging.Logger:
    """Return the logger of a module; `name` is the module's `__name__`."""
    return logging.getLogger(name)


def setup_logging(*, verbose: bool = False) -> None:
    """Send scaletrain's log lines to stderr; called once per process, by the command line and by each worker."""
    logger = logging.getLogger("scaletrain")
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    # Where it is installed, peft imports bitsandbytes, which on a CPU warns of a package that nothing here needs.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    if logger.handlers:
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Visible("%(asctime)s %(levelname).1s %(name)s: %(message)s", datefmt="%H:%M:%S"))
    logger.addHandler(handler)
    logger.propagate = False


def visible(text: str) -> str:
    """Return a text with its control characters shown as their pictures; tabs and line ends stay."""
    return text.translate(_PICTURES)


def console(*, stderr: bool = True) -> "Console":
    """Return a rich console on stderr, or on stdout for results; where that is no terminal, plain text and wide."""
    from rich.console import Console

    is_terminal = (sys.stderr if stderr else sys.stdout).isatty()
    width = None if is_terminal or "COLUMNS" in os.environ else _WIDTH_OF_FILES
    return Console(stderr=stderr, highlight=not stderr, width=width)


@contextmanager
def progress(*, unit: str) -> Iterator["Progress"]:
    """Yield a display of long work, with count and time left: a bar on a terminal, else a log line now and then."""
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
    is_terminal = sys.stderr.isatty()
    with Progress(*columns, console=console(), disable=not is_terminal) as display:
        if is_terminal:
            yield display
            return
        is_done = threading.Event()
        telling = threading.Thread(target=_tell, args=(display, unit, is_done), name="progress", daemon=True)
        telling.start()
        try:
            yield display
        finally:
            is_done.set()
            telling.join()


def _tell(display: "Progress", unit: str, is_done: threading.Event) -> None:
    """Log how far the tasks of a display are, until it is done."""
    log = get_logger("scaletrain.progress")
    while not is_done.wait(_PLAIN_LINE_EVERY_S):
        for task in display.tasks:
            if task.total is not None and task.completed >= task.total:
                continue
            of = "" if task.total is None else f" of {task.total:,.0f}"
            left = "" if task.time_remaining is None else f", {timedelta(seconds=int(task.time_remaining))} left"
            log.info("%s: %s%s %s%s", task.description, f"{task.completed:,.0f}", of, unit, left)


class _Visible(logging.Formatter):
    """Log lines name what dumps hold."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))
