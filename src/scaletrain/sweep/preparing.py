"""A trial whose data and model are being prepared, in a thread: that may take minutes, and the others go on."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import replace

from scaletrain.errors import ConfigError, DataError, ModelError
from scaletrain.log import get_logger
from scaletrain.sweep.checking import shown
from scaletrain.sweep.records import Facts, TrialRecord
from scaletrain.sweep.space import Values

log = get_logger(__name__)


class Preparing:
    """One trial's preparation, under way from the beginning; `total_steps` does it, and counts the trial's steps."""

    def __init__(self, record: TrialRecord, total_steps: Callable[[Values], int]) -> None:
        self._record = record
        self._future: Future[int] = Future()
        name = f"prepare-{record.number}"
        threading.Thread(target=self._prepare, args=(total_steps,), name=name, daemon=True).start()

    def result(self, *, wait_s: float) -> TrialRecord | None:
        """The trial, ready to begin; None where it is not within `wait_s`.

        It has failed already where its data or its model cannot be prepared. Raises whatever else went wrong, which
        ends the sweep as a whole.
        """
        if not wait([self._future], timeout=wait_s).done:
            return None
        try:
            return replace(self._record, facts=Facts(total_steps=self._future.result()))
        except (ConfigError, DataError, ModelError) as error:
            log.warning("trial %d (%s) has failed: %s", self._record.number, shown(self._record.parameters), error)
            return replace(self._record, state="failed", reason=str(error))

    def _prepare(self, total_steps: Callable[[Values], int]) -> None:
        try:
            self._future.set_result(total_steps(dict(self._record.parameters)))
        except BaseException as error:  # noqa: BLE001 -- handed over to whoever asks for the result
            self._future.set_exception(error)
