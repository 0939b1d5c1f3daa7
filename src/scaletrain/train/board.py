"""The board: a small actor beside the driver, where workers leave lines of metrics, warnings and errors for it.

Its environment is that of Ray Train's controller, and so it has spares started for all that an attempt needs here.
"""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from scaletrain.errors import ScaletrainError
from scaletrain.log import get_logger
from scaletrain.train import spares

_PROCESSES = 6  # the controller, its four helpers, and a board
_AFTER_S = 2 * spares.AFTER_S  # the workers' spares come first: they are worth more

log = get_logger(__name__)


def start_board() -> Any:
    """The board beside the driver: the machines of workers come and go."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    environment = spares.controller_environment()
    return ray.remote(num_cpus=0)(Board).options(scheduling_strategy=here, runtime_env=environment).remote()


def take_lines(board: Any, on_lines: Callable[[Sequence[bytes]], None]) -> Sequence[bytes]:
    """Hand the lines that have come since the last call to `on_lines`, and return them; warnings go to the log."""
    import ray

    lines: list[bytes]
    lines, warnings = ray.get(board.take_lines.remote())
    for warning in warnings:
        log.warning("%s", warning)
    on_lines(lines)
    return lines


def _start_spares() -> None:
    """By twos: a raylet refuses to start more processes at once than its machine has cores."""
    for _ in range(0, _PROCESSES, 2):
        spares.start_like_this(2)
        time.sleep(spares.AFTER_S / 2)


class Board:
    """What the actor keeps."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self._warnings: list[str] = []
        self._has_spares = False
        self._error: ScaletrainError | None = None

    def add_lines(self, lines: list[bytes]) -> None:
        self._lines.extend(lines)
        if not self._has_spares:
            self._has_spares = True
            threading.Timer(_AFTER_S, _start_spares).start()

    def add_warning(self, warning: str) -> None:
        self._warnings.append(warning)

    def take_lines(self) -> tuple[list[bytes], list[str]]:
        found, self._lines, self._warnings = (self._lines, self._warnings), [], []
        return found

    def add_error(self, error: ScaletrainError) -> None:
        self._error = self._error or error

    def first_error(self) -> ScaletrainError | None:
        return self._error
