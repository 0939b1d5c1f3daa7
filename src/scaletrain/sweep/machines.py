"""The machines of an autoscaling cluster while a sweep runs on it: which are there, which work, how many are wanted.

The sweep's own process looks every second, and keeps what has changed. In the bucket, one file for each command that
has worked on the sweep, JSON Lines, the first of which has the prices:

    sweeps/<name>/machines/attempt-0001.jsonl
"""

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import orjson

from scaletrain import ray_autoscaler, ray_cluster, storage
from scaletrain.config import Config
from scaletrain.cost import Prices, prices_of
from scaletrain.errors import NotFoundError
from scaletrain.log import get_logger
from scaletrain.ray_autoscaler import MachineType
from scaletrain.storage.parallel import in_parallel
from scaletrain.sweep.records import SweepLayout
from scaletrain.this_machine import Machine

_LOOK_S = 1.0
_READERS = 16

log = get_logger(__name__)


@dataclass(frozen=True)
class Sample:
    """What held from `at` (seconds since 1970 UTC) until the next sample.

    `machines` are the workers' that have joined the cluster, each with the name of its type and whether anything runs
    on it; `coming` are those that are launched or set up, by type; `wanted` is how many the trials need together.
    """

    at: float
    wanted: int
    machines: Mapping[str, tuple[str, bool]]
    coming: Mapping[str, int]

    @property
    def busy(self) -> int:
        return sum(is_busy for _, is_busy in self.machines.values())


@dataclass(frozen=True)
class Watched:
    """All that one command saw; `usd_per_hour` is a machine's price by type, `head_usd_per_hour` that of the head.

    A price that is not known is None.
    """

    samples: tuple[Sample, ...]
    usd_per_hour: Mapping[str, float | None]
    head_usd_per_hour: float | None

    def to_lines(self) -> bytes:
        """As JSON Lines."""
        head = {"usd_per_hour": dict(self.usd_per_hour), "head_usd_per_hour": self.head_usd_per_hour}
        rows = [
            {"at": each.at, "wanted": each.wanted, "machines": dict(each.machines), "coming": dict(each.coming)}
            for each in self.samples
        ]
        return b"".join(orjson.dumps(row) + b"\n" for row in (head, *rows))

    @classmethod
    def from_lines(cls, content: bytes) -> "Watched":
        head, *rows = (orjson.loads(line) for line in content.splitlines())
        samples = tuple(_sample(row) for row in rows)
        return cls(samples, head["usd_per_hour"], head["head_usd_per_hour"])


class MachineWatch:
    """Watches in a thread for the time of a `with` block; `wanted` says how many machines the trials need now.

    `look` asks the cluster. What one command saw is in memory, and in the bucket after `write`.
    """

    def __init__(
        self,
        url: str,
        *,
        wanted: Callable[[], int],
        look: Callable[[], ray_autoscaler.ClusterState],
        usd_per_hour: Mapping[str, float | None],
        head_usd_per_hour: float | None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._url = url
        self._wanted = wanted
        self._look = look
        self._prices = usd_per_hour, head_usd_per_hour
        self._clock = clock
        self._samples: list[Sample] = []
        self._last: Sample | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="machines", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(timeout=10)

    def look(self) -> None:
        """Look once, and keep what differs from the time before."""
        try:
            state = self._look()
        except Exception as error:  # noqa: BLE001 -- Ray raises many kinds; a look that fails is only a gap in a chart
            log.debug("the cluster does not say which machines there are: %s", error)
            return
        now = Sample(
            at=round(self._clock(), 3),
            wanted=self._wanted(),
            machines={
                each.node_id[:12]: (each.type, each.state == "busy") for each in state.machines if not each.is_head
            },
            coming={
                name: count
                for name in {*state.launching, *state.setting_up}
                if (count := state.launching.get(name, 0) + state.setting_up.get(name, 0))
            },
        )
        changed = self._last is None or _but_for_time(now) != _but_for_time(self._last)
        self._last = now
        if changed:
            self._samples.append(now)

    def seen(self) -> Watched:
        """All so far; the last look ends it, whether something had changed or not."""
        last = self._last
        samples = tuple(self._samples)
        if last is not None and samples and samples[-1].at < last.at:
            samples += (last,)
        return Watched(samples, *self._prices)

    def write(self) -> Watched:
        """Put all so far into the bucket, and return it; raises StorageError."""
        seen = self.seen()
        if seen.samples:
            storage.write_bytes(self._url, seen.to_lines())
        return seen

    def _watch(self) -> None:
        while True:
            self.look()
            if self._over.wait(_LOOK_S):
                return


def watch_of(
    config: Config, layout: SweepLayout, attempt: int, *, device: str, workers_wanted: Callable[[], int]
) -> MachineWatch | None:
    """The watch over the cluster that this process is connected to; None where no autoscaler brings machines.

    Raises ConfigError where the price table cannot be read.
    """
    types = ray_autoscaler.machine_types() if ray_cluster.address() is not None else ()
    if not types:
        return None
    import ray

    gcs_address = str(ray.get_runtime_context().gcs_address)
    on_a_machine = _workers_on_a_machine(config, types, device)
    prices = prices_of(config.budget)
    head = ray_autoscaler.head_type()
    return MachineWatch(
        layout.machines(attempt),
        wanted=lambda: math.ceil(workers_wanted() / on_a_machine),
        look=lambda: ray_autoscaler.read_state(gcs_address),
        usd_per_hour={each.name: _usd_per_hour(each, prices) for each in types},
        head_usd_per_hour=None if head is None else _usd_per_hour(head, prices),
    )


def read_watched(layout: SweepLayout) -> tuple[Watched, ...]:
    """What every command that worked on a sweep has seen, the first one first; none where there was no autoscaler."""
    try:
        urls = sorted(info.url for info in storage.list_objects(layout.machines_folder) if info.url.endswith(".jsonl"))
    except NotFoundError:
        return ()
    return tuple(Watched.from_lines(content) for content in in_parallel(storage.read_bytes, urls, max_workers=_READERS))


def _workers_on_a_machine(config: Config, types: Sequence[MachineType], device: str) -> int:
    """How many workers the first type of machine that has room for any takes."""
    bundle: dict[str, float] = {"CPU": config.scaling.cpus_per_worker}
    if device == "cuda":
        bundle["GPU"] = config.scaling.gpus_per_worker or 1
    fitting = (ray_autoscaler.whole_bundles(each.resources, bundle) for each in types)
    return next((count for count in fitting if count), 1)


def _usd_per_hour(kind: MachineType, prices: Prices) -> float | None:
    return prices.usd_per_hour(Machine(kind.name, kind.instance_type, kind.market, kind.region))


def _but_for_time(sample: Sample) -> tuple[Any, ...]:
    return sample.wanted, sample.machines, sample.coming


def _sample(row: Mapping[str, Any]) -> Sample:
    machines = {name: (str(kind), bool(is_busy)) for name, (kind, is_busy) in row["machines"].items()}
    return Sample(float(row["at"]), int(row["wanted"]), machines, row["coming"])
