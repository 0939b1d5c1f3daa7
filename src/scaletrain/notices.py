"""The clouds' notices that this machine will be taken away: read from its metadata service, passed on to Ray.

    with Sentinel() as sentinel:
        for step in steps:
            ...
            if sentinel.notice is not None:
                save()
                break

Nothing in Ray reads them. Off the clouds the sentinel's thread ends at once.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/rebalance-recommendations.html
https://cloud.google.com/compute/docs/instances/create-use-spot#detect-preemption
https://cloud.google.com/compute/docs/metadata/getting-live-migration-notice
"""

import http.client
import json
import math
import threading
import time
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Literal, Self

from scaletrain.log import get_logger
from scaletrain.metadata_service import ADDRESS, EC2, UNANSWERED, Answer, Google, NoTokenError, recognise

_POLL_S = 2.0  # AWS recommends every 5 s; Google's whole notice is 30 s
_TRIES = 3  # on a busy machine the first answer may be late, and a sleeping thread costs nothing
_SILENT_AFTER = 30  # polls without an answer before it is said
_DRAIN_TIMEOUT_S = 10.0
_EC2_NOTICE_S = 120.0
_PREEMPTION_S = 30.0
_MAINTENANCE_S = 60.0  # with GPUs Google may say so up to an hour before; which it is, the notice does not tell

log = get_logger(__name__)


@dataclass(frozen=True)
class Notice:
    """What the cloud said of this machine: "terminate" has an end, "rebalance" says that one is likely (EC2 only).

    `ends_at_s` is on this machine's time.monotonic(), which nobody sets; to other machines pass `left_s()` on.
    """

    kind: Literal["terminate", "rebalance"]
    said: str
    ends_at_s: float = math.inf

    def left_s(self) -> float:
        """Seconds until the machine is taken, 0 when that is past, infinite for a rebalance."""
        return max(0.0, self.ends_at_s - time.monotonic())


class Sentinel:
    """Watches, for the time of a `with` block, for the end of the machine that it runs on.

    `notice` is None until the cloud says that it will take the machine; then Ray is told too (`drain_this_node`).
    `advice` is EC2's earlier word, without a date, that it may soon: nothing is done about it here.
    Give `address` (host or host:port) for another metadata service than the machine's own.
    """

    def __init__(self, *, address: str = ADDRESS) -> None:
        self.notice: Notice | None = None
        self.advice: Notice | None = None
        self._address = address
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="notices", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        if self.notice is not None:  # this process may end right now, and Ray has to hear of it before
            self._thread.join(timeout=_DRAIN_TIMEOUT_S)

    def _watch(self) -> None:
        cloud = self._find_cloud()
        unanswered = 0
        while cloud is not None and not self._ending.is_set():
            try:
                found = cloud.read()
                unanswered = 0
            except UNANSWERED as error:
                found = None
                unanswered += 1
                if unanswered == _SILENT_AFTER:
                    log.warning("the metadata service answers no more (%s): a notice may be missed", error)
            if found is not None and found.kind == "terminate":
                self._announce(found)
                return
            if found is not None and self.advice is None:
                self.advice = found
                log.warning("%s; the run goes on", found.said)
            self._ending.wait(_POLL_S)

    def _find_cloud(self) -> "_EC2Watcher | _GoogleWatcher | None":
        for again in reversed(range(_TRIES)):
            try:
                return _watcher(recognise(self._address))
            except NoTokenError as error:
                if not again:
                    log.warning("the notice before EC2 takes a spot machine will not be seen: %s", error)
            except (TimeoutError, ConnectionResetError, http.client.HTTPException) as error:
                log.debug("no metadata service at %s yet: %s", self._address, error)
            except OSError as error:  # refused, no route: nobody is there
                log.debug("no metadata service at %s: %s", self._address, error)
                return None
            if again and self._ending.wait(_POLL_S):
                return None
        return None

    def _announce(self, notice: Notice) -> None:
        self.notice = notice
        log.warning(
            "%s, %.0f s from now: the run saves its state at once and goes on without this machine",
            *(notice.said, notice.left_s()),
        )
        drain_this_node(notice.left_s(), message=notice.said)


