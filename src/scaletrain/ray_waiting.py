"""Waiting for places on a cluster's machines: until there are enough, or a deadline has passed, with the reasons.

Places are reserved one by one, so that the autoscaler sees what is missing beyond what other jobs use, and keeps a
machine that came early. They are asked of one group of machines after the other: a machine type that states a resource
`group_...` is a group of its own. Left alone, Ray's autoscaler would not go on to another type: it asks for the one
that fits best again and again, though each launch fails.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Self

from scaletrain import policy, ray_autoscaler
from scaletrain.errors import ClusterError, Interrupted
from scaletrain.log import get_logger
from scaletrain.ray_autoscaler import ClusterState, MachineType

_POLL_S = 1.0
_STATE_POLL_S = 5.0
_REMIND_S = 60.0
_GROUP = "group_"

log = get_logger(__name__)


@dataclass(frozen=True)
class Demand:
    """Places, each of which takes `bundle` of one machine: `least` have to come, up to `most` are welcome.

    The rest is for messages: `noun` as "workers", `needed` as "the 2 workers that the run needs at least", and
    `alternative` is what the user may do instead of adding machines.
    """

    bundle: Mapping[str, float]
    least: int
    most: int
    noun: str
    needed: str
    alternative: str


@dataclass(frozen=True)
class Candidate:
    """A group of machines that may give the places; `most` is None where nothing bounds them.

    `group` is the resource that only its machines have, if they have one; `bundle` is what a place asks of them.
    """

    name: str
    group: str
    bundle: Mapping[str, float]
    most: int | None
    has_gpus: bool

    def room_now(self) -> int:
        """How many places the machines of this group that are up have room for, used or not."""
        own = (resources for resources in _alive_nodes() if _group_of(resources) == self.group)
        return sum(ray_autoscaler.whole_bundles(resources, self.bundle) for resources in own)


def find_candidates(demand: Demand) -> list[Candidate]:
    """The groups of machines that could give the least number of places, in the order of the cluster file.

    Raises ClusterError where no group ever can. The process must be connected to Ray.
    """
    types = ray_autoscaler.machine_types()
    everything = Candidate("the cluster", "", demand.bundle, None, has_gpus=False)
    if not types:
        return [everything]
    grouped: dict[str, list[MachineType]] = {}
    for kind in types:
        grouped.setdefault(_group_of(kind.resources), []).append(kind)
    found = [_candidate(group, kinds, demand.bundle) for group, kinds in grouped.items()]
    fitting = [each for each in found if each.most is not None and each.most >= demand.least]
    if fitting:
        return fitting
    # The head of such a cluster may work too, or machines may have been added by hand.
    if _room_now(demand.bundle) >= demand.least:
        return [everything]
    rooms = ", ".join(f"{each.name}: {each.most}" for each in found)
    raise ClusterError(
        f"at least {demand.least} {demand.noun} of {shown(demand.bundle)} each are asked for, but the cluster file "
        f"lets the cluster grow to no more than ({rooms}); raise max_workers there and run `ray up` again, or "
        f"{demand.alternative}"
    )


def wait_for_places(
    demand: Demand,
    candidates: Sequence[Candidate],
    *,
    wait_s: float,
    should_stop: Callable[[], bool],
    eager: bool = False,
) -> tuple[int, Candidate]:
    """Return as many places as there are, once there are enough, and the group that has them; none stays reserved.

    Each candidate is asked for an equal share of `wait_s`, in the order given. `eager` takes what is up already, once
    it is enough, and waits for nothing that is only on its way. Raises ClusterError with the reasons
    where the least number does not come, Interrupted where `should_stop`, which is asked every second, says so.
    """
    autoscales = bool(ray_autoscaler.machine_types())
    began, share_s = datetime.now(), policy.share_of_wait_s(wait_s, len(candidates))
    told: set[str] = set()
    for candidate in candidates:
        ready = _Wait(demand, candidate, began=began, autoscales=autoscales, told=told, eager=eager).until(
            share_s, should_stop
        )
        if ready >= demand.least:
            return ready, candidate
        text = "%s: %d of at least %d %s came in %s min"
        log.warning(text, candidate.name, ready, demand.least, demand.noun, _minutes(share_s))
    raise ClusterError(_nothing_came(demand, candidates, wait_s, began, autoscales=autoscales))


def cluster_resources() -> dict[str, float]:
    """What all machines that are up have, used or not."""
    import ray

    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return resources


def shown(bundle: Mapping[str, float]) -> str:
    """As "4 CPU, 1 GPU"."""
    return ", ".join(f"{amount:g} {name}" for name, amount in bundle.items())


class Reservation:
    """Places asked of Ray one by one, so that those which come are kept; they end with this process at the latest."""

    def __init__(self, bundle: Mapping[str, float], count: int) -> None:
        from ray.util import placement_group

        self._places = [placement_group([dict(bundle)]) for _ in range(count)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def count(self) -> int:
        """How many of them are there."""
        from ray.util import placement_group_table

        table = placement_group_table()
        return sum(table.get(place.id.hex(), {}).get("state") == "CREATED" for place in self._places)

    def release(self) -> None:
        """Give all of them back."""
        from ray.util import remove_placement_group

        for place in self._places:
            remove_placement_group(place)
        self._places = []


class _Wait:
    """One wait for the places of one candidate; `told` holds the failures that the user has seen."""

    def __init__(
        self, demand: Demand, candidate: Candidate, *, began: datetime, autoscales: bool, told: set[str], eager: bool
    ) -> None:
        self._demand = demand
        self._candidate = candidate
        self._wanted = demand.most if candidate.most is None else min(demand.most, candidate.most)
        self._began = began
        self._autoscales = autoscales
        self._state: ClusterState | None = None
        self._state_read_at = -_STATE_POLL_S
        self._said = ""
        self._said_at = 0.0
        self._told = told
        self._eager = eager
        self._ready, self._changed_s = 0, 0.0

    def until(self, wait_s: float, should_stop: Callable[[], bool]) -> int:
        """Hold places until enough are there or the time has passed; returns how many are there."""
        start = time.monotonic()
        with Reservation(self._candidate.bundle, self._wanted) as places:
            while True:
                ready, waited_s = places.count(), time.monotonic() - start
                if ready != self._ready:
                    self._ready, self._changed_s = ready, waited_s
                if ready == self._wanted or waited_s >= wait_s:
                    return ready
                if ready >= self._demand.least and self._nothing_more(waited_s):
                    return ready
                self._say(ready, waited_s, wait_s)
                if should_stop():
                    raise Interrupted(
                        f"stopped while it waited for {self._demand.noun}; nothing is lost, the same command goes on"
                    )
                time.sleep(min(_POLL_S, 0.1 + waited_s / 4))  # where all is there already, nobody waits a second

    def _nothing_more(self, waited_s: float) -> bool:
        if self._autoscales and not self._eager:
            self._look(waited_s)
        return policy.takes_what_is_there(
            waited_s,
            unchanged_s=waited_s - self._changed_s,
            is_coming=self._state is not None and self._state.coming > 0,
            autoscales=self._autoscales,
            eager=self._eager,
        )

    def _say(self, ready: int, waited_s: float, wait_s: float) -> None:
        """Tell what is there and what is coming, when that changes and once a minute; each failure once."""
        if waited_s < _POLL_S:
            return
        self._look(waited_s)
        coming = self._state.describe_coming() if self._state else ""
        text = f"{ready} of at least {self._demand.least} {self._demand.noun} are there"
        text += f" ({coming})" if coming else ""
        if text != self._said or waited_s - self._said_at >= _REMIND_S:
            self._said, self._said_at = text, waited_s
            log.info("waiting for machines: %s; %.0f s of at most %.0f s", text, waited_s, wait_s)

    def _look(self, now_s: float) -> None:
        if now_s - self._state_read_at < _STATE_POLL_S:
            return
        self._state_read_at = now_s
        self._state = _read_state()
        for failure in ray_autoscaler.read_failures(self._state, since=self._began) if self._autoscales else ():
            if str(failure) not in self._told:
                self._told.add(str(failure))
                log.warning("%s", failure)


def _candidate(group: str, kinds: Sequence[MachineType], bundle: Mapping[str, float]) -> Candidate:
    needs = {**bundle, group: 1} if group else dict(bundle)
    return Candidate(
        name=group.removeprefix(_GROUP) or ", ".join(kind.name for kind in kinds),
        group=group,
        bundle=needs,
        most=sum(kind.room_for(needs) for kind in kinds),
        has_gpus=any(kind.resources.get("GPU", 0) for kind in kinds),
    )


def _group_of(resources: Mapping[str, float]) -> str:
    return next((name for name in resources if name.startswith(_GROUP)), "")


def _minutes(seconds: float) -> str:
    return f"{round(seconds / 60, 1):g}"


def _nothing_came(
    demand: Demand, candidates: Sequence[Candidate], wait_s: float, began: datetime, *, autoscales: bool
) -> str:
    """Say that the places did not come, and why."""
    names = " and ".join(each.name for each in candidates)
    text = f"{demand.needed} did not come in {_minutes(wait_s)} minutes ({names})"
    if not autoscales:
        return (
            f"{text}: the cluster has room for {_room_now(demand.bundle)} of {shown(demand.bundle)} each, and no "
            f"autoscaler; add machines, end what else runs there, or {demand.alternative}"
        )
    state = _read_state()
    reasons = ray_autoscaler.read_failures(state, since=began)
    if reasons:
        return "\n  ".join([f"{text}:", *(str(each) for each in reasons[-5:])])
    coming = state.describe_coming()
    if coming:
        return f"{text}: {coming}; raise scaling.wait_minutes, or see {ray_autoscaler.SETUP_REMEDY}"
    return f"{text}, and the autoscaler gives no reason: see `ray exec FILE 'ray status -v'`; other jobs may hold them"


def _read_state() -> ClusterState:
    import ray

    return ray_autoscaler.read_state(ray.get_runtime_context().gcs_address)


def _room_now(bundle: Mapping[str, float]) -> int:
    """How many such places the machines that are up have room for, used or not."""
    return sum(ray_autoscaler.whole_bundles(resources, bundle) for resources in _alive_nodes())


def _alive_nodes() -> list[Mapping[str, float]]:
    """The resources of each machine that is up."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
