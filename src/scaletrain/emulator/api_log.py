"""What was asked of an emulated cloud's API and by whom, and which launches are to fail: the same on every cloud."""

import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from scaletrain.log import get_logger

_log = get_logger(__name__)


@dataclass(frozen=True)
class ApiCall:
    """One call in the log; `error` is the code of a refusal."""

    time_s: float
    caller: str
    address: str
    service: str
    action: str
    status: int
    error: str = ""


class ApiLog:
    """Every call so far, on a clock that begins with the cloud."""

    def __init__(self) -> None:
        self.calls: list[ApiCall] = []
        self._started_at = time.monotonic()

    def now_s(self) -> float:
        """Return this moment on the clock of the log."""
        return round(time.monotonic() - self._started_at, 2)

    def record(self, *, caller: str, address: str, service: str, action: str, status: int, error: str) -> None:
        """Note a call that was answered."""
        call = ApiCall(self.now_s(), caller, address, service, action, status, error)
        self.calls.append(call)
        _log.info("%s", " ".join(str(value) for value in asdict(call).values()))


@dataclass
class LaunchFailure:
    """Launches that are to fail: the next `count` of this market and instance type (empty: of any)."""

    code: str
    count: int
    market: str = ""
    instance_type: str = ""


class LaunchFailures:
    """The launches that are to fail from now on; `take` may be called from any thread."""

    def __init__(self) -> None:
        self._failures: list[LaunchFailure] = []
        self._lock = threading.Lock()

    def set(self, code: str, count: int, market: str, instance_type: str) -> None:
        """Let the next launches of this kind fail, and no others; count 0: no more failures."""
        with self._lock:
            self._failures = [LaunchFailure(code, count, market, instance_type)] if count else []

    def take(self, *, market: str, instance_type: str) -> str:
        """Return the code with which this launch is to fail, empty where it is not to."""
        with self._lock:
            for each in self._failures:
                if each.count > 0 and each.market in ("", market) and each.instance_type in ("", instance_type):
                    each.count -= 1
                    return each.code
        return ""


def log_actions(log: ApiLog, failures: LaunchFailures) -> dict[str, Callable[..., Any]]:
    """What may be asked of a cloud about its API's log and launches."""
    return {
        "api_log": lambda: [asdict(call) for call in list(log.calls)],
        "now": log.now_s,
        "fail_launches": failures.set,
    }