def drain_this_node(deadline_s: float, *, message: str) -> None:
    """Tell Ray that the node of this process goes away `deadline_s` seconds from now: it places nothing new there.

    What runs there goes on; the node ends as soon as it is idle, even before the deadline. That it cannot be told is
    worth a warning, never an error. Does nothing in a process without Ray, and on a cluster's head, whose end nothing
    outlives and whose driver still has to note it.
    """
    import ray

    if not ray.is_initialized():
        return
    try:
        # Private, and the only way: Ray has no public call for it, and `ray drain-node` itself, hidden and without
        # promises too, does no more than this. A node id that is not in hex would be accepted and nothing drained.
        from ray._raylet import GcsClient  # type: ignore[attr-defined]
        from ray.core.generated.autoscaler_pb2 import DRAIN_NODE_REASON_PREEMPTION  # type: ignore[attr-defined]

        context = ray.get_runtime_context()
        node_id = context.get_node_id()
        (node,) = [each for each in ray.nodes() if each["NodeID"] == node_id]  # type: ignore[no-untyped-call]
        if "node:__internal_head__" in node["Resources"]:
            log.warning("this machine is the cluster's head: with it the whole cluster ends")
            return
        deadline_ms = int((time.time() + deadline_s) * 1000)
        client = GcsClient(address=context.gcs_address)
        accepted, reason = client.drain_node(
            node_id, DRAIN_NODE_REASON_PREEMPTION, message, deadline_ms, timeout=_DRAIN_TIMEOUT_S
        )
    except Exception as error:  # noqa: BLE001 -- of whatever kind: the state must be saved all the same
        accepted, reason = False, str(error)
    if not accepted:
        log.warning("Ray could not be told that this machine goes, and may place new work on it: %s", reason)


# --- The clouds -------------------------------------------------------------------------------------------------------


class _EC2Watcher:
    def __init__(self, service: EC2) -> None:
        self._service = service

    def read(self) -> Notice | None:
        """Return what it says of this machine's end, if anything."""
        action = self._service.get("spot/instance-action")
        if action.status == 200:
            told = json.loads(action.text)
            said = f"EC2 will {told['action']} this spot machine at {told['time']}"
            return Notice("terminate", said, _ec2_end(told["time"], action))
        if self._service.get("events/recommendations/rebalance").status == 200:
            return Notice("rebalance", "EC2 says that this spot machine is more likely than others to be taken soon")
        return None


class _GoogleWatcher:
    """Google's metadata server tells that the end is near, but not when that became known."""

    def __init__(self, service: Google) -> None:
        self._service = service
        self._quiet_at_s = time.monotonic()

    def read(self) -> Notice | None:
        """Return what it says of this machine's end, if anything.

        `maintenance-event` has to be asked by its own name: only who does gets Google's warning in advance.
        """
        asked_at_s = time.monotonic()
        # The notice may be as old as the last time that it was not there: its seconds count from then.
        if self._service.text("preempted") == "TRUE":
            return Notice("terminate", "Google preempts this spot machine", self._quiet_at_s + _PREEMPTION_S)
        if self._service.text("maintenance-event") == "TERMINATE_ON_HOST_MAINTENANCE":
            said = "Google stops this machine for maintenance of its host"
            return Notice("terminate", said, self._quiet_at_s + _MAINTENANCE_S)
        self._quiet_at_s = asked_at_s
        return None


def _watcher(service: EC2 | Google | None) -> _EC2Watcher | _GoogleWatcher | None:
    if service is None:
        return None
    return _EC2Watcher(service) if isinstance(service, EC2) else _GoogleWatcher(service)


def _ec2_end(time_text: str, answer: Answer) -> float:
    """When a machine is taken, on time.monotonic().

    The notice's time is by EC2's clock, and so is the Date of the answer that brings it: what lies between them is
    right however wrong this machine's clock is. A Date has whole seconds, so up to one more may have passed, and it
    was written after the question was asked. Only without a Date is this machine's clock asked instead; one that is
    late would promise time that is not there, so that never counts for more than EC2's two minutes.
    """
    end_s = datetime.fromisoformat(time_text).timestamp()
    if answer.date is not None:
        return answer.asked_at_s + end_s - parsedate_to_datetime(answer.date).timestamp() - 1
    return answer.asked_at_s + min(end_s - time.time(), _EC2_NOTICE_S)
