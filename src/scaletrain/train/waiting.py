"""Waiting for workers: machines that a cluster has to bring first, until there are enough or a deadline has passed.

Places are reserved one by one, so that the autoscaler sees what is missing beyond what other jobs use, and keeps a
machine that came early. A run takes all its workers from one group of machines: a machine type that states a resource
`group_...` is a group of its own, and where one group does not come in its share of the time, the next one is asked.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from scaletrain import ray_autoscaler
from scaletrain.config import ScalingSection, WorkerRange
from scaletrain.errors import ClusterError, DeviceError, Interrupted
from scaletrain.log import get_logger
from scaletrain.ray_autoscaler import ClusterState, MachineType

_POLL_S = 1.0
_STATE_POLL_S = 5.0
_REMIND_S = 60.0
_SETTLE_S = 10.0  # for the autoscaler to see what is missing
_GRACE_S = 180.0  # for more than the minimum, while machines are on their way
_GROUP = "group_"

log = get_logger(__name__)


@dataclass(frozen=True)
class WorkerGroup:
    """Workers that can start now: how many, and what each of them asks Ray for."""

    num_workers: int
    resources: Mapping[str, float]


@dataclass(frozen=True)
class _Candidate:
    """Machines that a run may take its workers from; `most` is None where nothing bounds them."""

    name: str
    bundle: Mapping[str, float]
    most: int | None


def wait_for_workers(
    scaling: ScalingSection, *, device: Literal["cuda", "cpu"], wait_s: float, should_stop: Callable[[], bool]
) -> WorkerGroup:
    """Return as many of `scaling.workers` as there are, once there are enough; at once where this machine is all.

    Raises ClusterError with the reasons where the minimum does not come within `wait_s` or can never come, DeviceError
    where this machine has too few GPUs, Interrupted where `should_stop`, which is asked every second, says so.
    """
    workers = scaling.workers
    least, most = (workers.min, workers.max) if isinstance(workers, WorkerRange) else (workers, workers)
    bundle = {"CPU": scaling.cpus_per_worker}
    if device == "cuda":
        bundle["GPU"] = scaling.gpus_per_worker or 1
    if not os.environ.get("RAY_ADDRESS"):
        return WorkerGroup(_on_this_machine(least, most, bundle), bundle)
    types = ray_autoscaler.machine_types()
    candidates = _candidates(bundle, types, least)
    began, share_s = datetime.now(), wait_s / len(candidates)
    for candidate in candidates:
        wanted = most if candidate.most is None else min(most, candidate.most)
        ready = _Wait(candidate, least, wanted, began=began, autoscales=bool(types)).until(share_s, should_stop)
        if ready >= least:
            return WorkerGroup(ready, candidate.bundle)
        log.warning("%s: %d of at least %d workers came in %.0f min", candidate.name, ready, least, share_s / 60)
    raise ClusterError(_no_workers(candidates, least, wait_s, began, autoscales=bool(types)))


def _on_this_machine(least: int, most: int, bundle: Mapping[str, float]) -> int:
    """How many workers fit on this machine alone, whose Ray was started with CPUs enough for all of them."""
    resources = _cluster_resources()
    room = ray_autoscaler.whole_bundles(resources, bundle)
    if room >= least:
        return min(room, most)
    if "GPU" in bundle:
        gpus = int(resources.get("GPU", 0))
        raise DeviceError(f"scaling.workers={least}, but this machine has {gpus} GPUs; use scaling.workers={gpus}")
    raise ClusterError(
        f"scaling.workers: at least {least} of {_shown(bundle)} each are asked for, but Ray has room for {room} here; "
        "lower scaling.workers or scaling.cpus_per_worker"
    )


def _candidates(bundle: Mapping[str, float], types: Sequence[MachineType], least: int) -> list[_Candidate]:
    """The groups of machines that could hold the run, those that are up first."""
    if not types:
        return [_Candidate("the cluster", bundle, None)]
    grouped: dict[str, list[MachineType]] = {}
    for kind in types:
        grouped.setdefault(next((name for name in kind.resources if name.startswith(_GROUP)), ""), []).append(kind)
    found = []
    for group, kinds in grouped.items():
        needs = {**bundle, group: 1} if group else dict(bundle)
        most = sum(kind.room_for(needs) for kind in kinds)
        found.append(_Candidate(group.removeprefix(_GROUP) or ", ".join(kind.name for kind in kinds), needs, most))
    fitting = [each for each in found if each.most is not None and each.most >= least]
    if not fitting:
        # The head of such a cluster may work too, or machines may have been added by hand.
        if _room_now(bundle) >= least:
            return [_Candidate("the cluster", bundle, None)]
        rooms = ", ".join(f"{each.name}: {each.most}" for each in found)
        raise ClusterError(
            f"scaling.workers: at least {least} of {_shown(bundle)} each are asked for, but the cluster file lets the "
            f"cluster grow to no more than ({rooms}); raise max_workers there and run `ray up` again, or lower "
            "scaling.workers"
        )
    up = _cluster_resources()
    return sorted(fitting, key=lambda each: -ray_autoscaler.whole_bundles(up, each.bundle))


class _Wait:
    """One wait for the workers of one candidate."""

    def __init__(self, candidate: _Candidate, least: int, wanted: int, *, began: datetime, autoscales: bool) -> None:
        self._candidate = candidate
        self._least = least
        self._wanted = wanted
        self._began = began
        self._autoscales = autoscales
        self._state: ClusterState | None = None
        self._state_read_at = -_STATE_POLL_S
        self._said = ""
        self._said_at = 0.0
        self._warned: set[str] = set()

    def until(self, wait_s: float, should_stop: Callable[[], bool]) -> int:
        """Hold places until enough are there or the time has passed; returns how many are there."""
        start = time.monotonic()
        with _reserved(self._candidate.bundle, self._wanted) as places:
            while True:
                ready, waited_s = _count_placed(places), time.monotonic() - start
                if ready == self._wanted or waited_s >= wait_s:
                    return ready
                if ready >= self._least and self._nothing_more(waited_s):
                    return ready
                self._say(ready, waited_s, wait_s)
                if should_stop():
                    raise Interrupted("stopped while it waited for workers; nothing is lost, the same command goes on")
                time.sleep(min(_POLL_S, 0.1 + waited_s / 4))  # where all is there already, nobody waits a second

    def _nothing_more(self, waited_s: float) -> bool:
        if not self._autoscales:
            return waited_s > _POLL_S
        self._look(waited_s)
        nothing_coming = self._state is None or self._state.coming == 0
        return waited_s >= _GRACE_S or (nothing_coming and waited_s >= _SETTLE_S)

    def _say(self, ready: int, waited_s: float, wait_s: float) -> None:
        """Tell what is there and what is coming, when that changes and once a minute; each failure once."""
        if waited_s < _POLL_S:
            return
        self._look(waited_s)
        coming = self._state.describe_coming() if self._state else ""
        text = f"{ready} of at least {self._least} workers are there" + (f" ({coming})" if coming else "")
        if text != self._said or waited_s - self._said_at >= _REMIND_S:
            self._said, self._said_at = text, waited_s
            log.info("waiting for machines: %s; %.0f s of at most %.0f s", text, waited_s, wait_s)

    def _look(self, now_s: float) -> None:
        if now_s - self._state_read_at < _STATE_POLL_S:
            return
        self._state_read_at = now_s
        self._state = _read_state()
        for failure in ray_autoscaler.read_failures(self._state, since=self._began) if self._autoscales else ():
            if str(failure) not in self._warned:
                self._warned.add(str(failure))
                log.warning("%s", failure)


def _no_workers(
    candidates: Sequence[_Candidate], least: int, wait_s: float, began: datetime, *, autoscales: bool
) -> str:
    """Say that the workers did not come, and why."""
    names = " and ".join(each.name for each in candidates)
    text = f"the {least} workers that the run needs at least did not come in {wait_s / 60:.0f} minutes ({names})"
    state = _read_state()
    if not autoscales:
        room = _room_now(candidates[0].bundle)
        return (
            f"{text}: the cluster has room for {room} of {_shown(candidates[0].bundle)} each, and no autoscaler; "
            "add machines, end what else runs there, or lower scaling.workers"
        )
    reasons = ray_autoscaler.read_failures(state, since=began)
    if reasons:
        return "\n  ".join([f"{text}:", *(str(each) for each in reasons[-5:])])
    coming = state.describe_coming()
    if coming:
        return f"{text}: {coming}; raise scaling.wait_minutes, or see {ray_autoscaler.SETUP_REMEDY}"
    return f"{text}, and the autoscaler gives no reason: see `ray exec FILE 'ray status -v'`; other jobs may hold them"


@contextmanager
def _reserved(bundle: Mapping[str, float], count: int) -> Iterator[list[Any]]:
    """Ask Ray for `count` places; they are given back at the end, and with this process."""
    from ray.util import placement_group, remove_placement_group

    places = [placement_group([dict(bundle)]) for _ in range(count)]
    try:
        yield places
    finally:
        for place in places:
            remove_placement_group(place)


def _count_placed(places: Sequence[Any]) -> int:
    from ray.util import placement_group_table

    table = placement_group_table()
    return sum(table.get(place.id.hex(), {}).get("state") == "CREATED" for place in places)


def _read_state() -> ClusterState:
    import ray

    return ray_autoscaler.read_state(ray.get_runtime_context().gcs_address)


def _room_now(bundle: Mapping[str, float]) -> int:
    """How many workers the machines that are up have room for, used or not."""
    import ray

    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    return sum(ray_autoscaler.whole_bundles(resources, bundle) for resources in alive)


def _cluster_resources() -> dict[str, float]:
    import ray

    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return resources


def _shown(bundle: Mapping[str, float]) -> str:
    return ", ".join(f"{amount:g} {name}" for name, amount in bundle.items())
