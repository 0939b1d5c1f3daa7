"""Keeps machines as a cloud's API says: boots what was launched, stops what was stopped, filters as its rules say."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from scaletrain.emulator.machines import Boot, Machines
from scaletrain.errors import ScaletrainError
from scaletrain.log import get_logger

_log = get_logger(__name__)
_LOOK_AGAIN_S = 1.0


@dataclass(frozen=True)
class Wanted:
    """What a machine should be: on with a packet filter, or off, with its disk kept or not.

    `awaited`: somebody is to be told once it is so, even if it is so already.
    """

    name: str
    on: bool
    keep_disk: bool = False
    firewall: str = ""
    awaited: bool = False


class Keeper:
    """One thread that compares, a pool that boots and stops.

    `wanted` returns what each machine should be, `boot_of` what one is started with; `settled` is told when a machine
    is on or off as was wanted. All are called from threads of the keeper's own. `changed` is set by whoever changes
    what is wanted.
    """

    def __init__(
        self,
        machines: Machines,
        *,
        changed: threading.Event,
        wanted: Callable[[], Sequence[Wanted]],
        boot_of: Callable[[str], Boot],
        settled: Callable[[Wanted], None],
    ) -> None:
        self._machines = machines
        self._changed = changed
        self._wanted = wanted
        self._boot_of = boot_of
        self._settled = settled
        self._pool = ThreadPoolExecutor(max_workers=16, thread_name_prefix="machine")
        self._busy: set[str] = set()
        self._filters: dict[str, str] = {}

    def start(self) -> None:
        """Begin to keep; goes on until the process ends."""
        threading.Thread(target=self._keep, daemon=True, name="keeper").start()

    def _keep(self) -> None:
        while True:
            self._changed.wait(_LOOK_AGAIN_S)
            self._changed.clear()
            wanted = self._wanted()
            on = set(self._machines.names())
            for each in wanted:
                if each.name not in self._busy and ((each.name in on) is not each.on or each.awaited):
                    self._busy.add(each.name)
                    self._pool.submit(self._converge, each)
            self._refresh_filters(wanted)

    def _converge(self, wanted: Wanted) -> None:
        try:
            if wanted.on and wanted.name not in self._machines.names():
                self._machines.boot(self._boot_of(wanted.name))
            elif not wanted.on:
                self._filters.pop(wanted.name, None)
                self._machines.stop(wanted.name)
                if not wanted.keep_disk:
                    self._machines.remove_disk(wanted.name)
            self._settled(wanted)
        except (ScaletrainError, OSError):  # the others go on; it is tried again, and its waiters see it missing
            _log.exception("%s: could not be made %s", wanted.name, "on" if wanted.on else "off")
            time.sleep(_LOOK_AGAIN_S)
        finally:
            self._busy.discard(wanted.name)
            self._changed.set()

    def _refresh_filters(self, wanted: Sequence[Wanted]) -> None:
        for each in wanted:
            changed = each.on and self._filters.get(each.name) != each.firewall
            if changed and self._machines.set_firewall(each.name, each.firewall):
                self._filters[each.name] = each.firewall
